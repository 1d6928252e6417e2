//! The virtual machine: memory, vCPUs, run states, and what devices are given. Knows no device
//! but the few that every machine has.

mod chips;
mod context;
mod cpu_model;
mod cpu_state;
mod cpuid;
pub mod dirty;
mod error;
mod event_loop;
mod exits;
pub mod hypervisor;
pub mod layout;
mod machine;
mod memory;
mod run_state;
mod saved;
mod slots;
mod stats;
mod throttle;
mod vcpu;

pub use context::DeviceContext;
pub use cpu_model::CpuModel;
pub use dirty::{PageRun, PageSet};
pub use error::VmError;
pub use event_loop::{EventLoop, EventLoopError, Subscriber};
pub use exits::Exits;
pub use hypervisor::{Hypervisor, KvmHypervisor, SlotFlags};
pub use machine::{Vm, VmConfig, VmExit};
pub use memory::{GuestRam, Memory, MemoryError, RamRange};
pub use run_state::RunState;
pub use saved::Shape;
pub use slots::{MemorySlots, SlotError, SlotId};
pub use throttle::Throttle;
