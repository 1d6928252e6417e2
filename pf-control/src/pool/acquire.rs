//! Choosing a VF for a request, and taking VFs back from processes that have ended.

use super::queue::{Queue, TooMany, Waiter};
use super::slot::{Advance, Lease, Owner, Slot, vendor_error};
use super::{ACQUIRE_DEADLINE, Pool};
use crate::capability::{Candidate, Profile};
use crate::inventory::process;
use crate::lease::{LeaseEvent, LeaseState};
use crate::ops::{AcquireRequest, Acquired, OpError, limits};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks for a VF.
const LOOK: Duration = Duration::from_millis(10);

impl Pool {
    /// Takes a free VF that can do what is asked, for the process `pid`, if nobody has waited for
    /// it longer. One that asks again for the same device, since the answer got lost, gets the same
    /// VF.
    ///
    /// # Errors
    /// [`OpError::Invalid`], [`OpError::Unsuitable`] when none will ever do,
    /// [`OpError::NoVfFree`] when none is free, or [`OpError::Queued`] if it is to be waited for, or
    /// the kernel's refusal; then the VF is back in the pool.
    pub fn acquire(&self, request: &AcquireRequest, pid: u32) -> Result<Acquired, OpError> {
        check(request)?;
        let owner = self.owner(pid)?;
        let profile = self.profile(request)?;
        let suitable = self.suitable(request, profile)?;
        if let Some(slot) = acquired_before(&suitable, request, pid) {
            return describe(slot);
        }
        if self.held_by(pid) >= limits::LEASES_PER_PROCESS {
            let most = limits::LEASES_PER_PROCESS;
            let reason = format!("a process may hold {most} VFs at most");
            return Err(OpError::Invalid { reason });
        }
        let waiter = Waiter { pid, vm: request.vm.clone(), device: request.device.clone() };
        let kind = (request.class, request.profile.clone());
        let free = self.wait_for_free(&suitable).and_then(|(slot, guard)| {
            let count = self.count_free(&suitable);
            let total = suitable.len() as u32;
            match self.queue().is_turn_of(&kind, &waiter, count, Instant::now()) {
                true => Ok((slot, guard)),
                false => Err(OpError::NoVfFree { total, held: total }),
            }
        });
        let (slot, guard) = match free {
            Err(OpError::NoVfFree { .. })
                if request.wait && profile.is_none_or(|profile| profile.sharing) =>
            {
                let place = self.queue().join(&kind, &waiter, Instant::now());
                let ahead = place.map_err(|TooMany| {
                    let most = limits::WAITING_PER_PROCESS;
                    let reason = format!("a process may wait for {most} VFs at most");
                    OpError::Invalid { reason }
                })?;
                return Err(OpError::Queued { ahead: ahead as u32 });
            }
            free => free?,
        };
        self.queue().leave(&waiter);
        *slot.lease() = Lease {
            owner: Some(owner),
            vm: Some(request.vm.clone()),
            device: Some(request.device.clone()),
            ..Lease::default()
        };
        let acquired = match slot.advance(LeaseEvent::Acquire, &self.host) {
            Ok(()) => describe(slot),
            Err(Advance::Failed(error)) => Err(error),
            Err(Advance::Refused(refused)) => {
                Err(OpError::WrongState { op: crate::ops::Op::Acquire, state: refused.state })
            }
        };
        if acquired.is_err() {
            // The caller has no handle to release.
            self.free(slot, &guard);
        }
        self.record(slot);
        acquired
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_free(&self, suitable: &[&Arc<Slot>]) -> usize {
        let free = |slot: &&&Arc<Slot>| {
            slot.lease().state == LeaseState::Free && !self.is_in_maintenance(slot)
        };
        suitable.iter().filter(free).count()
    }

    /// The process `pid` as an owner.
    pub(super) fn owner(&self, pid: u32) -> Result<Owner, OpError> {
        let gone = || OpError::Invalid {
            reason: format!("process {pid} has ended, or is in a PID namespace not visible here"),
        };
        let ended = Arc::new(process::watch(pid).ok_or_else(gone)?);
        let start_time = self.host.processes.start_time(pid).ok_or_else(gone)?;
        Ok(Owner { pid, start_time, ended })
    }

    /// Takes back the VFs of processes that have ended, and tries again to clean those that
    /// could not be cleaned. Returns at once for a VF with an operation going on.
    pub fn reap(&self) {
        let dead = |waiter: &Waiter| self.host.processes.start_time(waiter.pid).is_none();
        self.queue().remove(dead);
        for slot in &self.slots {
            if abandoned(slot)
                && let Some(guard) = slot.try_begin()
                && abandoned(slot)
            {
                self.free(slot, &guard);
                self.record(slot);
            }
        }
    }

    /// Releases a VF whose owner has ended or never was. The guard shows that no operation is
    /// going on.
    fn free(&self, slot: &Slot, _guard: &MutexGuard<'_, ()>) {
        if slot.advance(LeaseEvent::OwnerDied, &self.host).is_err() {
            // It stays out of the pool until a later attempt succeeds.
            slot.lease().owner = None;
        }
    }

    /// How many VFs a process holds.
    fn held_by(&self, pid: u32) -> usize {
        let its = |slot: &&Arc<Slot>| slot.owner().is_some_and(|owner| owner.pid == pid);
        self.slots.iter().filter(its).count()
    }

    /// The profile that the request names.
    fn profile(&self, request: &AcquireRequest) -> Result<Option<&Profile>, OpError> {
        let Some(name) = &request.profile else { return Ok(None) };
        self.profiles.get(name).map(Some).ok_or_else(|| {
            let names: Vec<_> = self.profiles.names().collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let reason = format!("there is no profile '{name}' on this host; there are: {known}");
            OpError::Invalid { reason }
        })
    }

    fn suitable(
        &self,
        request: &AcquireRequest,
        profile: Option<&Profile>,
    ) -> Result<Vec<&Arc<Slot>>, OpError> {
        let mut reason = format!("no {:?} VF is served", request.class).to_lowercase();
        let mut suitable = Vec::new();
        let uplinks = self.uplinks();
        for slot in &self.slots {
            let description = slot.module.describe();
            if description.class != request.class {
                continue;
            }
            let uplink = match uplinks.get(slot.module.interface()) {
                Some(Ok(uplink)) => uplink,
                Some(Err(error)) => {
                    reason.clone_from(error);
                    continue;
                }
                None => continue,
            };
            let mtu = uplink.mtu;
            let adapter = slot.module.adapter();
            let candidate = Candidate { adapter, uplink, vfs: &description };
            let mismatch = profile.and_then(|profile| profile.check(candidate).err());
            if let Some(mismatch) = mismatch {
                reason = format!("{}: {mismatch}", slot.module.interface());
            } else if description.queues < request.queues {
                reason = format!("a VF has {} queue pairs", description.queues);
            } else if mtu < request.mtu {
                reason = format!("the uplink's MTU is {mtu}, and {} is asked for", request.mtu);
            } else {
                suitable.push(slot);
            }
        }
        if suitable.is_empty() { Err(OpError::Unsuitable { reason }) } else { Ok(suitable) }
    }

    /// A VM may be started the moment after another was killed: what is just being released is
    /// waited for.
    fn wait_for_free<'a>(
        &self,
        suitable: &[&'a Arc<Slot>],
    ) -> Result<(&'a Arc<Slot>, MutexGuard<'a, ()>), OpError> {
        let deadline = Instant::now() + ACQUIRE_DEADLINE;
        let usable: Vec<_> =
            suitable.iter().filter(|slot| !self.is_in_maintenance(slot)).copied().collect();
        loop {
            self.reap();
            let free = |slot: &&'a Arc<Slot>| slot.lease().state == LeaseState::Free;
            // Looked for first: whether a VF is about to be free is a question to the kernel.
            for slot in usable.iter().copied().filter(free) {
                if let Some(guard) = slot.try_begin()
                    && free(&slot)
                {
                    return Ok((slot, guard));
                }
            }
            let in_transit = usable
                .iter()
                .any(|slot| slot.try_begin().is_none() || abandoned(slot) || self.is_ending(slot));
            if !in_transit || Instant::now() >= deadline {
                let total = suitable.len() as u32;
                return Err(OpError::NoVfFree { total, held: total });
            }
            thread::sleep(LOOK);
        }
    }

    /// Whether the process that holds the VF is on its way out.
    fn is_ending(&self, slot: &Slot) -> bool {
        slot.owner().is_some_and(|owner| self.host.processes.is_ending(owner.pid))
    }
}

/// Not free, and nobody's any more.
fn abandoned(slot: &Slot) -> bool {
    let lease = slot.lease();
    lease.state != LeaseState::Free
        && (lease.owner.as_ref().is_none_or(|owner| process::has_ended(&owner.ended))
            || lease.orphan_at.is_some_and(|at| Instant::now() >= at))
}

/// The VF that the process has acquired for this device, and nothing more: its answer got lost.
fn acquired_before<'a>(
    suitable: &[&'a Arc<Slot>],
    request: &AcquireRequest,
    pid: u32,
) -> Option<&'a Arc<Slot>> {
    let same = |lease: &Lease| {
        lease.owner.as_ref().is_some_and(|owner| owner.pid == pid)
            && lease.vm.as_ref() == Some(&request.vm)
            && lease.device.as_ref() == Some(&request.device)
    };
    suitable.iter().copied().filter(|slot| same(&slot.lease())).find(|slot| {
        // What is going on with it may be the acquire whose answer got lost.
        let _guard = slot.begin();
        let mut lease = slot.lease();
        let again = lease.state == LeaseState::Acquired && same(&lease);
        if again {
            lease.orphan_at = None;
        }
        again
    })
}

