//! Interrupts of the two queues: routing, masking, and how often.

use npa_plugin_sdk::Window;

use crate::register::{
    EIAC, EIAM, EIMC, EIMS, EITR_KEEP_COUNT, IVAR_MISC, IVAR_VALID, IVAR0, MAILBOX_VECTOR,
    RX_VECTOR, TX_VECTOR, eitr,
};

/// Shortest interval between two interrupts of a queue, in microseconds: what sparse traffic has.
const SHORTEST: u32 = 16;
/// Longest interval of receive, in microseconds: a local round trip or two, which a bulk transfer's window
/// has room for.
pub(crate) const LONGEST_RX: u32 = 1_000;
/// Longest interval of transmit, in microseconds: nobody waits for a completion but a sender whose
/// buffer is full, and the shell looks for completions while it sends.
pub(crate) const LONGEST_TX: u32 = 2_000;
/// Interval that is tried now and then to see whether traffic is dense, in microseconds. There is
/// no clock here, and interrupts at the shortest interval bring one frame each also at rates that
/// should have fewer of them.
const TRIAL: u32 = 1_000;
/// Interrupts with few frames after which a trial is made.
const TRIAL_AFTER: u32 = 1_023;
/// Interrupts with few frames in a row that end a longer interval. A device that does not mask by
/// itself interrupts on while the ring is emptied, so that after a change, or a pause of the sender,
/// several looks in a row find next to nothing.
const LULL: u32 = 6;
/// With fewer frames per interrupt traffic is sparse, and latency matters more than interrupts.
const SPARSE: u32 = 8;
/// Frames per interrupt that dense traffic is brought to.
const DENSE: u32 = 128;

/// Routes the causes to their vectors. The queues' own vectors stay masked; the hypervisor's is
/// unmasked and left alone by all that follows.
pub(crate) fn route(window: Window) {
    window.write32(EIMC, 1 << TX_VECTOR | 1 << RX_VECTOR);
    window.write32(IVAR0, (RX_VECTOR | IVAR_VALID) | (TX_VECTOR | IVAR_VALID) << 8);
    window.write32(IVAR_MISC, MAILBOX_VECTOR | IVAR_VALID);
    window.write32(EIAC, 1 << TX_VECTOR | 1 << RX_VECTOR | 1 << MAILBOX_VECTOR);
    window.write32(EIAM, 1 << TX_VECTOR | 1 << RX_VECTOR);
    window.write32(EIMS, 1 << MAILBOX_VECTOR);
}

/// Masks both queues' vectors.
pub(crate) fn mask_all(window: Window) {
    window.write32(EIMC, 1 << TX_VECTOR | 1 << RX_VECTOR);
}

/// How long the device waits before the next interrupt. It follows the traffic: an interrupt costs
/// a virtual CPU several exits, so dense traffic gets few, with [`DENSE`] frames each; sparse
/// traffic gets each at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    /// In microseconds.
    interval: u32,
    /// Interrupts with few frames in a row.
    sparse: u32,
    /// Longest interval, in microseconds.
    longest: u32,
}

impl Pace {
    const fn first(longest: u32) -> Self {
        Self { interval: SHORTEST, sparse: 0, longest }
    }

    /// The pace after an interval that brought `frames` frames.
    fn next(self, frames: u32) -> Self {
        let Self { interval, sparse, longest } = self;
        match frames {
            // Armed again at once, or after a poll that found nothing: says nothing of the traffic.
            0 => self,
            1..SPARSE if interval == SHORTEST && sparse < TRIAL_AFTER => {
                Self { sparse: sparse + 1, ..self }
            }
            1..SPARSE if interval == SHORTEST => {
                Self { interval: TRIAL.min(longest), sparse: 0, ..self }
            }
            1..SPARSE if sparse < LULL => Self { sparse: sparse + 1, ..self },
            1..SPARSE => Self::first(longest),
            SPARSE..DENSE => Self { interval: (interval * 2).min(longest), sparse: 0, ..self },
            _ if frames > 2 * DENSE => {
                Self { interval: (interval / 2).max(SHORTEST), sparse: 0, ..self }
            }
            _ => Self { sparse: 0, ..self },
        }
    }
}

/// Numbers of frames that make a difference to the pace, in ascending order.
const STEPS: [u32; 4] = [1, SPARSE, DENSE, 2 * DENSE + 1];

/// One queue's interrupt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupt {
    vector: u32,
    pace: Pace,
    /// What came since the vector was armed.
    frames: u32,
    /// Whether the ring was looked at since then.
    looked: bool,
}

impl Interrupt {
    /// The interrupt on `vector`, at most `longest` microseconds after its cause.
    pub(crate) const fn new(vector: u32, longest: u32) -> Self {
        Self { vector, pace: Pace::first(longest), frames: 0, looked: false }
    }

    /// Programs the first interval.
    pub(crate) fn reset(&mut self, window: Window) {
        *self = Self::new(self.vector, self.pace.longest);
        self.program(window);
    }

    /// Counts frames that were sent. They are looked for while sending, so that no interval is too
    /// long for them: the pace never hears of more than suits it.
    pub(crate) fn count(&mut self, frames: u32) {
        self.frames = self.frames.saturating_add(frames).min(2 * DENSE);
    }

    /// Notes, at the first look since the vector was armed, what the interval brought: the largest
    /// of the [`STEPS`] for which `has` says that so many frames are there. What comes while these
    /// are being handled says nothing of the interval.
    pub(crate) fn look(&mut self, has: impl Fn(u32) -> bool) {
        if !self.looked {
            self.looked = true;
            self.frames = STEPS.into_iter().rev().find(|step| has(*step)).unwrap_or(0);
        }
    }

