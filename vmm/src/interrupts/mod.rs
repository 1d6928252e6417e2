//! Interrupts into the guest (irqfds and GSI routes) and notifications out of it (ioeventfds),
//! all of which bypass userspace. The interrupt controllers themselves are in the kernel.

mod io_events;
mod router;

pub use io_events::IoEvents;
pub use router::{IrqError, IrqRouter};

pub use crate::vm::hypervisor::{DataMatch, IoAddress, MsiMessage};
