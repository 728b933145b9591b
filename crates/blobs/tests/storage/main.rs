//! The storages, really there: a folder, and moto's S3 server as a process.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::TryStreamExt as _;
use ostiary_blobs::{Blobs, Error, Kind, Options, S3Options};
use ostiary_dev::s3::S3;
use uuid::Uuid;

/// A folder of its own, deleted at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("ostiary-blobs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn in_folder(path: &Path) -> Options {
    Options {
        kind: Kind::Folder,
        folder: path.to_owned(),
        ..Options::default()
    }
}

fn in_bucket(endpoint: &str) -> Options {
    Options {
        kind: Kind::S3,
        s3: S3Options {
            endpoint: endpoint.to_owned(),
            bucket: "carves".to_owned(),
            access_key_id: "id".into(),
            secret_access_key: "secret".into(),
            path_style: true,
            allow_http: true,
            ..S3Options::default()
        },
        ..Options::default()
    }
}

async fn read(blobs: &Blobs, id: Uuid) -> Vec<u8> {
    let blob = blobs.read(id).await.unwrap();
    let chunks: Vec<Bytes> = blob.bytes.try_collect().await.unwrap();
    let bytes = chunks.concat();
    assert_eq!(blob.size, bytes.len() as u64);
    bytes
}

/// What every storage promises.
async fn keeps_its_promises(blobs: &Blobs) {
    // Of one byte, of one part and a byte, of several parts.
    for (n, length) in [1_usize, (8 << 20) + 1, 21 << 20].into_iter().enumerate() {
        let id = Uuid::from_u128(n as u128);
        let content: Vec<u8> = (0..length).map(|at| (at / 7 + n) as u8).collect();
        let mut writer = blobs.write(id).await.unwrap();
        for chunk in content.chunks(3_000_001) {
            writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            let unseen = blobs.read(id).await.err();
            assert!(matches!(unseen, Some(Error::NotFound)), "{unseen:?}");
        }
        writer.finish().await.unwrap();
        assert!(read(blobs, id).await == content, "{length} bytes");
    }
    let id = Uuid::from_u128(0);
    let mut writer = blobs.write(id).await.unwrap();
    writer.write(Bytes::from_static(b"again")).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(read(blobs, id).await, b"again", "it is replaced");
    let mut writer = blobs.write(id).await.unwrap();
    writer.write(Bytes::from(vec![7; 9 << 20])).await.unwrap();
    writer.abort().await.unwrap();
    assert_eq!(
        read(blobs, id).await,
        b"again",
        "what is given up changes nothing"
    );
    for n in 0..3 {
        blobs.delete(Uuid::from_u128(n)).await.unwrap();
        assert!(matches!(
            blobs.read(Uuid::from_u128(n)).await.err(),
            Some(Error::NotFound)
        ));
        blobs.delete(Uuid::from_u128(n)).await.unwrap();
    }
}

#[tokio::test]
async fn a_folder_keeps_objects_for_its_owner_only() {
    let folder = Folder::new("folder");
    let path = folder.0.join("a/b");
    let blobs = Blobs::open(&in_folder(&path)).unwrap();
    keeps_its_promises(&blobs).await;
    let id = Uuid::from_u128(0xabc);
    let name = "00000000000000000000000000000abc";
    // As a process leaves it that was killed while it wrote.
    std::fs::write(path.join(format!("{name}#1")), b"half").unwrap();
    let mut writer = blobs.write(id).await.unwrap();
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    writer.finish().await.unwrap();
    let left: Vec<_> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [name], "an id, and nothing left over");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join(name))), (0o700, 0o600));
    let unfinished = blobs.write(Uuid::from_u128(1)).await.unwrap();
    unfinished.abort().await.unwrap();
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
}

#[tokio::test]
async fn a_bucket_keeps_objects() {
    let folder = Folder::new("s3");
    let server = S3::start(&folder.0).await.unwrap();
    server.make_bucket("carves").await.unwrap();
    let options = in_bucket(&server.endpoint);
    let blobs = Blobs::open(&options).unwrap();
    keeps_its_promises(&blobs).await;
    let printed = format!("{options:?}");
    assert!(!printed.contains("\"secret\""), "{printed}");
    let mut elsewhere = options.clone();
    elsewhere.s3.bucket = "missing".to_owned();
    let blobs = Blobs::open(&elsewhere).unwrap();
    let mut failed = blobs.write(Uuid::from_u128(5)).await.err();
    if failed.is_none() {
        let mut writer = blobs.write(Uuid::from_u128(5)).await.unwrap();
        writer.write(Bytes::from_static(b"x")).await.unwrap();
        failed = writer.finish().await.err();
    }
    assert!(failed.is_some(), "there is no such bucket");
    server.stop().await;
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_a_reason() {
    let refused = |change: fn(&mut S3Options)| {
        let mut options = in_bucket("http://127.0.0.1:9");
        change(&mut options.s3);
        match Blobs::open(&options) {
            Err(Error::Settings(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(|s3| s3.bucket = String::new()).contains("no bucket"));
    assert!(refused(|s3| s3.allow_http = false).contains("plain HTTP"));
    assert!(refused(|s3| s3.access_key_id = "".into()).contains("belong together"));
    let no_folder = in_folder(Path::new("/proc/none"));
    assert!(matches!(Blobs::open(&no_folder), Err(Error::Settings(_))));
}
