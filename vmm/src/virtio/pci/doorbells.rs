//! The doorbells of a function: one eventfd per queue, which KVM signals when the guest writes
//! the doorbell's address.

use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::layout::{NOTIFY, NOTIFY_STRIDE};
use crate::interrupts::{DataMatch, IoAddress, IoEvents};

/// The doorbells, wherever their BAR is.
pub(super) struct Doorbells {
    events: Arc<IoEvents>,
    kicks: Vec<EventFd>,
    /// Address of the BAR and which doorbells are registered there.
    placed: Option<(u64, Vec<bool>)>,
}

impl Doorbells {
    pub(super) fn new(events: Arc<IoEvents>, queues: usize) -> std::io::Result<Self> {
        let kicks = (0..queues).map(|_| EventFd::new(EFD_NONBLOCK)).collect::<Result<_, _>>()?;
        Ok(Self { events, kicks, placed: None })
    }

    /// Descriptors for the device; writing to one is ringing that doorbell.
    pub(super) fn kicks(&self) -> std::io::Result<Vec<EventFd>> {
        self.kicks.iter().map(EventFd::try_clone).collect()
    }

    /// Follows the BAR. A doorbell that KVM does not take still works: it traps.
    pub(super) fn place(&mut self, base: Option<u64>) {
        if let Some((base, registered)) = self.placed.take() {
            for (queue, kick) in self.kicks.iter().enumerate().filter(|(q, _)| registered[*q]) {
                if let Err(error) =
                    self.events.unregister(address(base, queue), DataMatch::Any, kick)
                {
                    tracing::warn!(%error, queue, "cannot unregister a doorbell");
                }
            }
        }
        if let Some(base) = base {
            let register = |(queue, kick)| {
                let result = self.events.register(address(base, queue), DataMatch::Any, kick);
                if let Err(error) = &result {
                    tracing::warn!(%error, queue, "a doorbell will exit to userspace");
                }
                result.is_ok()
            };
            let registered = self.kicks.iter().enumerate().map(register).collect();
            self.placed = Some((base, registered));
        }
    }

    /// A doorbell write that was trapped, `offset` bytes into the doorbells.
    pub(super) fn ring(&self, offset: u64) {
        let queue = usize::try_from(offset / NOTIFY_STRIDE).unwrap_or(usize::MAX);
        if let Some(kick) = self.kicks.get(queue) {
            // The only failure is a full counter, and then the doorbell is ringing already.
            let _ = kick.write(1);
        }
    }
}

impl Drop for Doorbells {
    fn drop(&mut self) {
        self.place(None);
    }
}

fn address(base: u64, queue: usize) -> IoAddress {
    IoAddress::Mmio(base + NOTIFY + NOTIFY_STRIDE * queue as u64)
}
