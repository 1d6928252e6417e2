//! Ports: the taps by which VMs reach the software switch, and how an open one gets into a VMM.

pub mod descriptor;
mod tap;

#[cfg(feature = "daemon")]
mod access;
#[cfg(feature = "daemon")]
pub(crate) mod audit;
#[cfg(feature = "daemon")]
mod policy;

#[cfg(feature = "daemon")]
pub(crate) use access::{Caller, Ports};
#[cfg(feature = "daemon")]
pub use policy::{Policies, PolicyError, PortPolicy};
pub use tap::{TapError, attach, dimensions};
