//! Who waits for a VF, in the order in which they came. No I/O, no clock.
//!
//! A VF that is free goes to the first of those who wait. Whoever waits has to ask now and then;
//! one that does not come while a VF is free for it is passed over, so that a VMM that hangs
//! delays the others by moments only.

use std::time::{Duration, Instant};

/// How long a VF that is free is kept for whoever is next, before the one after may have it.
pub(super) const TURN: Duration = Duration::from_secs(3);
/// How long who does not ask any more is kept in the queue: longer than the longest pause of a VMM
/// that waits.
pub(super) const FORGOTTEN: Duration = Duration::from_secs(90);

/// Who waits: a process with one of its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) pid: u32,
    pub(super) vm: String,
    pub(super) device: String,
}

#[derive(Debug)]
struct Place {
    waiter: Waiter,
    since: Instant,
    asked: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    places: Vec<Place>,
    /// Since when there has been a VF for whoever is next.
    free_since: Option<Instant>,
}

impl Queue {
    /// Puts `waiter` last, unless it is in the queue already. Answers how many are before it.
    pub(super) fn join(&mut self, waiter: &Waiter, now: Instant) -> usize {
        self.forget(now);
        match self.places.iter_mut().position(|place| place.waiter == *waiter) {
            Some(index) => {
                self.places[index].asked = now;
                index
            }
            None => {
                self.places.push(Place { waiter: waiter.clone(), since: now, asked: now });
                self.places.len() - 1
            }
        }
    }

    /// Takes note of how many VFs are free.
    pub(super) fn see(&mut self, free: usize, now: Instant) {
        if free == 0 {
            self.free_since = None;
        } else {
            self.free_since.get_or_insert(now);
        }
    }

    /// Whether `waiter`, or somebody who does not wait at all, may take one of `free` VFs now.
    pub(super) fn is_turn_of(&mut self, waiter: &Waiter, free: usize, now: Instant) -> bool {
        self.see(free, now);
        self.forget(now);
        let waiters = self.places.len();
        let before = self.places.iter().position(|place| place.waiter == *waiter);
        let before = before.unwrap_or(waiters);
        let waited = self.free_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        let passed_over = (waited.as_millis() / TURN.as_millis()) as usize;
        before < free + passed_over
    }

    /// `waiter` has what it wanted, or wants it no more.
    pub(super) fn leave(&mut self, waiter: &Waiter) {
        self.places.retain(|place| place.waiter != *waiter);
        // Whoever is next now has a turn of its own.
        self.free_since = None;
    }

    /// Removes those for whom `gone` holds.
    pub(super) fn remove(&mut self, gone: impl Fn(&Waiter) -> bool) {
        self.places.retain(|place| !gone(&place.waiter));
    }

    /// Who waits, and since when.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Waiter, Instant)> {
        self.places.iter().map(|place| (&place.waiter, place.since))
    }

    fn forget(&mut self, now: Instant) {
        self.places.retain(|place| now.duration_since(place.asked) < FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(pid: u32) -> Waiter {
        Waiter { pid, vm: format!("vm{pid}"), device: "net0".to_owned() }
    }

    fn queue(of: u32, now: Instant) -> Queue {
        let mut queue = Queue::default();
        for pid in 0..of {
            assert_eq!(queue.join(&waiter(pid), now), pid as usize);
        }
        queue
    }

    #[test]
    fn first_come_first_served_and_asking_again_changes_nothing() {
        let now = Instant::now();
        let mut queue = queue(3, now);
        assert_eq!(queue.join(&waiter(1), now), 1);
        let turns = |queue: &mut Queue, free| {
            (0..4).filter(|&pid| queue.is_turn_of(&waiter(pid), free, now)).collect::<Vec<_>>()
        };
        assert_eq!(turns(&mut queue, 0), [0; 0]);
        assert_eq!(turns(&mut queue, 1), [0]);
        assert_eq!(turns(&mut queue, 2), [0, 1]);
        // One who does not wait comes after all who do.
        assert_eq!(turns(&mut queue, 4), [0, 1, 2, 3]);
        queue.leave(&waiter(0));
        assert_eq!(turns(&mut queue, 1), [1]);
    }

    #[test]
    fn with_nobody_waiting_everybody_may() {
        assert!(Queue::default().is_turn_of(&waiter(7), 1, Instant::now()));
    }

    #[test]
    fn who_does_not_come_is_passed_over() {
        let now = Instant::now();
        let mut queue = queue(3, now);
        queue.see(1, now);
        let almost = now + TURN - Duration::from_millis(1);
        assert!(!queue.is_turn_of(&waiter(1), 1, almost));
        assert!(queue.is_turn_of(&waiter(1), 1, now + TURN));
        assert!(!queue.is_turn_of(&waiter(2), 1, now + TURN));
        assert!(queue.is_turn_of(&waiter(2), 1, now + 2 * TURN));
        // It is still its turn, when it comes after all; and each VF begins anew.
        assert!(queue.is_turn_of(&waiter(0), 1, now + TURN));
        queue.leave(&waiter(1));
        assert!(!queue.is_turn_of(&waiter(2), 1, now + 2 * TURN));
        queue.see(0, now + 3 * TURN);
        assert!(!queue.is_turn_of(&waiter(2), 1, now + 4 * TURN));
    }

    #[test]
    fn who_does_not_ask_is_forgotten() {
        let now = Instant::now();
        let mut queue = queue(2, now);
        let later = now + FORGOTTEN - Duration::from_millis(1);
        assert_eq!(queue.join(&waiter(1), later), 1);
        assert_eq!(queue.join(&waiter(1), now + FORGOTTEN), 0);
        queue.remove(|waiter| waiter.pid == 1);
        assert_eq!(queue.iter().count(), 0);
    }
}
