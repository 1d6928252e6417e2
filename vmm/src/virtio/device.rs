//! What the transport asks of a virtio device. Knows nothing of PCI.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::interrupt::Interrupts;
use super::queue::{DeviceQueue, QueuePosition};
use super::worker::CallError;
use crate::vm::GuestRam;

/// Virtio device type numbers (VIRTIO 1.2, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum DeviceType {
    /// Network card.
    Net = 1,
    /// Block device.
    Block = 2,
    /// Entropy source.
    Rng = 4,
    /// Crypto accelerator.
    Crypto = 20,
}

/// What a device gets when the guest's driver is ready (`DRIVER_OK`).
#[derive(Debug)]
pub struct Activation {
    /// The feature bits that driver and device agreed on.
    pub features: u64,
    /// Guest RAM.
    pub memory: Arc<GuestRam>,
    /// One entry per queue of the device; `None` for a queue that the driver left disabled.
    pub queues: Vec<Option<DeviceQueue>>,
    /// The doorbell of each queue, written by KVM when the guest rings it.
    pub kicks: Vec<EventFd>,
    /// How the device raises interrupts and reports that it needs a reset.
    pub interrupts: Arc<Interrupts>,
}

/// Why a device could not start its queues.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The driver left queue {0} disabled, and the device cannot work without it
    #[error("the driver left queue {0} disabled, and the device cannot work without it")]
    QueueDisabled(u16),
    /// The device's thread did not take the queues.
    #[error("the device's thread did not take the queues")]
    Worker(#[from] CallError),
    /// The host resource behind the device refused the negotiated features.
    #[error("the host side of the device refused the negotiated features")]
    Backend(#[source] std::io::Error),
}

/// A virtio device: configuration, queues and a worker.
///
/// The transport calls it from vCPU threads, so no call may wait for the guest or a peer process;
/// waiting for the device's own worker, whose work per wakeup is bounded, is allowed.
pub trait VirtioDevice: Send {
    /// Which device this is.
    fn device_type(&self) -> DeviceType;

    /// What it is, in words, with all that a guest can see of its host side: devices with equal
    /// texts can stand in for one another.
    fn identity(&self) -> String;

    /// Largest size of each queue, a power of two up to 32768; the length is the queue count.
    fn queue_sizes(&self) -> &[u16];

    /// Device feature bits offered. The transport adds the ring and transport features.
    fn features(&self) -> u64;

    /// Reads the device configuration space; bytes beyond its end are zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the device configuration space; what is read-only ignores it.
    fn write_config(&mut self, offset: u64, data: &[u8]);

    /// Starts processing queues.
    ///
    /// # Errors
    /// When the device cannot work with what the driver set up. The transport then reports
    /// `DEVICE_NEEDS_RESET` to the guest.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Stops processing: when this returns, the device touches neither queues nor guest memory,
    /// and whatever it had begun is lost.
    fn reset(&mut self);

    /// Stops processing as well, but loses nothing: what it had begun is finished or put back,
    /// what arrives waits where it arrived. Answers where it stands in each queue, so that
    /// [`VirtioDevice::activate`] with these positions, here or in an equal device elsewhere, goes
    /// on; with nothing when it was not active or had failed.
    ///
    /// # Errors
    /// When the device's thread does not answer in time.
    fn suspend(&mut self) -> Result<Vec<QueuePosition>, CallError>;
}

/// Serves a read of a configuration space that consists of `bytes`; beyond them it is zero.
pub(super) fn read_bytes(bytes: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let from = &bytes[start..];
    let len = from.len().min(data.len());
    data[..len].copy_from_slice(&from[..len]);
}
