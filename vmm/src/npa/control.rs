//! The control thread of one device: runs the switch's work, its deadlines, and the VF's events.
//! It is the only thread that talks to the VF, the daemon and the guest's landing; it never waits
//! for the guest.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pf_control::vf_control::VfEvent;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::actions::{Executor, Hardware};
use super::core::Core;
use super::hardware::VfPool;
use super::outcome::{SwitchFailure, chain, pool_ready};
use super::switch::{OnFailure, Phase, SwitchAction, SwitchEvent, Work};
use super::window::Window;

use crate::sandbox::{self, Role};

/// The thread, stopped and joined on drop. A VF that is still held is then given back.
pub(super) struct Control {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    pub(super) fn spawn(
        core: Arc<Core>,
        hardware: Hardware,
        window: Arc<Mutex<Window>>,
    ) -> io::Result<Self> {
        let executor = Executor::new(Arc::clone(&core), hardware, window);
        let control = Loop { core: Arc::clone(&core), executor, retry_at: None };
        let pool = Arc::clone(control.executor.pool());
        let follower = Arc::downgrade(&core);
        std::thread::Builder::new()
            .name(format!("pool-{}", core.id))
            .spawn(move || follow(pool.as_ref(), &follower))?;
        let thread =
            std::thread::Builder::new().name(format!("npa-{}", core.id)).spawn(move || {
                sandbox::enter(Role::Control);
                control.run();
            })?;
        Ok(Self { core, thread: Some(thread) })
    }
}

/// Passes on what the pool says of itself, for as long as the device is there. Nobody waits for
/// this thread: it may be asleep.
fn follow(pool: &dyn VfPool, core: &Weak<Core>) {
    /// Pause before the daemon, which is away, is looked for again.
    const ABSENCE: Duration = Duration::from_secs(1);
    sandbox::enter(Role::Control);
    loop {
        let outcome = pool.follow(&mut |news| match core.upgrade() {
            Some(core) => {
                core.heed(news);
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        });
        let Some(core) = core.upgrade() else { return };
        if let Err(error) = outcome {
            tracing::debug!(device = core.id, reason = chain(&error), "the pool is not followed");
        }
        drop(core);
        std::thread::sleep(ABSENCE);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.core.lock().stop = true;
        self.core.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(device = self.core.id, "the control thread panicked");
        }
    }
}

struct Loop {
    core: Arc<Core>,
    executor: Executor,
    /// When to try again what the daemon could not do.
    retry_at: Option<Instant>,
}

impl Loop {
    fn run(mut self) {
        loop {
            let mut state = self.core.lock();
            if state.stop {
                drop(state);
                return self.give_back();
            }
            if let Some(work) = state.work.take() {
                let epoch = state.epoch;
                drop(state);
                self.perform(work, epoch);
                continue;
            }
            self.core.check_deadline(&mut state);
            self.core.pursue(&mut state);
            let counting = state.count_asked;
            if state.work.is_some() {
                continue;
            }
            let deadline = [state.deadline, state.pursuit.due()].into_iter().flatten().min();
            drop(state);
            if counting {
                self.executor.count_traffic();
                self.core.lock().count_asked = false;
                self.core.announce();
            }
            self.retry();
            self.wait(deadline);
            self.take_vf_events();
        }
    }

    /// Does `work` until it is done, superseded, or aborted.
    fn perform(&mut self, work: Work, epoch: u64) {
        for &action in work.actions {
            if self.core.lock().epoch != epoch {
                return;
            }
            let began = Instant::now();
            let result = self.executor.run(action);
            let took = began.elapsed();
            tracing::debug!(
                device = self.core.id,
                step = action.name(),
                us = took.as_micros() as u64
            );
            let mut state = self.core.lock();
            state.history.step(action.name(), took);
            if action == SwitchAction::StopVf {
                state.vf_may_write = false;
                self.core.announce();
            }
            let Err(error) = result else { continue };
            let reason = chain(&error);
            match work.on_failure {
                OnFailure::Continue => {
                    tracing::warn!(device = self.core.id, step = action.name(), reason);
                }
                OnFailure::Abort => {
                    if state.epoch == epoch {
                        let why = SwitchFailure::Step { action, reason };
                        self.core.apply(&mut state, SwitchEvent::StepFailed, Some(why));
                    }
                    return;
                }
            }
        }
        let mut state = self.core.lock();
        if state.epoch == epoch
            && let Some(then) = work.then
        {
            self.core.apply(&mut state, then, None);
        }
    }

