//! What is shown of adapters and VFs. Looks each uplink up once, however many VFs it has.

use super::queue::Waiter;
use super::{Pool, Slot};
use crate::capability::{Candidate, Profile};
use crate::lease::LeaseState;
use crate::ops::{AdapterEntry, Health, RequestEntry, RequestState, VfEntry, with_causes};
use crate::vendor::{Adapter, Uplink};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// An uplink as it is, or why that is not known.
pub(super) type UplinkState = Result<Uplink, String>;

impl Pool {
    /// Each uplink by its interface's name, asked once.
    pub(super) fn uplinks(&self) -> BTreeMap<&str, UplinkState> {
        let mut uplinks = BTreeMap::new();
        for slot in &self.slots {
            let ask = || slot.module.uplink().map_err(|error| with_causes(&error));
            uplinks.entry(slot.module.interface()).or_insert_with(ask);
        }
        uplinks
    }

    /// All VFs.
    pub fn list(&self) -> Vec<VfEntry> {
        let uplinks = self.uplinks();
        let entry = |slot: &Arc<Slot>| {
            let uplink = uplinks.get(slot.module.interface());
            let uplink = uplink.and_then(|uplink| uplink.as_ref().ok());
            let link_up = uplink.is_some_and(|uplink| uplink.link_up);
            let maintenance = self.is_in_maintenance(slot);
            let profiles = uplink.map(|uplink| self.fitting(slot, uplink)).unwrap_or_default();
            VfEntry { maintenance, profiles, ..slot.entry(link_up) }
        };
        self.slots.iter().map(entry).collect()
    }

    /// The profiles that a VF fits while its uplink is so.
    fn fitting(&self, slot: &Slot, uplink: &Uplink) -> Vec<String> {
        let vfs = &slot.module.describe();
        let candidate = Candidate { adapter: slot.module.adapter(), uplink, vfs };
        let fits = |profile: &Profile| profile.check(candidate).is_ok();
        let names = self.profiles.names();
        names.filter(|name| self.profiles.get(name).is_some_and(fits)).map(str::to_owned).collect()
    }

    /// The devices that wait for a VF, the next one first.
    pub fn waiting(&self) -> Vec<RequestEntry> {
        let now = Instant::now();
        let entry = |(waiter, since): (&Waiter, Instant)| RequestEntry {
            pid: waiter.pid,
            vm: waiter.vm.clone(),
            device: waiter.device.clone(),
            state: RequestState::Initial,
            vf: None,
            seconds: Some(now.duration_since(since).as_secs()),
        };
        self.queue().iter().map(entry).collect()
    }

    /// The requests of all VMs: those that have a VF, then those that wait.
    pub fn requests(&self) -> Vec<RequestEntry> {
        let entry = |slot: &Arc<Slot>| {
            let lease = slot.lease();
            Some(RequestEntry {
                pid: lease.owner.as_ref()?.pid,
                vm: lease.vm.clone().unwrap_or_default(),
                device: lease.device.clone().unwrap_or_default(),
                state: lease.state.into(),
                vf: Some(slot.vf.address),
                seconds: None,
            })
        };
        let mut requests: Vec<_> = self.slots.iter().filter_map(entry).collect();
        requests.extend(self.waiting());
        requests
    }

    /// All adapters, in the order in which they are served.
    pub fn adapters(&self) -> Vec<AdapterEntry> {
        let uplinks = self.uplinks();
        let mut entries: Vec<AdapterEntry> = Vec::new();
        for slot in &self.slots {
            let adapter = slot.module.adapter();
            let free = u32::from(slot.lease().state == LeaseState::Free);
            match entries.iter_mut().find(|entry| entry.address == adapter.address) {
                Some(entry) => {
                    entry.vfs += 1;
                    entry.free += free;
                }
                None => {
                    let uplink = uplinks.get(slot.module.interface());
                    let entry = self.adapter(slot, adapter, uplink);
                    entries.push(AdapterEntry { vfs: 1, free, ..entry });
                }
            }
        }
        entries
    }

    fn adapter(
        &self,
        slot: &Slot,
        adapter: &Adapter,
        uplink: Option<&UplinkState>,
    ) -> AdapterEntry {
        let description = slot.module.describe();
        let fault = uplink.and_then(|uplink| uplink.as_ref().err().cloned());
        let uplink = uplink.and_then(|uplink| uplink.as_ref().ok());
        let health = match (&fault, self.is_in_maintenance(slot)) {
            (Some(_), _) => Health::Failed,
            (None, true) => Health::Maintenance,
            (None, false) => Health::Enabled,
        };
        AdapterEntry {
            address: adapter.address,
            interface: slot.module.interface().to_owned(),
            module: slot.module.name().to_owned(),
            driver: adapter.driver.clone(),
            pci_ids: adapter.ids,
            numa_node: adapter.numa_node,
            switch: adapter.switch.clone(),
            mac: uplink.map(|uplink| uplink.mac),
            mtu: uplink.map(|uplink| uplink.mtu),
            link_up: uplink.is_some_and(|uplink| uplink.link_up),
            speed_mbit: uplink.and_then(|uplink| uplink.speed_mbit),
            class: description.class,
            plugin: description.plugin,
            vfs: 0,
            free: 0,
            health,
            fault,
        }
    }
}
