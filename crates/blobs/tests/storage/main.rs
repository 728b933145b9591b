//! The storages, really there: a folder, and moto's S3 server as a process.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt as _;
use ostiary_blobs::{Blobs, Error, Kind, Options, S3Options};
use ostiary_dev::s3::S3;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
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

/// The id of an object: of version 7, as ours are.
fn id_of(n: u64) -> Uuid {
    Uuid::from_u128(7 << 76 | 8 << 60 | u128::from(n))
}

/// An id that no other attempt has.
fn attempt() -> Uuid {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    id_of(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What every storage promises.
async fn keeps_its_promises(blobs: &Blobs) {
    // Of one byte, of one part and a byte, of several parts.
    for (n, length) in [1_usize, (8 << 20) + 1, 21 << 20].into_iter().enumerate() {
        let id = id_of(n as u64);
        let content: Vec<u8> = (0..length).map(|at| (at / 7 + n) as u8).collect();
        let mut writer = blobs.write(id, attempt()).await.unwrap();
        for chunk in content.chunks(3_000_001) {
            writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            let unseen = blobs.read(id).await.err();
            assert!(matches!(unseen, Some(Error::NotFound)), "{unseen:?}");
        }
        writer.finish().await.unwrap();
        assert!(read(blobs, id).await == content, "{length} bytes");
    }
    let id = id_of(0);
    let mut writer = blobs.write(id, attempt()).await.unwrap();
    writer.write(Bytes::from_static(b"again")).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(read(blobs, id).await, b"again", "it is replaced");
    let mut writer = blobs.write(id, attempt()).await.unwrap();
    writer.write(Bytes::from(vec![7; 9 << 20])).await.unwrap();
    writer.abort().await.unwrap();
    assert_eq!(
        read(blobs, id).await,
        b"again",
        "what is given up changes nothing"
    );
    let listed = async |before| {
        let found: Vec<_> = futures::StreamExt::collect(blobs.list_before(before)).await;
        let mut ids: Vec<Uuid> = found.into_iter().map(Result::unwrap).collect();
        ids.sort_unstable();
        ids
    };
    let long_ago = chrono::DateTime::UNIX_EPOCH;
    assert!(listed(long_ago).await.is_empty());
    let all: Vec<Uuid> = (0..3).map(id_of).collect();
    assert_eq!(listed(chrono::DateTime::<chrono::Utc>::MAX_UTC).await, all);
    two_attempts_do_not_disturb_each_other(blobs, id).await;
    for n in 0..3 {
        blobs.delete(id_of(n)).await.unwrap();
        assert!(matches!(
            blobs.read(id_of(n)).await.err(),
            Some(Error::NotFound)
        ));
        blobs.delete(id_of(n)).await.unwrap();
    }
}

/// Two workers may be at the same object: one that was taken for dead, and its successor.
async fn two_attempts_do_not_disturb_each_other(blobs: &Blobs, id: Uuid) {
    let content = Bytes::from(vec![5; 9 << 20]);
    let (mut slow, mut quick) = (
        blobs.write(id, attempt()).await.unwrap(),
        blobs.write(id, attempt()).await.unwrap(),
    );
    slow.write(content.clone()).await.unwrap();
    quick.write(content.clone()).await.unwrap();
    let given_up = blobs.write(id, attempt()).await.unwrap();
    given_up.abort().await.unwrap();
    quick.finish().await.unwrap();
    assert!(read(blobs, id).await == content);
    slow.finish().await.unwrap();
    assert!(read(blobs, id).await == content);
}

#[tokio::test]
async fn a_folder_keeps_objects_for_its_owner_only() {
    let folder = Folder::new("folder");
    let path = folder.0.join("a/b");
    let blobs = Blobs::open(&in_folder(&path)).unwrap();
    keeps_its_promises(&blobs).await;
    let id = id_of(0xabc);
    let name = "00000000000070008000000000000abc";
    let mut writer = blobs.write(id, attempt()).await.unwrap();
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    writer.finish().await.unwrap();
    let left: Vec<_> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [name], "an id, and nothing left over");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join(name))), (0o700, 0o600));
    let unfinished = blobs.write(id_of(1), attempt()).await.unwrap();
    unfinished.abort().await.unwrap();
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
}

