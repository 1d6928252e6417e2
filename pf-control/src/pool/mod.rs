//! The VF pool: who holds which VF, and what each operation of the table does to it.
//!
//! VMs ask for a capability and never for a device. Each VF has its own lock, so that one whose
//! release takes long holds up nobody else. Calls block; each is bounded in time. What a lease
//! goes through is decided by [`crate::lease::transition`] alone.

mod acquire;
mod journal;
mod operations;
mod reconcile;
mod settle;
mod slot;

#[cfg(test)]
mod fake_host;
#[cfg(test)]
mod pool_test;

pub use journal::{Journal, JournalError};
pub use slot::{Owner, Slot};

use crate::inventory::{Occupancy, ProcessTable, Vf};
use crate::ops::{LeaseId, Op, OpError, VfEntry, with_causes};
use crate::switch::Switch;
use crate::vendor::PfModule;
use slot::Lease;
use std::sync::Arc;
use std::time::Duration;

/// How long a released VF may take to be closed by its user. The kernel resets it on the way,
/// which takes about 0.1 s.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Pause between two looks at whether it is closed.
const CLOSE_POLL: Duration = Duration::from_millis(5);
/// How long an acquire waits for a VF that is just being released.
const ACQUIRE_DEADLINE: Duration = Duration::from_millis(2500);

/// The host that the pool works on: real in the daemon, fake in tests.
pub struct Host {
    /// The software switch.
    pub switch: Box<dyn Switch>,
    /// Who has which IOMMU group open.
    pub occupancy: Box<dyn Occupancy>,
    /// The processes.
    pub processes: ProcessTable,
}

/// All VFs that the daemon serves.
pub struct Pool {
    host: Host,
    slots: Vec<Arc<Slot>>,
    journal: Journal,
}

impl Pool {
    /// A pool of the given VFs, each with its PF's module; then whatever a former daemon left is
    /// adopted or cleaned.
    pub fn new(host: Host, vfs: Vec<(Vf, Arc<dyn PfModule>)>, journal: Journal) -> Self {
        let slots = vfs.into_iter().map(|(vf, module)| Arc::new(Slot::new(vf, module))).collect();
        let pool = Self { host, slots, journal };
        pool.reconcile();
        pool
    }

    /// The VFs.
    pub fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// The inventory, for people.
    pub fn list(&self) -> Vec<VfEntry> {
        self.slots.iter().map(|slot| slot.entry()).collect()
    }

    /// The VF of a lease that `pid` holds.
    fn held(&self, lease: LeaseId, pid: u32) -> Result<&Arc<Slot>, OpError> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.vf.address == lease.0)
            .ok_or(OpError::NoSuchLease { lease })?;
        match slot.lease().owner.as_ref().map(|owner| owner.pid) {
            Some(owner_pid) if owner_pid != pid => Err(OpError::NotOwner { lease, owner_pid }),
            Some(_) => Ok(slot),
            None => Err(OpError::NoSuchLease { lease }),
        }
    }

    /// Writes down who holds what, for a later daemon. A failure costs only names and ports after
    /// a crash, since the kernel knows the rest; so it is reported and nothing more.
    fn write_journal(&self) {
        if let Err(error) = self.journal.write(self.slots.iter().map(|slot| &**slot)) {
            tracing::warn!(error = with_causes(&error), "the journal was not written");
        }
    }
}

/// The operations that every module serves.
const COMMON_OPS: [Op; 7] =
    [Op::IsSupported, Op::Acquire, Op::Init, Op::Activate, Op::Quiesce, Op::Release, Op::GetInfo];

/// A lease's fields as they are while nobody holds it.
fn vacant() -> Lease {
    Lease::default()
}
