//! The device nodes of IOMMU groups: whether somebody has one open.

use super::sysfs::file;
use super::{InventoryError, ProcessTable};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Who has an IOMMU group open.
pub trait Occupancy: Send + Sync {
    /// Whether a process has the group open, or something that was opened through it.
    ///
    /// # Errors
    /// It cannot be found out.
    fn is_open(&self, group: u32) -> Result<bool, InventoryError>;

    /// Opens the group.
    ///
    /// # Errors
    /// A process has it open, or there is no such group.
    fn open(&self, group: u32) -> Result<OwnedFd, InventoryError>;

    /// A process that has the group open, if one can be found.
    fn holder(&self, group: u32) -> Option<u32>;
}

/// The directory of the group nodes.
#[derive(Debug, Clone)]
pub struct VfioNodes {
    root: PathBuf,
}

impl Default for VfioNodes {
    fn default() -> Self {
        Self::at("/dev/vfio")
    }
}

impl VfioNodes {
    /// The nodes below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The node of a group.
    pub fn path(&self, group: u32) -> PathBuf {
        self.root.join(group.to_string())
    }
}

impl Occupancy for VfioNodes {
    /// The kernel lets a group be opened once at a time, so this tries; it must not be called for
    /// a VF that a VM is about to open.
    fn is_open(&self, group: u32) -> Result<bool, InventoryError> {
        let path = self.path(group);
        match open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(_) => Ok(false),
            Err(Errno::BUSY) => Ok(true),
            // Without a node nobody can have opened it.
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(file("open", &path)(errno.into())),
        }
    }

    fn open(&self, group: u32) -> Result<OwnedFd, InventoryError> {
        let path = self.path(group);
        open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| file("open", &path)(errno.into()))
    }

    fn holder(&self, group: u32) -> Option<u32> {
        ProcessTable::default().holder(&self.path(group))
    }
}
