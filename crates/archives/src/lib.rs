//! Archives of carves, as they come: what they hold is named and can be read from memory, nothing is ever unpacked to a disk. They are
//! hostile; memory and time are bounded whatever they say. Where the bytes come from and what becomes of a listing is not known here.

use std::io::Read;

use chrono::{DateTime, Utc};
use ostiary_domain::carve::{ArchiveFormat, entry_path, shown_path};

/// Files that are listed; more are only counted, up to the other bounds.
pub const MAX_FILES: usize = 10_000;
/// Entries that are looked at.
const MAX_ENTRIES: usize = 200_000;
/// Bytes that are unpacked: a frame of zstd can hold the thousandfold of its size.
const MAX_UNPACKED: u64 = 16 << 30;
/// The longest name or pax header that is read, in bytes.
const MAX_HEADER: u64 = 64 * 1024;
/// Memory that a zstd frame may ask for, as a power of two: 128 MiB, what zstd itself allows at most by default.
const WINDOW_LOG: u32 = 27;

/// What was found in an archive.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The first [`MAX_FILES`].
    pub files: Vec<ListedFile>,
    /// How many there are; `None` when there is nothing that could be listed.
    pub file_count: Option<u32>,
    /// Why it is not all, in a sentence; empty if it is.
    pub problem: String,
}

/// A file in an archive, as its header has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Its path on the node, to be shown and never opened.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// When it was changed, if that is a time before the year 10,000.
    pub modified_at: Option<DateTime<Utc>>,
    /// Where its bytes begin in the unpacked archive; `None` when it is no plain file.
    pub data_at: Option<u64>,
}

/// Lists an archive of this format; `carve_id` is the carver's own id, which stands in the names.
#[must_use]
pub fn list(bytes: impl Read, format: ArchiveFormat, carve_id: &str) -> Listing {
    match format {
        ArchiveFormat::Tar => list_tar(bytes.take(MAX_UNPACKED), carve_id),
        ArchiveFormat::ZstdTar => match unpacked(bytes) {
            Ok(bytes) => list_tar(bytes.take(MAX_UNPACKED), carve_id),
            Err(error) => damaged(Listing::default(), &error),
        },
        ArchiveFormat::Unknown => Listing {
            problem: "This is neither a tar nor zstd; it is kept as it came.".to_owned(),
            ..Listing::default()
        },
    }
}

/// The tar in a zstd frame, as it is unpacked while somebody reads.
///
/// # Errors
/// zstd has no memory. What is wrong with the frame is said by the reads.
pub fn unpacked(bytes: impl Read) -> std::io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::new(bytes)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}

fn list_tar(bytes: impl Read, carve_id: &str) -> Listing {
    let mut listing = Listing {
        file_count: Some(0),
        ..Listing::default()
    };
    let mut archive = tar::Archive::new(bytes);
    // Raw: the names that an entry brings in extra headers are read by us, within bounds.
    let entries = match archive.entries() {
        Ok(entries) => entries.raw(true),
        Err(error) => return damaged(listing, &error),
    };
    let mut extra = Extra::default();
    for (seen, entry) in entries.enumerate() {
        if seen == MAX_ENTRIES {
            listing.problem = format!("Only the first {MAX_ENTRIES} entries were looked at.");
            return listing;
        }
        let taken = entry.and_then(|mut entry| take(&mut entry, &mut extra, carve_id));
        match taken {
            Ok(None) => {}
            Ok(Some(file)) => add(&mut listing, file),
            Err(error) => return damaged(listing, &error),
        }
    }
    if listing.file_count > u32::try_from(MAX_FILES).ok() {
        listing.problem = format!("Only the first {MAX_FILES} files are listed.");
    }
    listing
}

fn add(listing: &mut Listing, file: ListedFile) {
    listing.file_count = listing.file_count.map(|count| count.saturating_add(1));
    if listing.files.len() < MAX_FILES {
        listing.files.push(file);
    }
}

fn damaged(listing: Listing, error: &std::io::Error) -> Listing {
    // The library's words may quote the archive.
    let reason: String = shown_path(&error.to_string()).chars().take(200).collect();
    Listing {
        problem: format!("The archive can be read only so far: {reason}"),
        ..listing
    }
}

