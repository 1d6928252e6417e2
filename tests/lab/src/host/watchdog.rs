//! Decides how a lab host's run ends. The emulated machine is sometimes lost through no fault
//! of what runs in it (it resets by itself, a CPU loses its timer, all cards their interrupts, or
//! QEMU crashes): only then may a run be repeated. Everything else is a result, good or bad. Pure:
//! fed with events and times.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The agent started the command.
    Ready,
    /// A CPU's timer works.
    Beat {
        /// The CPU.
        cpu: u32,
    },
    /// The command ended.
    Exit(i32),
    /// A line on the console.
    Console(String),
    /// The machine was reset (it does not start again by itself).
    Reset,
    /// The machine was switched off from inside.
    PowerOff,
    /// The emulator ended, with this status.
    EmulatorGone(String),
    /// The emulator ended by this signal of its own: an assertion of its own failed, or worse.
    EmulatorCrashed(i32),
    /// The control port carried nonsense.
    Damaged(String),
    /// Time passed.
    Tick,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The command ended with this status.
    Finished(i32),
    /// The command took too long.
    TimedOut,
    /// The lab host itself was lost: the run may be repeated.
    Lost(String),
    /// It went wrong and must not be repeated.
    Failed(String),
}

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From start to the agent's first sign of life.
    pub(crate) boot: Duration,
    /// Between two beats of a CPU.
    pub(crate) beat: Duration,
    /// From the first sign of life to the command's end.
    pub(crate) command: Duration,
}

#[derive(Debug)]
enum State {
    Booting { since: Instant },
    Running { since: Instant, beats: BTreeMap<u32, Instant> },
    Ended(End),
}

/// The state of one run.
#[derive(Debug)]
pub(crate) struct Watchdog {
    limits: Limits,
    state: State,
    /// The last words of the lab host's kernel, when it stopped on purpose.
    last_words: Option<String>,
    /// A CPU ran code that was not there any more.
    stale_code: bool,
}

impl Watchdog {
    /// A run that starts now.
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, state: State::Booting { since: now }, last_words: None, stale_code: false }
    }

    /// Takes one event; returns the end once there is one.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Option<&End> {
        self.state = match (std::mem::replace(&mut self.state, State::Ended(End::TimedOut)), event)
        {
            (ended @ State::Ended(_), _) => ended,
            (_, Event::Exit(status)) => State::Ended(End::Finished(status)),
            (_, Event::Damaged(what)) => State::Ended(End::Failed(what)),
            // Before its agent is ready nothing of ours has run in it.
            (State::Booting { .. }, Event::Reset) => {
                let words = self.last_words.as_deref().unwrap_or("nothing");
                State::Ended(End::Lost(format!("reset while it booted; it said: {words}")))
            }
            (_, Event::Reset) => State::Ended(self.reset()),
            (_, Event::PowerOff) => {
                State::Ended(End::Failed("the lab host was switched off from inside".into()))
            }
            (_, Event::EmulatorGone(status)) => {
                State::Ended(End::Failed(format!("QEMU ended ({status})")))
            }
            (_, Event::EmulatorCrashed(signal)) => {
                State::Ended(End::Lost(format!("QEMU crashed (signal {signal})")))
            }
            (_, Event::Console(line)) if is_deaf(&line) => {
                State::Ended(self.blame("its outside card gets no interrupts any more".into()))
            }
            (state, Event::Console(line)) => {
                self.listen(&line);
                state
            }
            (State::Booting { .. }, Event::Ready) => {
                State::Running { since: now, beats: BTreeMap::new() }
            }
            (state, Event::Ready) => state,
            (State::Running { since, mut beats }, Event::Beat { cpu }) => {
                beats.insert(cpu, now);
                State::Running { since, beats }
            }
            (state, Event::Beat { .. }) => state,
            (State::Booting { since }, Event::Tick) => {
                if now.duration_since(since) > self.limits.boot {
                    State::Ended(End::Lost(format!(
                        "no sign of life {:?} after start",
                        self.limits.boot
                    )))
                } else {
                    State::Booting { since }
                }
            }
            (State::Running { since, beats }, Event::Tick) => self.tick(since, beats, now),
        };
        match &self.state {
            State::Ended(end) => Some(end),
            State::Booting { .. } | State::Running { .. } => None,
        }
    }

    fn tick(&self, since: Instant, beats: BTreeMap<u32, Instant>, now: Instant) -> State {
        let silent = |last: Instant| now.duration_since(last) > self.limits.beat;
        if let Some((cpu, _)) = beats.iter().find(|(_, last)| silent(**last)) {
            let what = format!("no heartbeat of CPU {cpu} for {:?}", self.limits.beat);
            return State::Ended(self.blame(what));
        }
        if beats.is_empty() && silent(since) {
            let what = format!("no heartbeat for {:?}", self.limits.beat);
            return State::Ended(self.blame(what));
        }
        if now.duration_since(since) > self.limits.command {
            return State::Ended(End::TimedOut);
        }
        State::Running { since, beats }
    }

    fn reset(&self) -> End {
        self.blame("the lab host reset by itself".into())
    }

    /// A kernel that says why it stops was not lost but stopped: by us, or by a fault that we
    /// have to look at.
    fn blame(&self, what: String) -> End {
        if self.stale_code {
            return End::Lost(format!("{what}, after a CPU ran code that was not there any more"));
        }
        match &self.last_words {
            Some(words) => End::Failed(format!("{what}, after its kernel said: {words}")),
            None => End::Lost(what),
        }
    }

    fn listen(&mut self, line: &str) {
        const STOPS: [&str; 4] =
            ["Kernel panic", "reboot: Restarting system", "BUG: kernel", "Oops:"];
        self.stale_code |= is_stale_code(line);
        if self.last_words.is_none() && STOPS.iter().any(|words| line.contains(words)) {
            self.last_words = Some(line.trim().to_owned());
        }
    }
}

