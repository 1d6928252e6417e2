//! Counts exits: those that reach this process, by reason, and all that KVM took.

use std::sync::atomic::{AtomicU64, Ordering};

/// Exits of one vCPU to this process.
#[derive(Debug, Default)]
pub(super) struct ExitCounters {
    io: AtomicU64,
    mmio: AtomicU64,
    other: AtomicU64,
}

impl ExitCounters {
    pub(super) fn count_io(&self) {
        self.io.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_mmio(&self) {
        self.mmio.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_other(&self) {
        self.other.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far.
    pub(super) fn snapshot(&self) -> Exits {
        Exits {
            io: self.io.load(Ordering::Relaxed),
            mmio: self.mmio.load(Ordering::Relaxed),
            other: self.other.load(Ordering::Relaxed),
        }
    }
}

/// Exits to this process since the VM was made, by reason. Interruptions by the VMM itself
/// (pausing) are no exits of the guest and do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Exits {
    /// Port accesses.
    pub io: u64,
    /// Accesses to device memory.
    pub mmio: u64,
    /// Everything else.
    pub other: u64,
}

impl Exits {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.io + self.mmio + self.other
    }
}

impl std::ops::Add for Exits {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self { io: self.io + more.io, mmio: self.mmio + more.mmio, other: self.other + more.other }
    }
}
