//! ioeventfds: guest writes that signal an eventfd in the kernel, with no exit to userspace.
//! Never looks at what was written.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::vm::hypervisor::{DataMatch, Hypervisor, IoAddress};

/// Registers doorbells with KVM. Thread-safe.
pub struct IoEvents {
    hypervisor: Arc<dyn Hypervisor>,
}

impl IoEvents {
    /// Doorbells of one VM.
    pub fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { hypervisor }
    }

    /// From now on guest writes at `at` that match `on` signal `event`. A device registers when
    /// its BAR is placed and unregisters before it moves.
    ///
    /// # Errors
    /// EEXIST when that address and match are taken, ENOSPC when KVM has no more.
    pub fn register(&self, at: IoAddress, on: DataMatch, event: &EventFd) -> io::Result<()> {
        self.hypervisor.assign_ioevent(event, at, on)
    }

    /// Undoes [`IoEvents::register`] with the same arguments; writes exit to userspace again.
    ///
    /// # Errors
    /// ENOENT when there was no such registration.
    pub fn unregister(&self, at: IoAddress, on: DataMatch, event: &EventFd) -> io::Result<()> {
        self.hypervisor.deassign_ioevent(event, at, on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::hypervisor::fake::FakeHypervisor;

    #[test]
    fn two_queues_share_an_address_by_value() {
        let fake = Arc::new(FakeHypervisor::default());
        let events = IoEvents::new(fake.clone());
        let (a, b) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
        let at = IoAddress::Mmio(0xc000_0000);
        events.register(at, DataMatch::U16(0), &a).unwrap();
        events.register(at, DataMatch::U16(1), &b).unwrap();
        assert!(events.register(at, DataMatch::U16(1), &a).is_err());
        events.unregister(at, DataMatch::U16(0), &a).unwrap();
        assert_eq!(fake.ioevents(), [(at, DataMatch::U16(1))]);
    }
}
