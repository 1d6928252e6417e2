//! Control side of a modern virtio PCI device (virtio 1.2, 4.1): reset, features, queues, status.
//! Class-neutral; the data path is a plugin's. Everything here runs on the control side.

mod commands;
mod device;
mod location;

pub use commands::{CommandError, Commands};
pub use device::{QueuePlace, VirtioDevice, VirtioError};
pub use location::{Area, Locations};
