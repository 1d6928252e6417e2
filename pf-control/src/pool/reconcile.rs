//! The daemon's first act: making leases of what the kernel says of each VF.
//!
//! A VF that a living process has open, or that the journal gives to a process that still lives,
//! is adopted; all others are cleaned.

use super::Pool;
use super::journal::Entry;
use super::slot::{Lease, Owner, Slot};
use crate::lease::{LeaseEvent, LeaseState};
use crate::ops::{MacAddr, with_causes};
use crate::vendor::is_placeholder;

impl Pool {
    pub(super) fn reconcile(&self) {
        let mut journal = self.journal.read();
        for slot in &self.slots {
            let entry = journal.remove(&slot.vf.address);
            let carried = match slot.mac() {
                Ok(mac) if mac.is_station() && !is_placeholder(mac, slot.vf.index) => Some(mac),
                Ok(_) => None,
                Err(error) => {
                    tracing::error!(vf = %slot.vf.address, error = with_causes(&error), "the VF's address is unknown");
                    None
                }
            };
            match self.find_owner(slot, entry.as_ref()) {
                Some(owner) => self.adopt(slot, owner, entry, carried),
                None => self.clean(slot, entry, carried),
            }
        }
        self.write_journal();
    }

    /// The living process that has the VF open, or that the journal names.
    fn find_owner(&self, slot: &Slot, entry: Option<&Entry>) -> Option<Owner> {
        let group = slot.vf.iommu_group;
        let open = self.host.occupancy.is_open(group).unwrap_or_else(|error| {
            tracing::error!(vf = %slot.vf.address, error = with_causes(&error), "whether the VF is open is unknown");
            true
        });
        let holder = if open { self.host.occupancy.holder(group) } else { None };
        if let Some(owner) = holder.and_then(|pid| self.owner(pid).ok()) {
            return Some(owner);
        }
        let entry = entry?;
        let owner = self.owner(entry.pid?).ok()?;
        (Some(owner.start_time) == entry.start_time).then_some(owner)
    }

    fn clean(&self, slot: &Slot, entry: Option<Entry>, carried: Option<MacAddr>) {
        let entry = entry.filter(|entry| entry.state != LeaseState::Free);
        if entry.is_none() && carried.is_none() && slot.mac().ok() == slot.placeholder().ok() {
            return;
        }
        let port = entry.as_ref().and_then(|entry| entry.port.clone());
        let mac = carried.or(entry.and_then(|entry| entry.mac));
        *slot.lease() = Lease { state: LeaseState::Failed, mac, port, ..Lease::default() };
        let _guard = slot.begin();
        // A failure leaves the VF failed and nobody's: the daemon tries again later.
        let _ = slot.advance(LeaseEvent::OwnerDied, &self.host);
    }
    /// The kernel decides whether the VF is active; the journal tells the rest, if it is about
    /// the same process.
    fn adopt(&self, slot: &Slot, owner: Owner, entry: Option<Entry>, carried: Option<MacAddr>) {
        let entry = entry.filter(|entry| entry.start_time == Some(owner.start_time));
        let state = match (carried, entry.as_ref().map(|entry| entry.state)) {
            (Some(_), _) => LeaseState::Active,
            (None, Some(LeaseState::Active)) => LeaseState::Quiesced,
            (None, Some(state)) if state != LeaseState::Free => state,
            (None, _) => LeaseState::Acquired,
        };
        tracing::info!(vf = %slot.vf.address, pid = owner.pid, %state, "lease adopted");
        *slot.lease() = Lease {
            state,
            owner: Some(owner),
            vm: entry.as_ref().and_then(|entry| entry.vm.clone()),
            device: entry.as_ref().and_then(|entry| entry.device.clone()),
            mac: carried.or(entry.as_ref().and_then(|entry| entry.mac)),
            port: entry.and_then(|entry| entry.port),
            ..Lease::default()
        };
        // The former daemon may have died between the two halves of an activation.
        if state == LeaseState::Active {
            let _guard = slot.begin();
            slot.reassert(&self.host);
        }
    }
}