    /// What waits for the daemon: VFs to give back, and a detach that the guest or the daemon asked
    /// for.
    fn retry(&mut self) {
        let (asked, lease) = {
            let mut state = self.core.lock();
            let active = state.switch.phase() == Phase::Active;
            state.detach_asked &= active;
            let wanted_back = active && state.wanted_back.is_some_and(|it| Some(it) == state.lease);
            (state.detach_asked || wanted_back, state.lease)
        };
        if !asked && !self.executor.has_unreleased() {
            self.retry_at = None;
            return;
        }
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = Some(now + self.core.timing.retry);
        if self.executor.has_unreleased() {
            self.executor.retry_release();
        }
        if asked {
            match pool_ready(self.executor.pool().as_ref(), lease) {
                Ok(()) => {
                    let mut state = self.core.lock();
                    // A guest that wants to be off its VF is not put on another one.
                    state.wants_vf |= !std::mem::take(&mut state.detach_asked);
                    self.core.apply(&mut state, SwitchEvent::Detach, None);
                }
                Err(error) => tracing::warn!(
                    device = self.core.id,
                    reason = chain(&error),
                    "a detach has to wait"
                ),
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self, deadline: Option<Instant>) {
        if let Err(error) = self.sleep(deadline) {
            tracing::error!(device = self.core.id, %error, "control thread");
        }
        // Emptied before the state is looked at, so that no signal is lost.
        drop(self.core.wake.read());
    }

    fn sleep(&self, deadline: Option<Instant>) -> io::Result<()> {
        let until = [deadline, self.retry_at].into_iter().flatten().min();
        // Rounded up, so that a deadline has passed when the thread looks at it.
        let timeout = until.map_or(-1, |until| {
            let left = until.saturating_duration_since(Instant::now());
            i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX)
        });
        // The descriptors change with every VF, and this is no hot path.
        let epoll = Epoll::new()?;
        let wake = self.core.wake.as_raw_fd();
        for fd in std::iter::once(wake).chain(self.executor.signals()) {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))?;
        }
        match epoll.wait(timeout, &mut [EpollEvent::default()]) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn take_vf_events(&mut self) {
        while let Some(event) = self.executor.poll_event() {
            let (event, why) = match event {
                VfEvent::ResetBegan => {
                    tracing::warn!(device = self.core.id, "the PF is being reset");
                    continue;
                }
                VfEvent::LinkChanged { up } => {
                    tracing::info!(device = self.core.id, up, "the VF's link changed");
                    continue;
                }
                VfEvent::ResetDone => (SwitchEvent::VfReset, "its PF was reset"),
                VfEvent::Gone => (SwitchEvent::VfLost, "it was taken out of the machine"),
            };
            tracing::warn!(device = self.core.id, why, "VF");
            let mut state = self.core.lock();
            self.core.apply(&mut state, event, Some(SwitchFailure::Vf(why)));
            if state.work.is_some() {
                return;
            }
        }
    }

    /// The VM ends: everything of [`super::switch`]'s way back that needs no guest.
    fn give_back(mut self) {
        use SwitchAction as A;
        let way_back = [
            A::MapDeadPage,
            A::StopVf,
            A::ServePath,
            A::PfQuiesce,
            A::UnwireVectors,
            A::CloseVf,
            A::Release,
        ];
        if !self.core.lock().switch.phase().holds_vf() {
            return;
        }
        for action in way_back {
            if let Err(error) = self.executor.run(action) {
                let reason = chain(&error);
                tracing::warn!(device = self.core.id, step = action.name(), reason);
            }
        }
    }
}
