//! The daemon's first act: making leases of what the kernel says of each VF.
//!
//! A VF that a living process has open, or that the store gives to a process that still lives,
//! is adopted; all others are cleaned.

use super::slot::{Lease, Owner, Slot};
use super::{ORPHAN_AFTER, Pool};
use crate::lease::{LeaseEvent, LeaseState};
use crate::ops::{MacAddr, PciAddress, with_causes};
use crate::state::LeaseRecord;
use crate::vendor::is_placeholder;
use std::collections::BTreeMap;
use std::time::Instant;

impl Pool {
    pub(super) fn reconcile(&self, mut records: BTreeMap<PciAddress, LeaseRecord>) {
        for slot in &self.slots {
            let entry = records.remove(&slot.vf.address);
            let known = slot.module.vf_mac(slot.vf.index);
            let carried = match known {
                // The kernel does not know; a lease that was active still is.
                Ok(None) => entry
                    .as_ref()
                    .filter(|entry| entry.state == LeaseState::Active)
                    .and_then(|entry| entry.mac),
                Ok(Some(mac)) if mac.is_station() && !is_placeholder(mac, slot.vf.index) => {
                    Some(mac)
                }
                Ok(Some(_)) => None,
                Err(error) => {
                    tracing::error!(vf = %slot.vf.address, error = with_causes(&error), "the VF's address is unknown");
                    None
                }
            };
            self.forget_former(slot, entry.as_ref(), carried);
            match self.find_owner(slot, entry.as_ref()) {
                Some(owner) => self.adopt(slot, owner, entry, carried),
                None => self.clean(slot, entry, carried),
            }
            self.record(slot);
        }
    }

    /// The former daemon may have died between the two halves of a change of address.
    fn forget_former(&self, slot: &Slot, entry: Option<&LeaseRecord>, carried: Option<MacAddr>) {
        let Some((entry, former)) = entry.and_then(|entry| Some((entry, entry.mac?))) else {
            return;
        };
        if carried.is_none_or(|carried| carried == former) {
            return;
        }
        let switch = &self.host.switch;
        let forgotten =
            slot.module.uplink().map_err(|error| with_causes(&error)).and_then(|uplink| {
                switch
                    .forward_to_port(former, entry.port.as_deref())
                    .and_then(|()| switch.forget(former, uplink.index))
                    .map_err(|error| with_causes(&error))
            });
        if let Err(error) = forgotten {
            tracing::error!(vf = %slot.vf.address, %former, error, "the former address is not forgotten");
        }
    }

    /// The process that the store names, if it still lives, or the one that has the VF open.
    fn find_owner(&self, slot: &Slot, entry: Option<&LeaseRecord>) -> Option<Owner> {
        // The store first: looking whether a VF is open disturbs a process that is opening it.
        if let Some(owner) = entry.and_then(|entry| self.owner(entry.pid?).ok())
            && entry.and_then(|entry| entry.start_time) == Some(owner.start_time)
        {
            return Some(owner);
        }
        let group = slot.vf.iommu_group;
        match self.host.occupancy.is_open(group) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(error) => tracing::error!(
                vf = %slot.vf.address, error = with_causes(&error), "whether the VF is open is unknown"
            ),
        }
        self.owner(self.host.occupancy.holder(group)?).ok()
    }

    fn clean(&self, slot: &Slot, entry: Option<LeaseRecord>, carried: Option<MacAddr>) {
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

    /// The kernel decides whether the VF is active; the store tells the rest, if it is about
    /// the same process.
    fn adopt(
        &self,
        slot: &Slot,
        owner: Owner,
        entry: Option<LeaseRecord>,
        carried: Option<MacAddr>,
    ) {
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
            orphan_at: (state == LeaseState::Acquired).then(|| Instant::now() + ORPHAN_AFTER),
            ..Lease::default()
        };
        // The former daemon may have died between the two halves of an activation.
        if state == LeaseState::Active {
            let _guard = slot.begin();
            slot.reassert(&self.host);
        }
    }
}