/// What headers before an entry say of it.
#[derive(Debug, Default)]
struct Extra {
    path: Option<Vec<u8>>,
    modified_at: Option<i64>,
}

/// An entry: extra headers are remembered for the next one, files are given back, all others passed over.
fn take<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    extra: &mut Extra,
    carve_id: &str,
) -> std::io::Result<Option<ListedFile>> {
    let kind = entry.header().entry_type();
    if kind.is_gnu_longname() {
        let mut name = read_header(entry)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        extra.path = Some(name);
        return Ok(None);
    }
    if kind.is_pax_local_extensions() {
        let header = read_header(entry)?;
        for field in tar::PaxExtensions::new(&header) {
            let field = field?;
            match field.key_bytes() {
                b"path" => extra.path = Some(field.value_bytes().to_vec()),
                b"mtime" => extra.modified_at = seconds_of(field.value_bytes()),
                _ => {}
            }
        }
        return Ok(None);
    }
    if kind.is_gnu_longlink() || kind.is_pax_global_extensions() {
        return Ok(None);
    }
    let extra = std::mem::take(extra);
    // Folders are only on the way to files.
    if kind.is_dir() {
        return Ok(None);
    }
    let path = extra
        .path
        .unwrap_or_else(|| entry.path_bytes().into_owned());
    let modified_at = match extra.modified_at {
        Some(seconds) => Some(seconds),
        None => entry
            .header()
            .mtime()
            .ok()
            .and_then(|seconds| i64::try_from(seconds).ok()),
    };
    let is_plain = matches!(kind, tar::EntryType::Regular | tar::EntryType::Continuous);
    Ok(Some(ListedFile {
        data_at: is_plain.then(|| entry.raw_file_position()),
        path: entry_path(&path, carve_id),
        size: entry.header().entry_size()?,
        modified_at: modified_at
            .filter(|seconds| (0..MAX_SECONDS).contains(seconds))
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
    }))
}

/// The year 9999: what is later is no time of a file.
const MAX_SECONDS: i64 = 253_402_300_800;

fn seconds_of(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    text.split('.').next()?.parse().ok()
}

