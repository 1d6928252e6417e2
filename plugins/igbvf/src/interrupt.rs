//! Interrupts of the two queues: routing, masking, and how often.

use npa_plugin_sdk::Window;

use crate::register::{
    EIAC, EIAM, EIMC, EIMS, EITR_KEEP_COUNT, IVAR_MISC, IVAR_VALID, IVAR0, MAILBOX_VECTOR,
    RX_VECTOR, TX_VECTOR, eitr,
};

/// Shortest interval between two interrupts of a queue, in microseconds: what sparse traffic has.
const SHORTEST: u32 = 16;
/// Longest interval, in microseconds.
const LONGEST: u32 = 2_048;
/// With fewer frames per interrupt traffic is sparse, and latency matters more than interrupts.
const SPARSE: u32 = 8;
/// Frames per interrupt that dense traffic is brought to.
const DENSE: u32 = 64;

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

/// One queue's interrupt. How long the device waits before the next one follows the traffic: an
/// interrupt costs a virtual CPU several exits, so dense traffic gets few, with [`DENSE`] frames
/// each; sparse traffic gets each at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupt {
    vector: u32,
    interval: u32,
    frames: u32,
}

impl Interrupt {
    /// The interrupt on `vector`.
    pub(crate) const fn new(vector: u32) -> Self {
        Self { vector, interval: SHORTEST, frames: 0 }
    }

    /// Programs the first interval.
    pub(crate) fn reset(&mut self, window: Window) {
        *self = Self::new(self.vector);
        self.program(window);
    }

    /// Counts frames that were handled.
    pub(crate) fn count(&mut self, frames: u32) {
        self.frames = self.frames.saturating_add(frames);
    }

    /// Unmasks the vector.
    pub(crate) fn arm(&mut self, window: Window) {
        let interval = next_interval(self.interval, self.frames);
        self.frames = 0;
        if interval != self.interval {
            self.interval = interval;
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
        window.write32(eitr(self.vector), self.interval << 2 | EITR_KEEP_COUNT);
    }
}

/// The interval after one of `interval` microseconds that brought `frames` frames.
fn next_interval(interval: u32, frames: u32) -> u32 {
    match frames {
        // Armed again at once, or after a poll that found nothing: says nothing of the traffic.
        0 => interval,
        1..SPARSE => SHORTEST,
        SPARSE..DENSE => (interval * 2).min(LONGEST),
        frames if frames > 2 * DENSE => (interval / 2).max(SHORTEST),
        _ => interval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interrupts per second once steady, at `rate` frames per second.
    fn steady(rate: u32) -> u32 {
        let mut interval = SHORTEST;
        for _ in 0..100 {
            interval = next_interval(interval, (rate / (1_000_000 / interval)).max(1));
        }
        1_000_000 / interval
    }

    #[test]
    fn sparse_traffic_is_told_at_once() {
        assert_eq!(next_interval(LONGEST, 1), SHORTEST);
        assert_eq!(1_000_000 / steady(3_000), SHORTEST);
    }

    #[test]
    fn dense_traffic_gets_few_interrupts_at_every_rate() {
        for rate in [40_000, 100_000, 400_000, 1_400_000] {
            let per_interrupt = rate / steady(rate);
            let enough = per_interrupt >= DENSE || steady(rate) <= 1_000_000 / LONGEST + 1;
            assert!(
                enough && per_interrupt <= 2 * DENSE + DENSE,
                "{rate}/s: {per_interrupt} frames per interrupt"
            );
        }
    }

    #[test]
    fn the_interval_stays_in_bounds() {
        for frames in [0, 1, 7, 8, 63, 64, 128, 129, u32::MAX] {
            for interval in [SHORTEST, 100, LONGEST] {
                let next = next_interval(interval, frames);
                assert!((SHORTEST..=LONGEST).contains(&next));
            }
        }
    }
}
