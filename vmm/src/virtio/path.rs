//! Steering of an emulated data path while another one takes over its traffic or hands it back.
//! Says nothing about what kind of device this is, and nothing about the other path.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pf_control::vf_control::Offloads;

use super::worker::CallError;

/// What an emulated path does with arriving traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMode {
    /// It is the only path: everything is delivered.
    Serving,
    /// Another path carries the traffic. What still arrives here for this device alone is
    /// delivered, what arrives for a group is discarded because the other path delivers its own
    /// copy. Requests that the guest submits are served all the same.
    Standby,
}

impl fmt::Display for PathMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serving => "serving",
            Self::Standby => "standby",
        })
    }
}

/// What a drain moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Units (frames, requests) that the drain delivered to the guest.
    pub received: u64,
    /// Units of the guest that the drain handed to the backend.
    pub sent: u64,
}

/// Why a mode could not be set.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The device's thread did not answer.
    #[error("the emulated path's thread did not answer")]
    Worker(#[from] CallError),
}

/// Why a drain did not finish.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The deadline passed first.
    #[error(
        "the emulated path still held traffic at the deadline ({unsent} unsent{})",
        if *.undelivered { ", received frames wait for room in the guest's ring" } else { "" }
    )]
    Deadline {
        /// Units that the guest had submitted and that were not handed to the backend.
        unsent: u32,
        /// Whether the backend may hold units for which the guest's ring has no room.
        undelivered: bool,
        /// What was moved until then.
        moved: Drained,
    },
    /// The device's thread did not answer.
    #[error("the emulated path's thread did not answer")]
    Worker(#[from] CallError),
}

/// Counters of one data path, counted since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Units delivered to the guest.
    pub received: u64,
    /// Bytes delivered to the guest.
    pub received_bytes: u64,
    /// Units for the guest that were dropped on purpose or for want of a fitting buffer.
    pub received_dropped: u64,
    /// Units that the guest submitted and that went out.
    pub sent: u64,
    /// Bytes that the guest submitted and that went out.
    pub sent_bytes: u64,
    /// Units of the guest that the backend refused.
    pub sent_dropped: u64,
    /// Doorbells of the guest that woke the device.
    pub kicks: u64,
    /// Interrupts raised to the guest.
    pub interrupts: u64,
}

/// The emulated data path of a device, as the switch sees it.
///
/// Calls come from a control thread while the device's own thread runs; each returns by its
/// deadline.
pub trait EmulatedPath: Send + Sync {
    /// What the guest is told that the device does for frames that are sent. Whatever else carries
    /// them must do it too.
    fn offers(&self) -> Offloads;

    /// The mode in force.
    fn mode(&self) -> PathMode;

    /// Sets the mode. When this returns, no unit is treated after the old mode any more.
    ///
    /// # Errors
    /// [`PathError`] when the device's thread does not answer.
    fn set_mode(&self, mode: PathMode) -> Result<(), PathError>;

    /// Waits until everything that the backend held when the call began is in the guest's ring
    /// and everything that the guest had submitted by then went out. In a device whose driver is
    /// not running there is nothing to move and the call returns at once.
    ///
    /// # Errors
    /// [`DrainError::Deadline`] says what remained, for instance because the guest offers no
    /// receive buffers.
    fn drain(&self, deadline: Duration) -> Result<Drained, DrainError>;

    /// The counters of this path.
    fn counters(&self) -> PathCounters;
}

/// [`PathCounters`] in the making, shared by the device's thread and its readers.
#[derive(Debug, Default)]
pub(super) struct LiveCounters {
    pub(super) received: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) received_dropped: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) sent_dropped: AtomicU64,
    pub(super) kicks: AtomicU64,
}

impl LiveCounters {
    /// Adds to a counter. One thread writes, so a plain load and store would do; the atomic add
    /// keeps it right whoever writes.
    pub(super) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, interrupts: u64) -> PathCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PathCounters {
            received: read(&self.received),
            received_bytes: read(&self.received_bytes),
            received_dropped: read(&self.received_dropped),
            sent: read(&self.sent),
            sent_bytes: read(&self.sent_bytes),
            sent_dropped: read(&self.sent_dropped),
            kicks: read(&self.kicks),
            interrupts,
        }
    }
}
