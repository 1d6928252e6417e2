//! The host's VF and policy daemon, as a library.
//!
//! Three audiences, by feature. The VMM uses [`client`] to ask the daemon for a VF and
//! [`vf_control`] to drive the VF's withheld control page; a protocol model uses [`lease`], whose
//! transition function is pure; the daemon (feature `daemon`) is everything else. [`ops`] is the
//! table of operations that all of them share. Nothing here ever touches the VF's data path.

#[cfg(feature = "daemon")]
pub mod capability;
pub mod client;
#[cfg(feature = "daemon")]
pub mod inventory;
pub mod lease;
#[cfg(feature = "daemon")]
pub mod netlink;
pub mod ops;
#[cfg(feature = "daemon")]
pub mod pool;
pub mod port;
#[cfg(feature = "daemon")]
pub mod server;
#[cfg(feature = "daemon")]
pub mod state;
#[cfg(feature = "daemon")]
pub mod switch;
#[cfg(feature = "daemon")]
pub mod vendor;
pub mod vf_control;
