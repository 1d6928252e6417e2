//! Moving a running VM to another host, and saving it to disk: memory first, while the guest runs,
//! then the rest in one short stop.
//!
//! A VM that moves is a purely emulated VM: its devices give up their VFs first, and get whatever
//! the other host has once they are there. [`phase`] says who may run the VM at any moment, and
//! both ends obey it; everything that comes from the other end is hostile until it was checked.

pub mod channel;
mod destination;
mod error;
mod message;
mod pages;
pub mod phase;
mod precopy;
mod progress;
pub mod snapshot;
mod source;
pub mod transport;

pub use destination::{Incoming, receive};
pub use error::MigrationError;
pub use precopy::{Fallback, OnTimeout, Policy};
pub use progress::{Progress, ProgressView, Report, RoundReport, StopReport};
pub use source::{MigrateOptions, migrate};
pub use transport::{Endpoint, Listener};

use std::sync::Arc;

use crate::api::Accelerated;
use crate::virtio::Arrivals;

/// A device with what a move needs of it.
#[derive(Clone)]
pub struct MovingDevice {
    /// Its data path, which falls back before and is taken up after the move.
    pub accelerated: Arc<dyn Accelerated>,
    /// What arrives for it meanwhile.
    pub arrivals: Arc<dyn Arrivals>,
}