/// Whether the kernel says that a frame of one of its cards is not sent for seconds. The emulated card
/// sends within the register write that tells it to, so what is missing is its interrupt, which the
/// emulator has lost. The driver's attempt to reset such a card may then never end, and holds the lock
/// that every network request of the lab host needs. (A guest's own driver complains on its console.)
fn is_deaf(line: &str) -> bool {
    line.contains("NETDEV WATCHDOG") && line.contains("] igb ")
}

/// Whether the kernel says that it met a breakpoint that is none of its own. It sets them only while it
/// changes its code, and takes them away again; an emulated CPU may run one later, from what it had
/// translated before. (A guest's kernel is on its own console.)
fn is_stale_code(line: &str) -> bool {
    line.contains("] Oops: int3: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        boot: Duration::from_secs(60),
        beat: Duration::from_secs(10),
        command: Duration::from_secs(100),
    };

    struct Run {
        watchdog: Watchdog,
        start: Instant,
    }

    impl Run {
        fn new() -> Self {
            let start = Instant::now();
            Self { watchdog: Watchdog::new(LIMITS, start), start }
        }

        fn at(&mut self, second: u64, event: Event) -> Option<End> {
            self.watchdog.on(event, self.start + Duration::from_secs(second)).cloned()
        }

        fn ready() -> Self {
            let mut run = Self::new();
            assert_eq!(run.at(5, Event::Ready), None);
            run
        }
    }

    #[test]
    fn an_exit_status_is_the_end_and_nothing_changes_it() {
        let mut run = Run::ready();
        assert_eq!(run.at(6, Event::Exit(3)), Some(End::Finished(3)));
        for event in [Event::Reset, Event::Tick, Event::Ready, Event::PowerOff, Event::Exit(0)] {
            assert_eq!(run.at(1000, event), Some(End::Finished(3)));
        }
    }

    #[test]
    fn a_reset_without_a_word_is_a_lost_lab_host() {
        assert!(matches!(Run::new().at(1, Event::Reset), Some(End::Lost(_))));
        assert!(matches!(Run::ready().at(6, Event::Reset), Some(End::Lost(_))));
    }

    #[test]
    fn a_crashed_emulator_and_cards_without_interrupts_are_a_lost_lab_host() {
        assert!(matches!(Run::ready().at(6, Event::EmulatorCrashed(6)), Some(End::Lost(_))));
        let line = |card: &str| {
            Event::Console(format!(
                "[   36.5] igb 0000:02:00.0 {card}: NETDEV WATCHDOG: CPU: 0: transmit queue 2 timed out"
            ))
        };
        assert!(matches!(Run::ready().at(6, line("eth1")), Some(End::Lost(_))));
        assert!(matches!(Run::ready().at(6, line("eth0")), Some(End::Lost(_))));
        let guest =
            "[   36.5] npa_shell 0000:00:02.0 eth0: NETDEV WATCHDOG: transmit queue 0 timed out";
        assert_eq!(Run::ready().at(6, Event::Console(guest.into())), None, "that one is ours");
    }

    #[test]
    fn a_panic_or_a_reboot_on_purpose_is_a_failure() {
        for words in ["[ 1.0] Kernel panic - not syncing: x", "reboot: Restarting system"] {
            let mut run = Run::ready();
            assert_eq!(run.at(6, Event::Console(words.into())), None);
            let Some(End::Failed(why)) = run.at(7, Event::Reset) else { panic!("not a failure") };
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn a_breakpoint_that_nobody_set_is_a_lost_lab_host() {
        let oops = |kind: &str| {
            let mut run = Run::ready();
            let words = format!("[  493.3] Oops: {kind}: 0000 [#1] PREEMPT SMP NOPTI");
            assert_eq!(run.at(6, Event::Console(words)), None);
            let panic = "[  493.4] Kernel panic - not syncing: Fatal exception in interrupt";
            assert_eq!(run.at(7, Event::Console(panic.into())), None);
            run.at(8, Event::Reset)
        };
        assert!(matches!(oops("int3"), Some(End::Lost(_))));
        assert!(matches!(oops("general protection fault"), Some(End::Failed(_))));
    }

    #[test]
    fn one_silent_cpu_is_a_lost_lab_host() {
        let mut run = Run::ready();
        for second in 6..30 {
            run.at(second, Event::Beat { cpu: 0 });
            if second < 12 {
                run.at(second, Event::Beat { cpu: 1 });
            }
            let end = run.at(second, Event::Tick);
            if second <= 21 {
                assert_eq!(end, None, "second {second}");
            } else {
                let Some(End::Lost(why)) = end else { panic!("second {second}") };
                assert!(why.contains("CPU 1"));
            }
        }
    }

    #[test]
    fn silence_while_booting_and_after_it_is_noticed() {
        let mut run = Run::new();
        assert_eq!(run.at(60, Event::Tick), None);
        assert!(matches!(run.at(61, Event::Tick), Some(End::Lost(_))));
        let mut run = Run::ready();
        assert_eq!(run.at(15, Event::Tick), None);
        assert!(matches!(run.at(16, Event::Tick), Some(End::Lost(_))));
    }

    #[test]
    fn a_slow_command_is_a_failure_not_a_lost_lab_host() {
        let mut run = Run::ready();
        for second in 6..200 {
            run.at(second, Event::Beat { cpu: 0 });
            let end = run.at(second, Event::Tick);
            assert_eq!(end, (second > 105).then_some(End::TimedOut), "second {second}");
        }
    }

    #[test]
    fn switching_off_a_dead_emulator_and_damage_are_failures() {
        for event in [
            Event::PowerOff,
            Event::EmulatorGone("exit status 1".into()),
            Event::Damaged("x".into()),
        ] {
            assert!(matches!(Run::ready().at(6, event.clone()), Some(End::Failed(_))));
            assert!(matches!(Run::new().at(6, event), Some(End::Failed(_))));
        }
    }
}
