//! The VF pool: who holds which VF, and what each operation of the table does to it.
//!
//! VMs ask for a capability and never for a device. Each VF has its own lock, so that one whose
//! release takes long holds up nobody else. Calls block; each is bounded in time. What a lease
//! goes through is decided by [`crate::lease::transition`] alone.

mod acquire;
mod fault_point;
mod inventory;
mod maintenance;
mod operations;
mod queue;
mod reconcile;
mod settle;
mod slot;

#[cfg(test)]
mod death_test;
#[cfg(test)]
pub(crate) mod fake_host;
#[cfg(test)]
mod hostile_vmm_test;
#[cfg(test)]
mod policy_test;
#[cfg(test)]
mod pool_test;
#[cfg(test)]
mod rollback_test;

pub use fault_point::{FaultPoint, FaultPoints, ParseFaultPointError, Step};
pub use slot::{Owner, Slot};

use crate::capability::Profiles;
use crate::inventory::{Occupancy, ProcessTable, Vf, process};
use crate::lease::LeaseState;
use crate::ops::{LeaseId, Op, OpError, with_causes};
use crate::port::Policies;
use crate::state::{LeaseRecord, StateError, Store};
use crate::switch::Switch;
use crate::vendor::PfModule;
use queue::Queue;
use slot::Lease;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// How long a released VF may take to be closed by its user. The kernel resets it on the way,
/// which takes about 0.1 s.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Pause between two looks at whether it is closed.
const CLOSE_POLL: Duration = Duration::from_millis(5);
/// How long an acquire waits for a VF that is just being released.
const ACQUIRE_DEADLINE: Duration = Duration::from_millis(2500);

/// How long a VF that was acquired of a daemon that died is kept for its owner, who may not have
/// heard of it. A VMM that has goes on within a few seconds: its guest's patience is shorter.
const ORPHAN_AFTER: Duration = Duration::from_secs(15);

/// The host that the pool works on: real in the daemon, fake in tests.
pub struct Host {
    /// The software switch.
    pub switch: Box<dyn Switch>,
    /// Who has which IOMMU group open.
    pub occupancy: Box<dyn Occupancy>,
    /// The processes.
    pub processes: ProcessTable,
    /// Where the daemon is to die, in tests.
    pub faults: FaultPoints,
}

/// All VFs that the daemon serves.
pub struct Pool {
    host: Host,
    slots: Vec<Arc<Slot>>,
    store: Store,
    /// What a request may name.
    profiles: Profiles,
    /// What ports may do.
    policies: Policies,
    /// The PFs whose VFs are given to nobody, by their interfaces' names.
    maintenance: RwLock<BTreeSet<String>>,
    /// Who waits for a VF.
    queue: Mutex<Queue>,
    /// Counts what changes in the inventory.
    changes: watch::Sender<u64>,
}

impl Pool {
    /// A pool of the given VFs, each with its PF's module; then whatever a former daemon left is
    /// adopted or cleaned.
    ///
    /// # Errors
    /// [`StateError`] when the store cannot be read.
    pub fn new(
        host: Host,
        vfs: Vec<(Vf, Arc<dyn PfModule>)>,
        store: Store,
        profiles: Profiles,
        policies: Policies,
    ) -> Result<Self, StateError> {
        let slots = vfs.into_iter().map(|(vf, module)| Arc::new(Slot::new(vf, module))).collect();
        let maintenance = RwLock::new(store.maintenance()?);
        let changes = watch::Sender::new(0);
        let queue = Mutex::default();
        let pool = Self { host, slots, store, profiles, policies, maintenance, queue, changes };
        pool.reconcile(pool.store.leases()?);
        Ok(pool)
    }

    /// The daemon serves from now on: it dies where it was told to.
    pub fn arm_faults(&self) {
        self.host.faults.arm();
    }

    /// The VFs.
    pub fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// The VF of a lease that `pid` holds.
    fn held(&self, lease: LeaseId, pid: u32) -> Result<&Arc<Slot>, OpError> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.vf.address == lease.0)
            .ok_or(OpError::NoSuchLease { lease })?;
        match slot.owner() {
            Some(owner) if owner.pid != pid => {
                Err(OpError::NotOwner { lease, owner_pid: owner.pid })
            }
            // A process that has got a dead one's number has not got its leases.
            Some(owner) if !process::has_ended(&owner.ended) => Ok(slot),
            _ => Err(OpError::NoSuchLease { lease }),
        }
    }

    /// Writes down who holds a VF, for a later daemon. A failure costs only names and ports after
    /// a crash, since the kernel knows the rest; so it is reported and nothing more.
    fn record(&self, slot: &Slot) {
        self.host.faults.reach(FaultPoint::Before(Step::Record));
        if let Err(error) = self.store.record(slot.vf.address, record(slot).as_ref()) {
            let error = with_causes(&error);
            tracing::warn!(vf = %slot.vf.address, error, "the lease was not written down");
        }
        self.host.faults.reach(FaultPoint::After(Step::Record));
        self.changed();
    }

    /// A count that moves on whenever the inventory changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Something about an interface, its link for one, has changed.
    pub fn link_changed(&self, interface: &str) {
        if self.slots.iter().any(|slot| slot.module.interface() == interface) {
            self.changed();
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// What of a slot's lease a later daemon is to know.
fn record(slot: &Slot) -> Option<LeaseRecord> {
    let lease = slot.lease();
    if lease.state == LeaseState::Free && lease.owner.is_none() {
        return None;
    }
    Some(LeaseRecord {
        state: lease.state,
        pid: lease.owner.as_ref().map(|owner| owner.pid),
        start_time: lease.owner.as_ref().map(|owner| owner.start_time),
        vm: lease.vm.clone(),
        device: lease.device.clone(),
        mac: lease.mac,
        port: lease.port.clone(),
    })
}

/// The operations that every module serves.
const COMMON_OPS: [Op; 7] =
    [Op::IsSupported, Op::Acquire, Op::Init, Op::Activate, Op::Quiesce, Op::Release, Op::GetInfo];

/// A lease's fields as they are while nobody holds it.
fn vacant() -> Lease {
    Lease::default()
}