    /// Work waited already when the vector was armed. The next look is not an interrupt's and tells
    /// nothing of the interval, but this does: a guest that always finds work needs no interrupts.
    pub(crate) fn busy(&mut self) {
        (self.frames, self.looked) = (SPARSE, true);
    }

    /// The guest polls all it may and is not done, so it looks again by itself, and may not come
    /// to [`Interrupt::arm`] for long. A device that does not mask by itself interrupts on, at the
    /// interval of sparser traffic perhaps, and takes the time that the guest lacks: it gets the
    /// longest one now.
    pub(crate) fn crowded(&mut self, window: Window) {
        (self.frames, self.looked) = (SPARSE, true);
        self.pace.sparse = 0;
        if self.pace.interval != self.pace.longest {
            self.pace.interval = self.pace.longest;
            self.program(window);
        }
    }

    /// Unmasks the vector.
    pub(crate) fn arm(&mut self, window: Window) {
        let before = self.pace.interval;
        self.pace = self.pace.next(self.frames);
        (self.frames, self.looked) = (0, false);
        if self.pace.interval != before {
            self.program(window);
        }
        window.write32(EIMS, 1 << self.vector);
    }

    /// Masks the vector.
    pub(crate) fn disarm(&self, window: Window) {
        window.write32(EIMC, 1 << self.vector);
    }

    /// The interval stands in bits 2-14, in microseconds.
    fn program(&self, window: Window) {
        window.write32(eitr(self.vector), self.pace.interval << 2 | EITR_KEEP_COUNT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interrupts in one second of `rate` frames per second, after two to settle. Half of them come
    /// `early`: after one frame, as from a device that begins an interval with the cause.
    fn interrupts(longest: u32, rate: u32, early: bool) -> u32 {
        let gap = 1e6 / f64::from(rate);
        let (mut pace, mut now, mut count, mut turn) = (Pace::first(longest), 0.0, 0, false);
        while now < 3e6 {
            turn = !turn;
            let wait = if early && turn { gap } else { f64::from(pace.interval).max(gap) };
            now += wait;
            pace = pace.next((wait / gap).round() as u32);
            count += u32::from(now > 2e6);
        }
        count
    }

    #[test]
    fn sparse_traffic_is_told_at_once() {
        let first = Pace::first(LONGEST_RX);
        assert_eq!(Pace { interval: LONGEST_RX, sparse: LULL, ..first }.next(1), first);
        let late = (0..2_000).scan(first, |pace, _| {
            *pace = pace.next(1);
            Some(pace.interval > SHORTEST)
        });
        assert!(late.filter(|&late| late).count() < 20, "under a hundredth is held for a trial");
    }

    /// A sender that pauses, and interrupts that were on their way when the interval changed.
    #[test]
    fn a_few_early_looks_do_not_end_a_long_interval() {
        let long = Pace { interval: LONGEST_RX, ..Pace::first(LONGEST_RX) };
        let after = (0..LULL).fold(long, |pace, _| pace.next(1));
        assert_eq!(after.interval, LONGEST_RX);
        assert_eq!(after.next(DENSE), long);
    }

    #[test]
    fn dense_traffic_gets_few_interrupts_at_every_rate() {
        for longest in [LONGEST_RX, LONGEST_TX] {
            for rate in [20_000, 40_000, 100_000, 400_000, 1_400_000] {
                let in_longest = (u64::from(rate) * u64::from(longest) / 1_000_000) as u32;
                let least = (in_longest * 9 / 10).min(DENSE / 2);
                let per_interrupt = rate / interrupts(longest, rate, false);
                assert!(
                    (least..=2 * DENSE + 1).contains(&per_interrupt),
                    "{rate}/s, at most {longest} us: {per_interrupt}"
                );
                let with_early = rate / interrupts(longest, rate, true);
                assert!(with_early >= least / 2, "{rate}/s, at most {longest} us: {with_early}");
            }
        }
    }

    #[test]
    fn what_waits_is_told_in_steps_and_sending_never_shortens() {
        let mut receive = Interrupt::new(RX_VECTOR, LONGEST_RX);
        for (waiting, noted) in [(0, 0), (1, 1), (7, 1), (8, 8), (100, 8), (256, 128), (999, 257)] {
            receive.looked = false;
            receive.look(|frames| frames <= waiting);
            receive.look(|_| true);
            assert_eq!(receive.frames, noted, "{waiting} frames wait");
        }
        for _ in 0..16 {
            receive.busy();
            receive.look(|_| false);
            receive.pace = receive.pace.next(receive.frames);
        }
        assert_eq!(receive.pace.interval, LONGEST_RX, "a busy guest is left alone");
        let mut send = Interrupt::new(TX_VECTOR, LONGEST_TX);
        send.pace.interval = LONGEST_TX;
        send.count(1_000);
        send.count(u32::MAX);
        assert_eq!(send.pace.next(send.frames).interval, LONGEST_TX);
    }

    #[test]
    fn the_interval_stays_in_bounds() {
        for frames in [0, 1, 7, 8, 63, 64, 128, 129, u32::MAX] {
            for interval in [SHORTEST, 100, LONGEST_TX] {
                for sparse in [0, 1, TRIAL_AFTER] {
                    let pace = Pace { interval, sparse, longest: LONGEST_TX };
                    assert!((SHORTEST..=LONGEST_TX).contains(&pace.next(frames).interval));
                }
            }
        }
    }
}
