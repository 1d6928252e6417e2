//! A disk (VIRTIO 1.2, section 5.2) whose contents are a raw file or block device.

mod disk;
mod request;
#[cfg(test)]
mod tests;
mod worker;

use std::path::Path;

pub use disk::{Disk, DiskError};

use self::worker::BlockWorker;
use super::device::{ActivateError, Activation, DeviceType, VirtioDevice, read_bytes};
use super::queue::QueuePosition;
use super::worker::{CallError, WorkerThread};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
};

const QUEUE_SIZE: u16 = 256;

/// Bytes of a sector, the unit of all positions.
pub const SECTOR: u64 = 512;

/// The disk device.
pub struct Block {
    worker: WorkerThread<BlockWorker>,
    sectors: u64,
    read_only: bool,
}

impl Block {
    /// A disk over the file at `path`.
    ///
    /// # Errors
    /// [`DiskError`], which says what to do.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
        Self::new(Disk::open(path, read_only)?)
    }

    /// A disk over an opened file.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub fn new(disk: Disk) -> Result<Self, DiskError> {
        let (sectors, read_only) = (disk.sectors(), disk.is_read_only());
        let worker =
            WorkerThread::spawn("block", BlockWorker::new(disk)).map_err(DiskError::Thread)?;
        Ok(Self { worker, sectors, read_only })
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn identity(&self) -> String {
        let access = if self.read_only { ", read-only" } else { "" };
        format!("disk of {} bytes{access}", self.sectors * SECTOR)
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        let read_only = if self.read_only { 1 << VIRTIO_BLK_F_RO } else { 0 };
        1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | read_only
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_blk_config up to blk_size
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.sectors.to_le_bytes());
        // Two descriptors of a request are for its header and its status.
        bytes[12..16].copy_from_slice(&u32::from(QUEUE_SIZE - 2).to_le_bytes());
        bytes[20..].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        read_bytes(&bytes, offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if activation.queues.first().is_none_or(Option::is_none) {
            return Err(ActivateError::QueueDisabled(0));
        }
        Ok(self.worker.activate(activation)?)
    }

    fn reset(&mut self) {
        if let Err(error) = self.worker.deactivate() {
            tracing::error!(%error, "the disk's thread did not stop for a reset");
        }
    }

    fn suspend(&mut self) -> Result<Vec<QueuePosition>, CallError> {
        self.worker.deactivate()
    }
}
