//! An even rate: how many units are due by now, catching up after a late wake-up.

use std::time::{Duration, Instant};

/// Hands out units at a constant rate from its creation on.
pub(crate) struct Pace {
    start: Instant,
    per_second: f64,
    given: u64,
}

impl Pace {
    pub(crate) fn new(per_second: f64) -> Self {
        Self { start: Instant::now(), per_second, given: 0 }
    }

    /// Units due since the last call.
    pub(crate) fn due(&mut self) -> u64 {
        let total = (self.start.elapsed().as_secs_f64() * self.per_second) as u64;
        let due = total.saturating_sub(self.given);
        self.given += due;
        due
    }

    /// Sleeps until the next unit is due.
    pub(crate) fn sleep(&self) {
        let next = Duration::from_secs_f64((self.given + 1) as f64 / self.per_second);
        std::thread::sleep(next.saturating_sub(self.start.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_wake_up_is_made_good() {
        let mut pace = Pace::new(1000.0);
        std::thread::sleep(Duration::from_millis(30));
        let first = pace.due();
        assert!(first >= 29, "{first} units after 30 ms at 1000 per second");
        assert!(pace.due() <= 5);
    }
}