fn read_header<R: Read>(entry: &mut tar::Entry<'_, R>) -> std::io::Result<Vec<u8>> {
    if entry.header().entry_size()? > MAX_HEADER {
        return Err(std::io::Error::other("a name is too long"));
    }
    let mut header = Vec::new();
    entry.take(MAX_HEADER).read_to_end(&mut header)?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "0f2e4c1d-1111-4222-8333-444455556666";

    fn header(size: u64, kind: tar::EntryType) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(1_800_000_000);
        header
    }

    /// As libarchive writes it: a pax header where the name is long, else ustar.
    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut folder = header(0, tar::EntryType::Directory);
        let root = format!("tmp/osquery_carve_{GUID}/");
        builder
            .append_data(&mut folder, &root, std::io::empty())
            .unwrap();
        for (path, content) in files {
            let path = format!("{root}{path}");
            if path.len() > 99 {
                builder
                    .append_pax_extensions([
                        ("mtime", b"1700000000.5".as_slice()),
                        ("path", path.as_bytes()),
                    ])
                    .unwrap();
            }
            let mut header = header(content.len() as u64, tar::EntryType::Regular);
            let short: String = path.chars().take(99).collect();
            header.as_mut_bytes()[..short.len()].copy_from_slice(short.as_bytes());
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn paths(listing: &Listing) -> Vec<&str> {
        listing
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect()
    }

    #[test]
    fn files_of_a_tar_are_named_as_on_their_node() {
        let long = format!("var/{}/x", "long".repeat(60));
        let tar = archive(&[("etc/hosts", b"127.0.0.1"), (&long, &[0; 1000])]);
        let listing = list(&tar[..], ArchiveFormat::of(&tar), GUID);
        assert_eq!(paths(&listing), ["/etc/hosts", &format!("/{long}")]);
        assert_eq!(
            (listing.file_count, listing.problem.as_str()),
            (Some(2), "")
        );
        assert_eq!((listing.files[0].size, listing.files[1].size), (9, 1000));
        let bytes = |file: &ListedFile| {
            let at = usize::try_from(file.data_at.unwrap()).unwrap();
            &tar[at..at + usize::try_from(file.size).unwrap()]
        };
        assert_eq!(bytes(&listing.files[0]), b"127.0.0.1");
        assert_eq!(bytes(&listing.files[1]), [0; 1000]);
        let times: Vec<i64> = listing
            .files
            .iter()
            .map(|file| file.modified_at.unwrap().timestamp())
            .collect();
        assert_eq!(times, [1_800_000_000, 1_700_000_000]);
    }

    #[test]
    fn k8_a_compressed_tar_is_listed_alike_and_one_without_files_is_empty() {
        let tar = archive(&[("etc/hosts", b"127.0.0.1")]);
        let packed = zstd::encode_all(&tar[..], 1).unwrap();
        assert_eq!(ArchiveFormat::of(&packed), ArchiveFormat::ZstdTar);
        let listing = list(&packed[..], ArchiveFormat::ZstdTar, GUID);
        assert_eq!(listing, list(&tar[..], ArchiveFormat::Tar, GUID));
        let empty = [0; 1024];
        let listing = list(&empty[..], ArchiveFormat::of(&empty), GUID);
        assert_eq!(
            (listing.file_count, listing.problem.as_str()),
            (Some(0), "")
        );
    }

    #[test]
    fn names_that_climb_or_disturb_are_only_text() {
        let tar = archive(&[("../../etc/passwd", b""), ("a\u{1b}[2J", b""), ("..", b"")]);
        let listing = list(&tar[..], ArchiveFormat::Tar, GUID);
        assert_eq!(paths(&listing), ["/../../etc/passwd", "/a\u{1b}[2J", "/.."]);
    }

    #[test]
    fn a_damaged_or_cut_off_archive_is_listed_as_far_as_it_goes() {
        let tar = archive(&[("a", &[1; 600]), ("b", &[2; 600])]);
        let packed = zstd::encode_all(&tar[..], 1).unwrap();
        for cut in [600, 1500, 2000, 2700] {
            let listing = list(&tar[..cut], ArchiveFormat::Tar, GUID);
            assert!(listing.files.len() <= 2, "{cut}");
            assert!(listing.file_count.is_some());
        }
        let listing = list(&packed[..packed.len() - 5], ArchiveFormat::ZstdTar, GUID);
        assert!(listing.problem.contains("only so far"), "{listing:?}");
        let mut damaged = tar.clone();
        damaged[2048 + 130] ^= 0xff;
        let listing = list(&damaged[..], ArchiveFormat::Tar, GUID);
        assert!(listing.problem.contains("only so far"), "{listing:?}");
        let listing = list(&b"PK\x03\x04"[..], ArchiveFormat::Unknown, GUID);
        assert_eq!(listing.file_count, None);
        assert!(listing.problem.contains("neither"));
    }

    #[test]
    fn a_header_that_claims_to_be_huge_takes_no_memory() {
        let mut huge = header(8 << 30, tar::EntryType::XHeader);
        huge.set_cksum();
        let bytes = huge.as_bytes().to_vec();
        let endless = std::io::Read::chain(&bytes[..], std::io::repeat(b'x'));
        let listing = list(endless, ArchiveFormat::Tar, GUID);
        assert!(listing.problem.contains("too long"), "{listing:?}");
    }

    #[test]
    fn a_bomb_ends_at_its_bound() {
        // Two hundred thousand and one empty files, in some 100 kB.
        let mut one = header(0, tar::EntryType::Regular);
        one.as_mut_bytes()[..1].copy_from_slice(b"x");
        one.set_cksum();
        let block = one.as_bytes().to_vec();
        let tar: Vec<u8> = block.repeat(MAX_ENTRIES + 1);
        let packed = zstd::encode_all(&tar[..], 1).unwrap();
        assert!(packed.len() < 200_000, "{}", packed.len());
        let listing = list(&packed[..], ArchiveFormat::ZstdTar, GUID);
        assert_eq!(listing.files.len(), MAX_FILES);
        assert!(
            listing.problem.contains("first 200000 entries"),
            "{listing:?}"
        );
    }
}
