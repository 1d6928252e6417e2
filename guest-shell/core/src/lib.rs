//! The operating-system-agnostic part of the shell driver: it finds the NPA registers, drives the
//! switch between the emulated path and a VF, checks and enters injected plugins, and keeps the
//! books of every buffer. It never allocates but through [`os::Os`], never waits under a lock and
//! never trusts what a plugin reports.
//!
//! | module | what |
//! |---|---|
//! | [`os`] | what an operating system layer implements |
//! | [`switch`] | the state machine and its driver |
//! | [`handshake`] | registers, shell page, commands |
//! | [`landing`] | where an image lands, and its checks |
//! | [`plugin`] | the calls that every class shares |
//! | [`net`] | the network class: paths, routing, the shell itself |
//! | [`virtio`] | control side of the emulated path's virtio device |
#![cfg_attr(not(test), no_std)]

pub mod handshake;
pub mod landing;
mod locked;
pub mod log;
mod memory;
pub mod net;
pub mod os;
pub mod pci;
pub mod plugin;
pub mod switch;
pub mod virtio;

pub use memory::mark_pages;
