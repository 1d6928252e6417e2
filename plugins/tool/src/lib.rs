//! Plugin images: building them, looking into them, and deciding whether one may be injected.
//!
//! - [`image`] parses an image, checks it by every rule that the hypervisor applies, and
//!   relocates it; it needs no feature and never touches a file;
//! - `build` (feature `build`) compiles, links and seals freestanding code.

pub mod image;

#[cfg(feature = "build")]
pub mod build;
