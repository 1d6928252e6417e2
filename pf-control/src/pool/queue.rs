//! Who waits for a VF, in the order in which they came. No I/O, no clock.
//!
//! There is a line for each kind of request (class and profile), since what one kind can use
//! another may not. A VF that is free goes to the first in line. Whoever waits has to ask now and
//! then; one that does not come while a VF is free for it is passed over, so that a VMM that hangs
//! delays the others by moments only.

use crate::ops::{DeviceClass, limits};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a VF that is free is kept for whoever is next, before the one after may have it.
const TURN: Duration = Duration::from_secs(3);
/// How long who does not ask any more is kept in the queue: longer than the longest pause of a VMM
/// that waits.
const FORGOTTEN: Duration = Duration::from_secs(90);

/// What is waited for.
pub(super) type Kind = (DeviceClass, Option<String>);

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

/// Those who wait for the same.
#[derive(Debug, Default)]
struct Line {
    places: Vec<Place>,
    /// Since when there has been a VF for whoever is next.
    free_since: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: BTreeMap<Kind, Line>,
}

/// The process has as many devices in the queue as it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Queue {
    /// Puts `waiter` last, unless it is in the queue already. Answers how many are before it.
    ///
    /// # Errors
    /// [`TooMany`]: one process must not fill the daemon's memory.
    pub(super) fn join(
        &mut self,
        kind: &Kind,
        waiter: &Waiter,
        now: Instant,
    ) -> Result<usize, TooMany> {
        self.forget(now);
        let own = self.iter().filter(|(other, _)| other.pid == waiter.pid).count();
        let line = self.lines.entry(kind.clone()).or_default();
        if let Some(index) = line.places.iter().position(|place| place.waiter == *waiter) {
            line.places[index].asked = now;
            return Ok(index);
        }
        if own >= limits::WAITING_PER_PROCESS {
            return Err(TooMany);
        }
        line.places.push(Place { waiter: waiter.clone(), since: now, asked: now });
        Ok(line.places.len() - 1)
    }

    /// Whether `waiter`, or somebody who does not wait at all, may take one of `free` VFs now.
    pub(super) fn is_turn_of(
        &mut self,
        kind: &Kind,
        waiter: &Waiter,
        free: usize,
        now: Instant,
    ) -> bool {
        self.forget(now);
        let Some(line) = self.lines.get_mut(kind) else { return free != 0 };
        if free == 0 {
            line.free_since = None;
            return false;
        }
        let waited = now.duration_since(*line.free_since.get_or_insert(now));
        let before = line.places.iter().position(|place| place.waiter == *waiter);
        let before = before.unwrap_or(line.places.len());
        let passed_over = (waited.as_millis() / TURN.as_millis()) as usize;
        before < free + passed_over
    }

    /// `waiter` has a VF, which another now has not; or it wants none any more.
    pub(super) fn leave(&mut self, waiter: &Waiter) {
        self.remove(|other| other == waiter);
        for line in self.lines.values_mut() {
            // Whoever is next has a turn of its own.
            line.free_since = None;
        }
    }

    /// Removes those for whom `gone` holds.
    pub(super) fn remove(&mut self, gone: impl Fn(&Waiter) -> bool) {
        self.retain(|place| !gone(&place.waiter));
    }

    /// Who waits, and since when.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Waiter, Instant)> {
        let places = self.lines.values().flat_map(|line| &line.places);
        places.map(|place| (&place.waiter, place.since))
    }

    fn forget(&mut self, now: Instant) {
        self.retain(|place| now.duration_since(place.asked) < FORGOTTEN);
    }

    fn retain(&mut self, keep: impl Fn(&Place) -> bool) {
        self.lines.retain(|_, line| {
            line.places.retain(&keep);
            !line.places.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(pid: u32) -> Waiter {
        Waiter { pid, vm: format!("vm{pid}"), device: "net0".to_owned() }
    }

    fn net() -> Kind {
        (DeviceClass::Net, None)
    }

    fn queue(of: u32, now: Instant) -> Queue {
        let mut queue = Queue::default();
        for pid in 0..of {
            assert_eq!(queue.join(&net(), &waiter(pid), now), Ok(pid as usize));
        }
        queue
    }

    fn turns(queue: &mut Queue, kind: &Kind, free: usize, now: Instant) -> Vec<u32> {
        (0..4).filter(|&pid| queue.is_turn_of(kind, &waiter(pid), free, now)).collect()
    }

    #[test]
    fn first_come_first_served_and_asking_again_changes_nothing() {
        let now = Instant::now();
        let mut queue = queue(3, now);
        assert_eq!(queue.join(&net(), &waiter(1), now), Ok(1));
        assert_eq!(turns(&mut queue, &net(), 0, now), [0; 0]);
        assert_eq!(turns(&mut queue, &net(), 1, now), [0]);
        assert_eq!(turns(&mut queue, &net(), 2, now), [0, 1]);
        // One who does not wait comes after all who do.
        assert_eq!(turns(&mut queue, &net(), 4, now), [0, 1, 2, 3]);
        queue.leave(&waiter(0));
        assert_eq!(turns(&mut queue, &net(), 1, now), [1]);
    }

    #[test]
    fn with_nobody_waiting_everybody_may() {
        let now = Instant::now();
        assert!(Queue::default().is_turn_of(&net(), &waiter(7), 1, now));
        assert!(!Queue::default().is_turn_of(&net(), &waiter(7), 0, now));
    }

    #[test]
    fn lines_do_not_wait_for_one_another() {
        let now = Instant::now();
        let mut queue = queue(2, now);
        let fast = (DeviceClass::Net, Some("fast".to_owned()));
        assert_eq!(queue.join(&fast, &waiter(3), now), Ok(0));
        assert_eq!(turns(&mut queue, &fast, 1, now), [3]);
        assert_eq!(turns(&mut queue, &net(), 1, now), [0]);
        assert_eq!(queue.iter().count(), 3);
    }

    #[test]
    fn who_does_not_come_is_passed_over() {
        let now = Instant::now();
        let mut queue = queue(3, now);
        assert!(!queue.is_turn_of(&net(), &waiter(1), 1, now), "a VF is free from now on");
        let almost = now + TURN - Duration::from_millis(1);
        assert!(!queue.is_turn_of(&net(), &waiter(1), 1, almost));
        assert!(queue.is_turn_of(&net(), &waiter(1), 1, now + TURN));
        assert!(!queue.is_turn_of(&net(), &waiter(2), 1, now + TURN));
        assert!(queue.is_turn_of(&net(), &waiter(2), 1, now + 2 * TURN));
        // It is still its turn, when it comes after all; and each VF begins anew.
        assert!(queue.is_turn_of(&net(), &waiter(0), 1, now + TURN));
        queue.leave(&waiter(1));
        assert!(!queue.is_turn_of(&net(), &waiter(2), 1, now + 2 * TURN));
        assert!(!queue.is_turn_of(&net(), &waiter(2), 0, now + 3 * TURN), "taken by others");
        assert!(!queue.is_turn_of(&net(), &waiter(2), 1, now + 4 * TURN));
    }

    #[test]
    fn who_does_not_ask_is_forgotten() {
        let now = Instant::now();
        let mut queue = queue(2, now);
        let later = now + FORGOTTEN - Duration::from_millis(1);
        assert_eq!(queue.join(&net(), &waiter(1), later), Ok(1));
        assert_eq!(queue.join(&net(), &waiter(1), now + FORGOTTEN), Ok(0));
        queue.remove(|waiter| waiter.pid == 1);
        assert_eq!(queue.iter().count(), 0);
        assert!(queue.lines.is_empty(), "nothing is kept of a line that has ended");
    }

    #[test]
    fn a_process_that_floods_the_queue_is_stopped() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let device = |number: usize| Waiter { device: format!("net{number}"), ..waiter(7) };
        for number in 0..limits::WAITING_PER_PROCESS {
            assert_eq!(queue.join(&net(), &device(number), now), Ok(number));
        }
        let more = device(limits::WAITING_PER_PROCESS);
        assert_eq!(queue.join(&net(), &more, now), Err(TooMany));
        assert_eq!(queue.join(&net(), &device(3), now), Ok(3), "it may still ask again");
        assert!(queue.join(&net(), &waiter(8), now).is_ok(), "and others may come");
    }
}
