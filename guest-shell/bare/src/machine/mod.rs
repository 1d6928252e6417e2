//! The machine below the guest: how it starts, and its few devices. Everything is reached through
//! addresses that are mapped one to one.

mod acpi;
mod clock;
mod console;
mod memory;
mod paging;
mod panic;
mod pci;
mod start;

pub(crate) use clock::Clock;
pub(crate) use console::print;
pub(crate) use memory::{Memory, load, store};
pub(crate) use pci::Function;
pub(crate) use start::{Boot, COMMAND_LINE_MAX, landing};