#[tokio::test]
async fn what_was_never_finished_in_a_folder_is_cleared_away_when_it_is_old() {
    let folder = Folder::new("left");
    let blobs = Blobs::open(&in_folder(&folder.0)).unwrap();
    let id = "00000000000070008000000000000abc";
    let day = Duration::from_secs(24 * 3600);
    // As processes leave it that were killed while they wrote; the last two are none of ours, and an object.
    for (name, age) in [
        (format!("{id}-{id}#1"), day * 2),
        (format!("{id}-{id}"), day * 2),
        (format!("{id}#1"), day * 2),
        (format!("{id}-{id}#2"), day / 2),
        ("notes#1".to_owned(), day * 2),
        (id.to_owned(), day * 2),
    ] {
        let file = std::fs::File::create(folder.0.join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    let cleared = blobs.clear_left_over(SystemTime::now().into()).await;
    assert_eq!(cleared.unwrap(), 3);
    let mut left: Vec<_> = std::fs::read_dir(&folder.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [id, &format!("{id}-{id}#2"), "notes#1"]);
}

#[tokio::test]
async fn a_new_attempt_clears_away_what_dead_ones_at_the_same_object_have_left() {
    let folder = Folder::new("dead");
    let blobs = Blobs::open(&in_folder(&folder.0)).unwrap();
    let (id, other) = (id_of(1).simple(), id_of(2).simple());
    for (name, minutes) in [
        (format!("{id}-{other}#1"), 11),
        (format!("{id}-{id}"), 11),
        (format!("{id}-{id}#1"), 9),
        (format!("{other}-{id}#1"), 11),
        (other.to_string(), 11),
    ] {
        let file = std::fs::File::create(folder.0.join(name)).unwrap();
        let age = Duration::from_secs(minutes * 60);
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    let writer = blobs.write(id_of(1), attempt()).await.unwrap();
    writer.abort().await.unwrap();
    let mut left: Vec<_> = std::fs::read_dir(&folder.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let expected = [
        format!("{id}-{id}#1"),
        other.to_string(),
        format!("{other}-{id}#1"),
    ];
    assert_eq!(left, expected);
}

#[tokio::test]
async fn only_what_is_named_as_ours_is_listed() {
    let folder = Folder::new("named");
    let blobs = Blobs::open(&in_folder(&folder.0)).unwrap();
    let (id, of_others) = (id_of(1).simple(), Uuid::from_u128(4 << 76 | 8 << 60));
    std::fs::create_dir(folder.0.join("nested")).unwrap();
    for name in [
        id.to_string(),
        format!("nested/{}", id_of(2).simple()),
        of_others.simple().to_string(),
        id_of(3).hyphenated().to_string(),
        "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
    ] {
        std::fs::write(folder.0.join(name), "x").unwrap();
    }
    let listed = blobs.list_before(chrono::DateTime::<chrono::Utc>::MAX_UTC);
    let listed: Vec<Uuid> = listed.try_collect().await.unwrap();
    assert_eq!(listed, [id_of(1)]);
}

#[tokio::test]
async fn what_reads_otherwise_than_it_was_written_does_not_become_an_object() {
    let folder = Folder::new("damaged");
    let blobs = Blobs::open(&in_folder(&folder.0)).unwrap();
    let id = id_of(7);
    let mut writer = blobs.write(id, attempt()).await.unwrap();
    writer.write(Bytes::from(vec![7; 17 << 20])).await.unwrap();
    let written = || {
        let mut entries = std::fs::read_dir(&folder.0).unwrap();
        entries.next().unwrap().unwrap().path()
    };
    let deadline = SystemTime::now() + Duration::from_secs(180);
    while written().metadata().unwrap().len() < 8 << 20 {
        assert!(SystemTime::now() < deadline, "the first part is not there");
        tokio::task::yield_now().await;
    }
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::OpenOptions::new()
            .write(true)
            .open(written())
            .unwrap(),
        b"other",
        100,
    )
    .unwrap();
    let finished = writer.finish().await;
    assert!(matches!(finished, Err(Error::Damaged)), "{finished:?}");
    assert!(matches!(blobs.read(id).await.err(), Some(Error::NotFound)));
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
}

#[tokio::test]
async fn uploads_that_were_abandoned_in_a_bucket_are_aborted() {
    let folder = Folder::new("abandoned");
    let server = S3::start(&folder.0).await.unwrap();
    server.make_bucket("carves").await.unwrap();
    let mut options = in_bucket(&server.endpoint);
    // Names with these signs are escaped, and no more than once: all that speaks with the bucket has to agree.
    options.s3.prefix = "of ours~#1/carves".to_owned();
    let ours = Blobs::open(&options).unwrap();
    options.s3.prefix = "elsewhere".to_owned();
    let others = Blobs::open(&options).unwrap();
    // moto gives every upload the same time, in 2010.
    let (then, now) = (
        "2010-01-01T00:00:00Z".parse().unwrap(),
        SystemTime::now().into(),
    );
    for (blobs, n) in [(&ours, 1), (&ours, 2), (&others, 3)] {
        let mut writer = blobs.write(id_of(n), attempt()).await.unwrap();
        writer.write(Bytes::from(vec![7; 9 << 20])).await.unwrap();
        // As when the process is killed: nobody aborts.
        drop(writer);
    }
    assert_eq!(ours.clear_left_over(then).await.unwrap(), 0);
    assert_eq!(ours.clear_left_over(now).await.unwrap(), 2);
    assert_eq!(ours.clear_left_over(now).await.unwrap(), 0);
    assert_eq!(others.clear_left_over(now).await.unwrap(), 1);
    server.stop().await;
}

/// A way to a storage that spoils what comes back, as long as it is told to: every 7 becomes an 8.
struct SpoilingWay {
    endpoint: String,
    spoils: Arc<AtomicBool>,
    serving: tokio::task::JoinHandle<()>,
}

impl SpoilingWay {
    async fn to(endpoint: &str) -> Self {
        let storage = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spoils = Arc::new(AtomicBool::new(true));
        let told = Arc::clone(&spoils);
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let storage = TcpStream::connect(&storage).await.unwrap();
                tokio::spawn(carry(client, storage, Arc::clone(&told)));
            }
        });
        Self {
            endpoint,
            spoils,
            serving,
        }
    }
}

