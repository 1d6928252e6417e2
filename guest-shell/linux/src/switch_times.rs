//! How long the last attach and the last detach took, as the guest saw them: from leaving one
//! resting state to reaching the other.

use core::sync::atomic::{AtomicU64, Ordering};

use shell_core::switch::ShellState;

/// Durations of switches. Written by the control side, read anywhere.
#[derive(Debug)]
pub struct SwitchTimes {
    /// When the present attach or detach began, in nanoseconds; 0 while none is under way.
    began: AtomicU64,
    attach_us: AtomicU64,
    detach_us: AtomicU64,
}

impl Default for SwitchTimes {
    fn default() -> Self {
        Self::new()
    }
}

impl SwitchTimes {
    /// Nothing has been switched yet.
    pub const fn new() -> Self {
        Self {
            began: AtomicU64::new(0),
            attach_us: AtomicU64::new(0),
            detach_us: AtomicU64::new(0),
        }
    }

    /// Looks at where the switch stands at `now` (nanoseconds). `before` is where it stood when
    /// it was last looked at.
    pub fn observe(&self, before: ShellState, state: ShellState, now: u64) {
        use ShellState::{Active, Emulated, Unregistered};
        if state == before {
            return;
        }
        let rested = matches!(before, Active | Emulated | Unregistered);
        if rested {
            self.began.store(now, Ordering::Relaxed);
        }
        let took = || now.saturating_sub(self.began.swap(0, Ordering::Relaxed)) / 1000;
        match state {
            Active => self.attach_us.store(took(), Ordering::Relaxed),
            Emulated if before != Unregistered => self.detach_us.store(took(), Ordering::Relaxed),
            _ => {}
        }
    }

    /// Duration of the last attach, in microseconds; 0 before the first.
    pub fn last_attach_us(&self) -> u64 {
        self.attach_us.load(Ordering::Relaxed)
    }

    /// Duration of the last detach, or failed attach, in microseconds; 0 before the first.
    pub fn last_detach_us(&self) -> u64 {
        self.detach_us.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ShellState::{Active, DrainingTransmit, Emulated, Failing, Preparing, Unregistered};

    #[test]
    fn measures_from_rest_to_rest() {
        let times = SwitchTimes::new();
        times.observe(Unregistered, Emulated, 500);
        assert_eq!((times.last_attach_us(), times.last_detach_us()), (0, 0));
        times.observe(Emulated, Preparing, 1_000_000);
        times.observe(Preparing, Preparing, 1_500_000);
        times.observe(Preparing, Active, 4_000_000);
        assert_eq!(times.last_attach_us(), 3_000);
        times.observe(Active, DrainingTransmit, 10_000_000);
        times.observe(DrainingTransmit, Emulated, 12_000_000);
        assert_eq!((times.last_attach_us(), times.last_detach_us()), (3_000, 2_000));
    }

    #[test]
    fn a_failed_attach_counts_as_a_detach() {
        let times = SwitchTimes::new();
        times.observe(Emulated, Preparing, 1_000);
        times.observe(Preparing, Failing, 2_000);
        times.observe(Failing, Emulated, 9_000);
        assert_eq!((times.last_attach_us(), times.last_detach_us()), (0, 8));
    }
}
