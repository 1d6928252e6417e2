//! What a device is given by its VM. Holds handles only; owns no device.

use std::sync::Arc;

use super::event_loop::EventLoop;
use super::hypervisor::Hypervisor;
use super::memory::Memory;
use super::slots::MemorySlots;
use crate::interrupts::{IoEvents, IrqRouter};

/// Handles to the VM's services; cheap to clone.
#[derive(Clone)]
pub struct DeviceContext {
    /// Guest RAM.
    pub memory: Arc<Memory>,
    /// KVM memory slots, for windows of device memory.
    pub memory_slots: Arc<MemorySlots>,
    /// Interrupt routes and irqfds.
    pub irq_router: Arc<IrqRouter>,
    /// ioeventfds.
    pub io_events: Arc<IoEvents>,
    /// The thread for device I/O.
    pub event_loop: EventLoop,
    /// The VM behind all of these.
    pub hypervisor: Arc<dyn Hypervisor>,
}
