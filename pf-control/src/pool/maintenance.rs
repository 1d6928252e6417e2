//! PFs in maintenance: their VFs are given to nobody, and wanted back from those who hold them.

use super::{FaultPoint, Pool, Slot, Step};
use crate::lease::LeaseState;
use crate::ops::{OpError, VfEntry, with_causes};
use std::sync::PoisonError;

impl Pool {
    /// Puts the PF behind the interface `pf` into maintenance, or takes it out, and answers its
    /// VFs that are not free yet. May be repeated. A daemon that comes later knows of it.
    ///
    /// # Errors
    /// [`OpError::Invalid`] for an interface that is not served, [`OpError::Kernel`] when it
    /// cannot be written down; then nothing has changed.
    pub fn set_maintenance(&self, pf: &str, on: bool) -> Result<Vec<VfEntry>, OpError> {
        if !self.slots.iter().any(|slot| slot.module.interface() == pf) {
            let mut served: Vec<_> =
                self.slots.iter().map(|slot| slot.module.interface()).collect();
            served.dedup();
            let served = served.join(", ");
            let reason = format!("'{pf}' is not a PF that is served; these are: {served}");
            return Err(OpError::Invalid { reason });
        }
        self.host.faults.reach(FaultPoint::Before(Step::Maintenance));
        let changed = self.store.set_maintenance(pf, on).map_err(|error| OpError::Kernel {
            step: "writing down the maintenance".to_owned(),
            reason: with_causes(&error),
        })?;
        self.host.faults.reach(FaultPoint::After(Step::Maintenance));
        {
            let mut all = self.maintenance.write().unwrap_or_else(PoisonError::into_inner);
            if on {
                all.insert(pf.to_owned());
            } else {
                all.remove(pf);
            }
        }
        if changed {
            tracing::info!(pf, on, "maintenance");
            self.changed();
        }
        let held = |entry: &VfEntry| entry.pf == pf && entry.state != LeaseState::Free;
        Ok(self.list().into_iter().filter(held).collect())
    }

    pub(super) fn is_in_maintenance(&self, slot: &Slot) -> bool {
        let all = self.maintenance.read().unwrap_or_else(PoisonError::into_inner);
        all.contains(slot.module.interface())
    }
}
