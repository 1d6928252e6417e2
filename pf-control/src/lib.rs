//! The host's VF and policy daemon, as a library.
//!
//! Three audiences, by feature. The VMM uses [`client`] to ask the daemon for a VF and
//! [`vf_control`] to drive the VF's withheld control page; a protocol model uses [`lease`], whose
//! transition function is pure; the daemon (feature `daemon`) is everything else. [`ops`] is the
//! table of operations that all of them share. Nothing here ever touches the VF's data path.

pub mod client;
pub mod lease;
pub mod ops;
pub mod vf_control;
