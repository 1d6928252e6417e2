//! The calls between shell and plugin that every class shares: the entry, and the instance with
//! its memory. What a class's ops do is in the class's module.

mod entry;
mod instance;

pub use entry::{Code, enter_built_in, enter_landed};
pub use instance::{InstanceMemory, Layout, Place};
