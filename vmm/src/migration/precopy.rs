//! When to stop copying a running guest's memory: when what is left fits into the stop that its
//! owner allows and another pass would not leave much less, or when the time is up. Pure: is told what happened and decides.

use std::time::{Duration, Instant};

/// What to do when memory does not settle in time.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Default,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OnTimeout {
    /// The VM stays.
    #[default]
    Cancel,
    /// The VM moves, and is stopped for longer than was wished for.
    Force,
}

/// When devices give up their VFs.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Default,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// Before memory is copied.
    Early,
    /// After all of memory was copied but what the guest wrote last: as long as it takes, the VM
    /// keeps its VF. A device whose guest does not mark what a VF writes falls back early.
    #[default]
    Late,
}

/// What the owner of a VM allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long the VM may be stopped.
    pub downtime_target: Duration,
    /// How long memory may be copied while it runs.
    pub timeout: Duration,
    /// What then.
    pub on_timeout: OnTimeout,
    /// Whether its CPUs may be slowed down.
    pub throttle: bool,
}

impl Policy {
    /// When to give up a copying that began then even within pass `round`, and how long that is. Passes
    /// after the first are short where the network carries anything, so their end is waited for.
    pub(super) fn limit(&self, began: Instant, round: u32) -> Option<(Instant, Duration)> {
        let limit = if round == 1 { self.timeout } else { 2 * self.timeout };
        (self.on_timeout == OnTimeout::Cancel).then(|| (began + limit, limit))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            downtime_target: Duration::from_millis(300),
            timeout: Duration::from_secs(120),
            on_timeout: OnTimeout::Cancel,
            throttle: false,
        }
    }
}

/// One pass over memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// Bytes that were sent.
    pub(super) sent: u64,
    /// How long that took.
    pub(super) took: Duration,
    /// Bytes in pages that were written meanwhile.
    pub(super) dirty: u64,
}

/// What follows a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Another pass.
    Again,
    /// Another pass, with CPUs held for this many percent of the time.
    Slower(u8),
    /// Stop the VM.
    Stop,
    /// Give up.
    GiveUp,
}

/// Percent by which CPUs are slowed further, and to which at most.
const SLOWER_BY: u8 = 20;
const SLOWEST: u8 = 80;

/// A pass that leaves more than this part (in percent) of what the one before left makes no
/// progress.
const NO_PROGRESS: u64 = 70;

/// While a pass leaves less than this part (in percent) of what it sent, and more than so many
/// bytes, another costs little and makes the stop shorter.
const WORTH_IT: u64 = 50;
const NEXT_TO_NOTHING: u64 = 64 * 4096;

/// Such passes at most.
const EXTRA: u32 = 4;

/// Passes without progress before CPUs are slowed.
const PATIENCE: u32 = 2;

/// See the module.
pub(super) struct Convergence {
    policy: Policy,
    sent: u64,
    sending: Duration,
    last: Option<Round>,
    rounds: u32,
    stalled: u32,
    slowed: u8,
    extra: u32,
}

impl Convergence {
    pub(super) fn new(policy: Policy) -> Self {
        let (sent, sending) = (0, Duration::ZERO);
        Self { policy, sent, sending, last: None, rounds: 0, stalled: 0, slowed: 0, extra: 0 }
    }

    /// Passes so far.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Bytes per second that are carried; `None` before anything was.
    pub(super) fn rate(&self) -> Option<f64> {
        let seconds = self.sending.as_secs_f64();
        (self.sent > 0 && seconds > 0.0).then(|| self.sent as f64 / seconds)
    }

    /// How long sending `bytes` will take.
    pub(super) fn estimate(&self, bytes: u64) -> Duration {
        let Some(rate) = self.rate() else { return Duration::ZERO };
        Duration::try_from_secs_f64(bytes as f64 / rate).unwrap_or(Duration::MAX)
    }

    /// Bytes per second that the guest wrote to pages during the last pass.
    pub(super) fn written(&self) -> u64 {
        self.last
            .map_or(0, |round| (round.dirty as f64 / round.took.as_secs_f64().max(1e-3)) as u64)
    }

