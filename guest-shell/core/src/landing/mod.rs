//! The landing: where an injected image lies in the shell's own code, and what the shell checks of
//! it before it runs any of it. Never writes it: the hypervisor does.

mod check;
mod memory;

pub use check::{Expected, Image, check};
pub use memory::image_bytes;

#[cfg(test)]
mod check_test;
