//! Whether vCPUs run: the state machine, and how the controlling thread and the vCPU threads
//! agree on it. Never touches KVM.

use std::sync::{Condvar, Mutex};

/// What a vCPU does, or is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Runs guest code.
    Running,
    /// Runs nothing; its registers are complete and may be read and written.
    Paused,
    /// Ended, for good.
    Stopped,
}

/// What changes a [`RunState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// Start, or go on after a pause.
    Resume,
    /// Hold.
    Pause,
    /// End.
    Stop,
}

impl RunState {
    /// The state after `event`. Total: `Stopped` absorbs everything, repetition changes nothing.
    pub fn transition(self, event: RunEvent) -> Self {
        match (self, event) {
            (Self::Stopped, _) | (_, RunEvent::Stop) => Self::Stopped,
            (Self::Running | Self::Paused, RunEvent::Resume) => Self::Running,
            (Self::Running | Self::Paused, RunEvent::Pause) => Self::Paused,
        }
    }
}

/// The state asked for, shared by all vCPU threads, and the state that each is in.
pub(super) struct RunControl {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    target: RunState,
    observed: Vec<RunState>,
}

impl RunControl {
    /// `vcpus` threads, all to be paused first.
    pub(super) fn new(vcpus: usize) -> Self {
        let inner = Inner { target: RunState::Paused, observed: vec![RunState::Paused; vcpus] };
        Self { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// Changes the state asked for and returns it. Threads in the guest must then be kicked.
    pub(super) fn apply(&self, event: RunEvent) -> RunState {
        let mut inner = self.inner.lock().unwrap();
        inner.target = inner.target.transition(event);
        self.changed.notify_all();
        inner.target
    }

    /// Called by vCPU thread `index` between runs: holds while the target is `Paused`, returns
    /// false when the thread shall end.
    pub(super) fn may_run(&self, index: usize) -> bool {
        let mut inner = self.inner.lock().unwrap();
        loop {
            inner.observed[index] = inner.target;
            self.changed.notify_all();
            match inner.target {
                RunState::Running => return true,
                RunState::Stopped => return false,
                RunState::Paused => inner = self.changed.wait(inner).unwrap(),
            }
        }
    }

    /// Whether the target is to run; lets a thread finish an exit before it holds.
    pub(super) fn target(&self) -> RunState {
        self.inner.lock().unwrap().target
    }

    /// Thread `index` has ended without being asked to.
    pub(super) fn leave(&self, index: usize) {
        self.inner.lock().unwrap().observed[index] = RunState::Stopped;
        self.changed.notify_all();
    }

    /// Waits until no vCPU runs guest code.
    pub(super) fn wait_quiet(&self) {
        let inner = self.inner.lock().unwrap();
        drop(
            self.changed
                .wait_while(inner, |inner| inner.observed.contains(&RunState::Running))
                .unwrap(),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_transition() {
        use RunEvent::{Pause, Resume, Stop};
        use RunState::{Paused, Running, Stopped};
        let table = [
            (Running, Resume, Running),
            (Running, Pause, Paused),
            (Running, Stop, Stopped),
            (Paused, Resume, Running),
            (Paused, Pause, Paused),
            (Paused, Stop, Stopped),
            (Stopped, Resume, Stopped),
            (Stopped, Pause, Stopped),
            (Stopped, Stop, Stopped),
        ];
        for (from, event, to) in table {
            assert_eq!(from.transition(event), to, "{from:?} {event:?}");
        }
    }

    #[test]
    fn nobody_waits_for_a_thread_that_is_gone() {
        let control = RunControl::new(1);
        control.apply(RunEvent::Resume);
        assert!(control.may_run(0));
        control.leave(0);
        control.wait_quiet();
    }

    #[test]
    fn threads_follow_the_target() {
        let control = Arc::new(RunControl::new(2));
        let threads: Vec<_> = (0..2)
            .map(|index| {
                let control = control.clone();
                std::thread::spawn(move || {
                    let mut rounds = 0_u64;
                    while control.may_run(index) {
                        rounds += 1;
                        std::thread::yield_now();
                    }
                    rounds
                })
            })
            .collect();
        for _ in 0..20 {
            control.apply(RunEvent::Resume);
            control.apply(RunEvent::Pause);
            control.wait_quiet();
        }
        control.apply(RunEvent::Stop);
        for thread in threads {
            thread.join().unwrap();
        }
        control.wait_quiet();
    }
}
