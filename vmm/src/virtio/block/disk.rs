//! The file behind a disk. Never grows or shrinks it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, SeekFrom, flock, seek};

use super::SECTOR;

/// Why a file cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file cannot be opened.
    #[error("cannot open disk {}{}", path.display(), hint(source, *read_only))]
    Open {
        /// The file.
        path: PathBuf,
        /// Whether it was opened for reading only.
        read_only: bool,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process has the file locked.
    #[error("disk {} is in use by another VM; stop that one, or use `readonly` in both", .0.display())]
    InUse(PathBuf),
    /// The file is empty or no file.
    #[error("disk {} has {len} bytes; a raw image has a multiple of 512, and at least one sector", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// Its length cannot be found out.
    #[error("cannot use {} as a disk", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// No thread for the disk's I/O.
    #[error("cannot start the disk's thread")]
    Thread(#[source] io::Error),
}

fn hint(source: &io::Error, read_only: bool) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "; create it with `truncate -s SIZE FILE`",
        io::ErrorKind::PermissionDenied if !read_only => {
            "; give this user write permission, or add `readonly`"
        }
        io::ErrorKind::PermissionDenied => "; give this user read permission",
        _ => "",
    }
}

/// An opened disk image.
#[derive(Debug)]
pub struct Disk {
    file: File,
    sectors: u64,
    read_only: bool,
}

impl Disk {
    /// Opens and locks the raw image or block device at `path`.
    ///
    /// # Errors
    /// [`DiskError`], which says what to do.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
        let path_buf = || path.to_owned();
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(|source| DiskError::Open { path: path_buf(), read_only, source })?;
        let lock = if read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        flock(&file, lock).map_err(|_| DiskError::InUse(path_buf()))?;
        // Unlike the metadata, the end of the file is right for block devices too.
        let len = seek(&file, SeekFrom::End(0))
            .map_err(|error| DiskError::Io { path: path_buf(), source: error.into() })?;
        if len == 0 || !len.is_multiple_of(SECTOR) {
            return Err(DiskError::Size { path: path_buf(), len });
        }
        Ok(Self { file, sectors: len / SECTOR, read_only })
    }

    /// Capacity in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Makes everything written so far durable.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Byte position of `len` bytes from `sector` on, when they are whole sectors of this disk.
    pub(super) fn position(&self, sector: u64, len: u64) -> Option<u64> {
        let end = sector.checked_add(len / SECTOR)?;
        (len.is_multiple_of(SECTOR) && end <= self.sectors).then_some(sector * SECTOR)
    }
}

impl AsRawFd for Disk {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
