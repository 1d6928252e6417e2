//! Writes the archive format that Linux unpacks as its first root (cpio "newc",
//! Documentation/driver-api/early-userspace/buffer-format.rst). Reproducible: every file
//! belongs to root and has time 0. Writes no device nodes: devtmpfs makes them.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// Type bits of a mode.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// What a path in the archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A folder with its permission bits.
    Folder(u32),
    /// A file: permission bits and content.
    File(u32, Vec<u8>),
    /// A symbolic link to a path.
    Link(String),
}

/// Writes `entries` (paths without a leading slash; a folder sorts before what is in it).
pub(super) fn write(entries: &BTreeMap<String, Entry>, out: &mut impl Write) -> io::Result<()> {
    let mut inode = 0;
    for (path, entry) in entries {
        inode += 1;
        let (mode, content): (u32, &[u8]) = match entry {
            Entry::Folder(bits) => (DIRECTORY | bits, &[]),
            Entry::File(bits, content) => (REGULAR | bits, content),
            Entry::Link(target) => (SYMLINK | 0o777, target.as_bytes()),
        };
        member(out, inode, mode, path, content)?;
    }
    member(out, 0, 0, "TRAILER!!!", &[])
}

fn member(
    out: &mut impl Write,
    inode: u32,
    mode: u32,
    path: &str,
    content: &[u8],
) -> io::Result<()> {
    let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let name_size = u32::try_from(path.len() + 1).map_err(|_| io::ErrorKind::InvalidFilename)?;
    // uid, gid 0; one link; time 0; then file size, two device numbers twice, name size, no sum.
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    let mut header = String::from("070701");
    for field in fields {
        header.push_str(&format!("{field:08x}"));
    }
    out.write_all(header.as_bytes())?;
    out.write_all(path.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, header.len() + path.len() + 1)?;
    out.write_all(content)?;
    pad(out, content.len())
}

fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_aligned_and_the_trailer_comes_last() {
        let mut entries = BTreeMap::new();
        entries.insert("a".to_owned(), Entry::Folder(0o755));
        entries.insert("a/b".to_owned(), Entry::File(0o644, b"hello".to_vec()));
        entries.insert("c".to_owned(), Entry::Link("a/b".to_owned()));
        let mut archive = Vec::new();
        write(&entries, &mut archive).unwrap();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.contains("TRAILER!!!"));
        for (position, _) in text.match_indices("070701") {
            assert_eq!(position % 4, 0);
        }
        // mode of the file, its size and its name's size, as eight hexadecimal digits each
        assert!(
            text.contains("000081a4") && text.contains("00000005") && text.contains("00000004")
        );
    }
}
