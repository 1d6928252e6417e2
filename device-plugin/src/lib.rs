//! The way in which a cluster's scheduler learns of a host's VFs: a device plugin of the kubelet
//! (interface v1beta1) beside pf-control.
//!
//! It counts and never chooses. The scheduler places a VM on a host that has a VF to spare; which VF
//! it gets, and when, is between its VMM and pf-control.

pub mod resource;
pub mod service;

mod inventory;
mod registration;

pub use inventory::{Inventory, follow};
pub use registration::{ServeError, serve};

/// The kubelet's interface, version v1beta1.
#[allow(missing_docs, clippy::all, unused_qualifications, unreachable_pub)]
pub mod v1beta1 {
    tonic::include_proto!("v1beta1");
}
