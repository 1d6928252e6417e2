//! The state of a VM at rest, less its memory: an archive of payloads, one for each component,
//! each with its kind, version and checksum. Knows no component, and never touches one.
//!
//! A component saves a [`Payload`] of its own type; its *instance* tells equals apart (the number
//! of a vCPU, the slot of a PCI function). Whoever restores takes each payload out once, and
//! [`Archive::finish`] then sees to it that none is left over: a state that was only partly
//! understood is no state.

mod archive;
mod error;

pub use archive::{Archive, ArchiveBuilder, FORMAT, MAX_LENGTH};
pub use error::StateError;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a component leaves in an archive.
pub trait Payload: Serialize + DeserializeOwned {
    /// Which kind of component, 1 to 32 characters.
    const KIND: &'static str;
    /// Changes whenever the meaning or the shape of the payload does. Other versions are refused
    /// by name, and not guessed at.
    const VERSION: u16;
}
