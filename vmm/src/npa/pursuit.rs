//! When a device that wants a VF is tried again: a guest may have been slow, a VF may have become
//! free. No I/O, no clock.

use std::time::{Duration, Instant};

/// How often the pause doubles: with the usual second, the longest is half a minute.
const DOUBLINGS: u32 = 5;

/// The next attempt, and how many have failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pursuit {
    due: Option<Instant>,
    /// When the last attempt failed.
    since: Option<Instant>,
    failed: u32,
}

impl Pursuit {
    /// An attempt failed at `now`. The pause before the next is `first`, doubled for each earlier failure.
    pub(super) fn put_off(&mut self, now: Instant, first: Duration) {
        self.due = Some(now + self.pause(first));
        self.since = Some(now);
        self.failed = self.failed.saturating_add(1);
    }

    fn pause(&self, first: Duration) -> Duration {
        first * (1 << self.failed.min(DOUBLINGS))
    }

    /// A VF has become free: the next attempt need not wait longer than `first` after the last one.
    pub(super) fn hurry(&mut self, first: Duration) {
        if let (Some(due), Some(since)) = (&mut self.due, self.since) {
            *due = (*due).min(since + first);
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time; answers so once.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let mut pursuit = Pursuit::default();
        let now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.push(pursuit.pause(SECOND).as_secs());
            pursuit.put_off(now, SECOND);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
    }

    #[test]
    fn an_attempt_is_due_once() {
        let mut pursuit = Pursuit::default();
        let now = Instant::now();
        assert!(!pursuit.take(now));
        pursuit.put_off(now, SECOND);
        assert!(!pursuit.take(now), "not yet");
        assert!(pursuit.take(now + 2 * SECOND));
        assert!(!pursuit.take(now + 2 * SECOND));
    }

    #[test]
    fn a_free_vf_shortens_the_pause_and_never_makes_a_storm() {
        let mut pursuit = Pursuit::default();
        let now = Instant::now();
        pursuit.hurry(SECOND);
        assert_eq!(pursuit.due(), None, "nothing is wanted");
        for _ in 0..5 {
            pursuit.put_off(now, SECOND);
        }
        assert_eq!(pursuit.due(), Some(now + 16 * SECOND));
        pursuit.hurry(SECOND);
        assert_eq!(pursuit.due(), Some(now + SECOND));
        pursuit.hurry(SECOND);
        assert_eq!(pursuit.due(), Some(now + SECOND));
    }
}