    /// What to do after `round`, `elapsed` after the first began.
    pub(super) fn after(&mut self, round: Round, elapsed: Duration) -> Decision {
        self.rounds += 1;
        self.sent += round.sent;
        self.sending += round.took;
        let before = self.last.replace(round);
        if self.estimate(round.dirty) <= self.policy.downtime_target {
            let worth_it = round.dirty > NEXT_TO_NOTHING
                && round.dirty * 100 < round.sent * WORTH_IT
                && elapsed < self.policy.timeout;
            if !worth_it || self.extra == EXTRA {
                return Decision::Stop;
            }
            self.extra += 1;
            return Decision::Again;
        }
        if elapsed >= self.policy.timeout {
            return match self.policy.on_timeout {
                OnTimeout::Force => Decision::Stop,
                OnTimeout::Cancel => Decision::GiveUp,
            };
        }
        let settled = before.is_none_or(|before| round.dirty * 100 < before.dirty * NO_PROGRESS);
        self.stalled = if settled { 0 } else { self.stalled + 1 };
        if self.policy.throttle && self.stalled >= PATIENCE && self.slowed < SLOWEST {
            self.stalled = 0;
            self.slowed += SLOWER_BY;
            return Decision::Slower(self.slowed);
        }
        Decision::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// A pass at 100 MB/s after which `dirty` MB are left.
    fn round(sent: u64, dirty: u64) -> Round {
        Round { sent: sent * MB, took: Duration::from_millis(sent * 10), dirty: dirty * MB }
    }

    fn after(convergence: &mut Convergence, sent: u64, dirty: u64, seconds: u64) -> Decision {
        convergence.after(round(sent, dirty), Duration::from_secs(seconds))
    }

    #[test]
    fn stops_as_soon_as_the_rest_fits_into_the_target() {
        let mut convergence = Convergence::new(Policy::default());
        assert_eq!(after(&mut convergence, 500, 100, 5), Decision::Again);
        assert_eq!(after(&mut convergence, 100, 31, 6), Decision::Again);
        assert_eq!(after(&mut convergence, 31, 30, 7), Decision::Stop);
        assert_eq!(convergence.rounds(), 3);
        assert_eq!(convergence.estimate(30 * MB), Duration::from_millis(300));
    }

    #[test]
    fn goes_on_below_the_target_while_that_makes_the_stop_much_shorter() {
        let mut convergence = Convergence::new(Policy::default());
        assert_eq!(after(&mut convergence, 500, 20, 5), Decision::Again);
        assert_eq!(after(&mut convergence, 20, 4, 6), Decision::Again);
        assert_eq!(after(&mut convergence, 4, 3, 7), Decision::Stop);
        let mut endless = Convergence::new(Policy::default());
        let passes = (0..).take_while(|_| after(&mut endless, 20, 9, 1) == Decision::Again);
        assert_eq!(passes.count(), EXTRA as usize);
        let mut late = Convergence::new(Policy::default());
        assert_eq!(after(&mut late, 500, 20, 120), Decision::Stop);
    }

    #[test]
    fn time_is_up_for_a_guest_that_writes_too_fast() {
        for (on_timeout, expected) in
            [(OnTimeout::Cancel, Decision::GiveUp), (OnTimeout::Force, Decision::Stop)]
        {
            let policy =
                Policy { timeout: Duration::from_secs(10), on_timeout, ..Policy::default() };
            let mut convergence = Convergence::new(policy);
            assert_eq!(after(&mut convergence, 500, 400, 5), Decision::Again);
            assert_eq!(after(&mut convergence, 400, 400, 9), Decision::Again);
            assert_eq!(after(&mut convergence, 400, 400, 13), expected);
            assert_eq!(convergence.written(), 100 * MB);
        }
    }

    #[test]
    fn cpus_are_slowed_step_by_step_when_that_is_allowed() {
        let mut convergence = Convergence::new(Policy { throttle: true, ..Policy::default() });
        let decisions: Vec<_> =
            (1..13).map(|second| after(&mut convergence, 400, 400, second)).collect();
        let slower: Vec<_> =
            decisions.iter().filter(|decision| matches!(decision, Decision::Slower(_))).collect();
        assert_eq!(
            slower,
            [
                &Decision::Slower(20),
                &Decision::Slower(40),
                &Decision::Slower(60),
                &Decision::Slower(80)
            ]
        );
        assert_eq!(decisions[0], Decision::Again);
    }

    #[test]
    fn a_guest_that_writes_nothing_stops_after_one_pass() {
        let mut convergence = Convergence::new(Policy::default());
        assert_eq!(after(&mut convergence, 0, 0, 0), Decision::Stop);
        assert_eq!(convergence.estimate(u64::MAX), Duration::ZERO);
    }
}