fn check(request: &AcquireRequest) -> Result<(), OpError> {
    if request.queues == 0 || usize::from(request.queues) > limits::QUEUES {
        let most = limits::QUEUES;
        return Err(OpError::Invalid { reason: format!("queues must be 1 to {most}") });
    }
    for name in [&request.vm, &request.device] {
        // They are shown on an operator's terminal.
        let clean = !name.chars().any(char::is_control);
        if !(1..=limits::NAME).contains(&name.len()) || !clean {
            let most = limits::NAME;
            let reason = format!("a name has 1 to {most} bytes and no control characters");
            return Err(OpError::Invalid { reason });
        }
    }
    Ok(())
}

/// What the VMM is told of a VF.
pub(super) fn describe(slot: &Slot) -> Result<Acquired, OpError> {
    let error = |error| vendor_error("describing the VF", error);
    let description = slot.module.describe();
    Ok(Acquired {
        lease: slot.id(),
        vf: slot.vf.address,
        iommu_group: slot.vf.iommu_group,
        placeholder_mac: slot.placeholder().map_err(error)?,
        regions: description.regions,
        vectors: description.vectors,
        plugin: description.plugin,
        pci_ids: slot.vf.ids,
        device_info: description.device_info,
        mtu: slot.module.uplink().map_err(error)?.mtu,
    })
}
