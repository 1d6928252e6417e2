//! Virtio devices and their PCI transport (VIRTIO 1.2, modern interface only).
//!
//! A device ([`VirtioDevice`]) is configuration space, queues and a worker thread. The transport
//! ([`pci`]) speaks to the guest driver and hands the queues over at `DRIVER_OK`. Nothing in here
//! knows how a data path is replaced: [`path::EmulatedPath`] lets whoever does that steer and
//! drain a device, and [`pci::PciExtension`] lets it own a BAR and a capability of the function.

pub mod arrivals;
pub mod block;
pub mod device;
pub mod interrupt;
mod iovec;
pub mod net;
pub mod path;
pub mod pci;
pub mod queue;
pub mod rng;
pub mod worker;

#[cfg(test)]
mod contract_test;
#[cfg(test)]
mod fake_driver;

pub use arrivals::{Arrival, Arrivals, Intake};
pub use device::{ActivateError, Activation, DeviceType, VirtioDevice};
pub use interrupt::{Interrupts, VectorSink};
pub use path::{DrainError, Drained, EmulatedPath, PathCounters, PathError, PathMode};
