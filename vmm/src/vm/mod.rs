//! The virtual machine: memory, vCPUs, run states, and what devices are given. Knows no device.

mod context;
mod event_loop;
pub mod hypervisor;
pub mod layout;
mod memory;
mod slots;

pub use context::DeviceContext;
pub use event_loop::{EventLoop, EventLoopError, Subscriber};
pub use hypervisor::{Hypervisor, KvmHypervisor, SlotFlags};
pub use memory::{GuestRam, Memory, MemoryError, RamRange};
pub use slots::{MemorySlots, SlotError, SlotId};
