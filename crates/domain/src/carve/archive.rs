//! What an archive is, and what the names in it mean. Names are hostile: they are only ever shown, never opened.

/// How the bytes of a carve are packed. Nothing on the wire says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// A tar.
    Tar,
    /// A tar in one zstd frame (`--carver_compression`).
    ZstdTar,
    /// Neither; kept as it came.
    Unknown,
}

/// The first bytes of a zstd frame (RFC 8878).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What is at byte 257 of every POSIX or GNU tar.
const USTAR: &[u8] = b"ustar";
const USTAR_AT: usize = 257;
/// Two blocks of zeros end a tar: one without files begins with them.
const TAR_BLOCK: usize = 512;

impl ArchiveFormat {
    /// Tells by the beginning of the bytes; 512 are enough.
    #[must_use]
    pub fn of(beginning: &[u8]) -> Self {
        let has_ustar = beginning.get(USTAR_AT..USTAR_AT + USTAR.len()) == Some(USTAR);
        let is_empty_tar =
            beginning.len() >= TAR_BLOCK && beginning[..TAR_BLOCK].iter().all(|byte| *byte == 0);
        if beginning.starts_with(&ZSTD) {
            Self::ZstdTar
        } else if has_ustar || is_empty_tar {
            Self::Tar
        } else {
            Self::Unknown
        }
    }

    /// The word in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::ZstdTar => "tar.zst",
            Self::Unknown => "unknown",
        }
    }

    /// How the name of a downloaded file ends.
    #[must_use]
    pub fn extension(word: &str) -> &'static str {
        match word {
            "tar" => "tar",
            "tar.zst" => "tar.zst",
            _ => "bin",
        }
    }
}

/// The longest path that is kept, in bytes; Linux knows none above 4,096.
const MAX_PATH: usize = 4096;

/// The path of a file on its node, from the name of an entry: what the carver puts in front, `<tmp>/osquery_carve_<guid>/`, is taken
/// away. What is no text is written as `\xNN`.
#[must_use]
pub fn entry_path(name: &[u8], carve_id: &str) -> String {
    let folder = format!("osquery_carve_{carve_id}/");
    // Windows separates by backslashes, and calls drives `C/…` since a colon cannot stand inside a path.
    let slashed: Vec<u8> = name
        .iter()
        .map(|byte| if *byte == b'\\' { b'/' } else { *byte })
        .collect();
    let found = slashed
        .windows(folder.len())
        .position(|window| window == folder.as_bytes())
        .map(|at| at + folder.len());
    let own = &slashed[found.unwrap_or(0)..];
    let is_drive = own.first().is_some_and(u8::is_ascii_alphabetic) && own.get(1) == Some(&b'/');
    // A POSIX path has lost its first slash when it was joined to the folder.
    let slash = if found.is_some() && !is_drive && own.first() != Some(&b'/') {
        "/"
    } else {
        ""
    };
    let mut path = format!("{slash}{}", text_of(&name[found.unwrap_or(0)..]));
    if path.len() > MAX_PATH {
        let end = (0..=MAX_PATH)
            .rev()
            .find(|at| path.is_char_boundary(*at))
            .unwrap_or(0);
        path.truncate(end);
        path.push('…');
    }
    path
}

/// A path as it may stand on a page or in a header: control characters and those that turn the direction of writing are escaped. Paths
/// that climb (`..`) stay as they are, for they are only shown.
#[must_use]
pub fn shown_path(path: &str) -> String {
    path.chars()
        .map(|c| {
            if c.is_control() || is_format(c) {
                c.escape_unicode().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

/// Invisible characters that change how others are shown (Unicode, category Cf, and the line separators).
fn is_format(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    // Postgres keeps no NUL in a text.
    text.replace('\0', "\\x00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k8_the_first_bytes_tell_zstd_from_tar() {
        let mut tar = vec![0; 512];
        tar[0] = b'x';
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(ArchiveFormat::of(&tar), ArchiveFormat::Tar);
        assert_eq!(ArchiveFormat::of(&[0; 1024]), ArchiveFormat::Tar);
        assert_eq!(
            ArchiveFormat::of(&[0x28, 0xb5, 0x2f, 0xfd]),
            ArchiveFormat::ZstdTar
        );
        for odd in [&b""[..], b"PK\x03\x04", &[0x28, 0xb5], &[0; 100]] {
            assert_eq!(ArchiveFormat::of(odd), ArchiveFormat::Unknown);
        }
        assert_eq!(ArchiveFormat::extension("tar.zst"), "tar.zst");
        assert_eq!(ArchiveFormat::extension("../x"), "bin");
    }

    #[test]
    fn names_lose_what_the_carver_put_in_front() {
        for (name, path) in [
            (&b"/tmp/osquery_carve_G/etc/hosts"[..], "/etc/hosts"),
            (b"tmp/osquery_carve_G//etc/hosts", "/etc/hosts"),
            (b"tmp/osquery_carve_G/hosts", "/hosts"),
            (b"C:\\Windows\\Temp\\osquery_carve_G\\C\\x.txt", "C\\x.txt"),
            (b"C/Temp/osquery_carve_G/C/x.txt", "C/x.txt"),
            (b"etc/passwd", "etc/passwd"),
            (b"/etc/passwd", "/etc/passwd"),
            (b"tmp/osquery_carve_other/a", "tmp/osquery_carve_other/a"),
            (b"t/osquery_carve_G/../../a", "/../../a"),
            (b"t/osquery_carve_G/a\xffb", "/a\\xffb"),
            (b"t/osquery_carve_G/a\0b", "/a\\x00b"),
            (b"", ""),
        ] {
            assert_eq!(
                entry_path(name, "G"),
                path,
                "{}",
                String::from_utf8_lossy(name)
            );
        }
        let long = entry_path("ü".repeat(5000).as_bytes(), "G");
        assert!(long.len() < MAX_PATH + 4 && long.ends_with('…'));
    }

    #[test]
    fn what_would_disturb_a_page_is_shown_escaped() {
        assert_eq!(
            shown_path("/a\u{1b}[31m\n\u{202e}fdp.exe"),
            "/a\\u{1b}[31m\\u{a}\\u{202e}fdp.exe"
        );
        assert_eq!(shown_path("/über/日本 <b>"), "/über/日本 <b>");
    }
}
