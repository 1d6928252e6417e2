//! Named points at which the daemon can be told to die, for tests of what its successor makes of
//! that: around each effect of a lease's transitions and each write to the store.

use crate::lease::LeaseEffect;
use rustix::process::{Signal, getpid, kill_process};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What the daemon does that its death may come before or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// An effect of a lease's transition.
    Effect(LeaseEffect),
    /// Writing down a lease.
    Record,
    /// Writing down that a PF is in maintenance, or no longer.
    Maintenance,
}

/// A point in the daemon's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultPoint {
    /// Nothing of the step has been done.
    Before(Step),
    /// The step has been done, whether it succeeded or not.
    After(Step),
}

impl FaultPoint {
    /// All points.
    pub fn all() -> impl Iterator<Item = Self> {
        LeaseEffect::ALL
            .into_iter()
            .map(Step::Effect)
            .chain([Step::Record, Step::Maintenance])
            .flat_map(|step| [Self::Before(step), Self::After(step)])
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Effect(effect) => effect.fmt(f),
            Self::Record => f.write_str("record"),
            Self::Maintenance => f.write_str("maintenance"),
        }
    }
}

impl fmt::Display for FaultPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(step) => write!(f, "before-{step}"),
            Self::After(step) => write!(f, "after-{step}"),
        }
    }
}

/// A name that is no point's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no fault point; see `pf-control fault-points`")]
pub struct ParseFaultPointError(String);

impl FromStr for FaultPoint {
    type Err = ParseFaultPointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::all()
            .find(|point| point.to_string() == text)
            .ok_or_else(|| ParseFaultPointError(text.to_owned()))
    }
}

/// At which point to die, if at any, and how.
#[derive(Debug, Default)]
pub struct FaultPoints {
    death: Option<Death>,
}

#[derive(Debug)]
struct Death {
    point: FaultPoint,
    /// How often the point is passed unharmed before.
    spared: AtomicU32,
    /// The daemon serves: what it does at its start is not meant.
    armed: AtomicBool,
    die: fn(),
}

impl FaultPoints {
    /// Dies by SIGKILL where `point` is reached for the first time after [`FaultPoints::arm`].
    pub fn die_at(point: FaultPoint) -> Self {
        let die = || {
            // Does not return where it succeeds.
            if let Err(errno) = kill_process(getpid(), Signal::KILL) {
                tracing::error!(%errno, "cannot die");
            }
        };
        let (spared, armed) = (AtomicU32::new(0), AtomicBool::new(false));
        Self { death: Some(Death { point, spared, armed, die }) }
    }

    /// Does `die` where `point` is reached after having been passed `spared` times.
    #[cfg(test)]
    pub(super) fn at(point: FaultPoint, spared: u32, die: fn()) -> Self {
        let (spared, armed) = (AtomicU32::new(spared), AtomicBool::new(true));
        Self { death: Some(Death { point, spared, armed, die }) }
    }

    /// From now on the point counts.
    pub(super) fn arm(&self) {
        if let Some(death) = &self.death {
            death.armed.store(true, Ordering::Release);
        }
    }

    /// The daemon is at `point`.
    pub(super) fn reach(&self, point: FaultPoint) {
        let counts = |death: &&Death| death.point == point && death.armed.load(Ordering::Acquire);
        let Some(death) = self.death.as_ref().filter(counts) else { return };
        let spare = |left: u32| left.checked_sub(1);
        if death.spared.fetch_update(Ordering::AcqRel, Ordering::Acquire, spare).is_err() {
            (death.die)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_point_has_a_name_of_its_own_that_leads_back_to_it() {
        let mut names = HashSet::new();
        for point in FaultPoint::all() {
            let name = point.to_string();
            assert_eq!(name.parse(), Ok(point));
            assert!(names.insert(name));
        }
        assert_eq!(names.len(), 2 * (LeaseEffect::ALL.len() + 2));
        assert!("before-lunch".parse::<FaultPoint>().is_err());
    }
}