impl Drop for SpoilingWay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn carry(client: TcpStream, storage: TcpStream, spoils: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_storage, mut to_storage) = storage.into_split();
    let there = async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_storage).await;
        let _ = to_storage.shutdown().await;
    };
    let back = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_storage.read(&mut buffer).await {
            if spoils.load(Ordering::SeqCst) {
                // No head has such a byte.
                let sevens = buffer[..read].iter_mut().filter(|byte| **byte == 7);
                sevens.for_each(|byte| *byte = 8);
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::join!(there, back);
}

#[tokio::test]
async fn an_object_that_a_bucket_gives_back_otherwise_is_damaged_until_it_is_written_again() {
    let folder = Folder::new("spoilt");
    let server = S3::start(&folder.0).await.unwrap();
    server.make_bucket("carves").await.unwrap();
    let way = SpoilingWay::to(&server.endpoint).await;
    let blobs = Blobs::open(&in_bucket(&way.endpoint)).unwrap();
    let (id, content) = (id_of(9), vec![7; (9 << 20) + 1]);
    let write = async || {
        let mut writer = blobs.write(id, attempt()).await.unwrap();
        writer.write(Bytes::from(content.clone())).await.unwrap();
        writer.finish().await
    };
    let finished = write().await;
    assert!(matches!(finished, Err(Error::Damaged)), "{finished:?}");
    way.spoils.store(false, Ordering::SeqCst);
    write().await.unwrap();
    assert!(read(&blobs, id).await == content);
    server.stop().await;
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
    let mut failed = blobs.write(id_of(5), attempt()).await.err();
    if failed.is_none() {
        let mut writer = blobs.write(id_of(5), attempt()).await.unwrap();
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
