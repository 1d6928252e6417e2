//! The Rust half of the Linux module: gives the shell core the kernel's services and gives the C
//! layer its entry points. It decides nothing: policy and protocol are in `shell-core`, and no
//! Linux structure is touched here.
//!
//! | module | what |
//! |---|---|
//! | [`seam`] | structures and functions that the C layer offers (`module/core.h`) |
//! | [`kernel`] | the core's traits, made of these |
//! | [`capability`] | which devices are ours |
//! | [`statistics`], [`switch_times`] | what ethtool shows |
//! | `entry` | the functions that the C layer calls; only in the module |
//!
//! On the host it is an ordinary library, so that the workspace builds and its tests run; the
//! module is built for `x86_64-unknown-none`.
#![cfg_attr(target_os = "none", no_std)]

pub mod capability;
#[cfg(target_os = "none")]
pub mod entry;
pub mod kernel;
#[cfg(target_os = "none")]
mod panic;
pub mod seam;
pub mod statistics;
pub mod switch_times;
