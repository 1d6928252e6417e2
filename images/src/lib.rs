//! Builds everything that the nested-KVM lab boots, from Debian's packages and this workspace:
//! kernels, headers to build modules against, the shell module, the guest's initramfs and the
//! lab host's.
//!
//! All of it lands in one folder ([`Layout`]), keyed by content, so that a second run does
//! nothing. Kernels and headers are unpacked there and never installed in the system; only
//! tools (QEMU, busybox, ...) are installed, by apt. Nothing here starts a virtual machine.

mod apt;
mod cache;
mod command;
mod error;
mod initramfs;
mod kbuild;
mod kernels;
mod layout;
mod peer;
mod plugins;
mod prepare;
mod progress;
mod quirk_module;
mod rust;
mod shell_module;

pub use error::Error;
pub use initramfs::{GUEST_MODULES, HOST_MODULES};
pub use kernels::{Kernel, Series};
pub use layout::Layout;
pub use plugins::{BLOBS, build as build_plugins};
pub use prepare::{Images, Inputs, prepare};
pub use progress::Progress;
pub use shell_module::{ShellModule, build as build_shell_module, object as build_shell_object};
