//! Why a VM cannot be made or controlled.

use std::io;

use super::event_loop::EventLoopError;
use super::layout::LayoutError;
use super::memory::MemoryError;
use super::slots::SlotError;
use crate::boot::BootError;
use crate::interrupts::IrqError;
use crate::pci::BusError;
use crate::serial::SerialError;
use crate::state::StateError;

/// A VM that cannot be made or controlled.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// No KVM.
    #[error(
        "cannot open /dev/kvm; load kvm_intel or kvm_amd, enable virtualization in the firmware, \
         or join the group that owns it"
    )]
    OpenKvm(#[source] kvm_ioctls::Error),
    /// A KVM operation failed.
    #[error("kvm cannot {what}")]
    Kvm {
        /// What was tried.
        what: &'static str,
        /// KVM's reason.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// Too many or no vCPUs.
    #[error("{asked} cpus are not possible; use 1 to {max} --cpus")]
    Cpus {
        /// What was asked for.
        asked: u8,
        /// What is possible here.
        max: u8,
    },
    /// The address map.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Guest RAM.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Memory slots.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// Kernel or initrd.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// PCI bus.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Serial console.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// Interrupts.
    #[error(transparent)]
    Irq(#[from] IrqError),
    /// A saved state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Event loop.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
    /// No thread.
    #[error("cannot start a vcpu thread")]
    Thread(#[source] io::Error),
    /// No signal handler.
    #[error("cannot install the signal handler for vcpus")]
    Signal(#[source] vmm_sys_util::errno::Error),
    /// No eventfd.
    #[error("cannot make an eventfd")]
    EventFd(#[source] io::Error),
    /// It runs, or its devices do.
    #[error("the vm is not held")]
    NotHeld,
    /// A reset is under way.
    #[error("the guest resets itself over and over; try again later")]
    Resetting,
    /// The VM has ended.
    #[error("the vm has stopped; start a new one")]
    Stopped,
    /// Devices cannot be added once the guest runs.
    #[error("the vm has been started; devices are added before")]
    Started,
}

/// Wraps a KVM error with what was tried.
pub(super) fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> VmError {
    move |source| VmError::Kvm { what, source }
}
