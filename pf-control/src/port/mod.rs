//! Ports: the taps by which VMs reach the software switch, and how an open one gets into a VMM.

pub mod descriptor;
mod tap;

#[cfg(feature = "daemon")]
mod access;

#[cfg(feature = "daemon")]
pub(crate) use access::{Caller, Ports};
pub use tap::{TapError, attach, dimensions};
