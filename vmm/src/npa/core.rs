//! What vCPU threads, the control thread and operators share: the switch, what the guest told
//! us, and what it is shown. Every change goes through [`State`] under one short lock; nothing
//! here does work of its own or waits for the guest.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use npa_abi::protocol::{Command, CommandStatus, GuestError};
use npa_abi::shell_page::QueueDescriptor;
use npa_abi::{ABI, ABI_MIN};
use pf_control::ops::{LeaseId, PciAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::hardware::PoolNews;
use super::history::{History, SwitchKind};
use super::inject::QueueNeeds;
use super::landing::{Registration, Residue, ShellPageError};
use super::outcome::{SwitchError, SwitchFailure};
use super::pursuit::Pursuit;
use super::registers::{GuestRegisters, OfferRegisters, RegisterView, RegisterWrite};
use super::switch::{GuestHalf, Next, Phase, Switch, SwitchEvent, Verdict, Work, transition};
use crate::virtio::PathCounters;
use crate::virtio::pci::Connection;
use crate::vm::GuestRam;

/// Deadlines and pauses of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For the guest to accept an offer.
    pub accept: Duration,
    /// For the guest to start the plugin.
    pub load: Duration,
    /// For the guest to move to the VF.
    pub switch: Duration,
    /// For the guest to drain the VF's transmits.
    pub drain: Duration,
    /// For the guest to quiesce the plugin.
    pub quiesce: Duration,
    /// For the emulated path to deliver what it holds.
    pub path_drain: Duration,
    /// Between two attempts to reach a VF daemon that is away.
    pub retry: Duration,
    /// How long a guest's reset waits until its VF is stopped.
    pub reset: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            accept: Duration::from_secs(2),
            load: Duration::from_secs(4),
            switch: Duration::from_secs(2),
            drain: Duration::from_secs(2),
            quiesce: Duration::from_secs(2),
            path_drain: Duration::from_millis(500),
            retry: Duration::from_secs(1),
            reset: Duration::from_secs(1),
        }
    }
}

impl Timing {
    fn of(&self, half: GuestHalf) -> Duration {
        match half {
            GuestHalf::Accept => self.accept,
            GuestHalf::Load => self.load,
            GuestHalf::Switch => self.switch,
            GuestHalf::Drain => self.drain,
            GuestHalf::Quiesce => self.quiesce,
        }
    }
}

/// Longest that an operator waits: above the sum of all bounds of a switch.
const OPERATOR_LIMIT: Duration = Duration::from_secs(60);

/// Longest that a status waits for the VF's counters.
const COUNT_LIMIT: Duration = Duration::from_millis(100);

/// Complaints about one guest that are logged; a guest must not fill the host's disk.
const COMPLAINTS: u32 = 100;

/// See the module.
pub(super) struct Core {
    /// Name of the device in log and status.
    pub(super) id: String,
    pub(super) class: u16,
    pub(super) landing_length: u32,
    pub(super) timing: Timing,
    pub(super) ram: GuestRam,
    /// Known once the device is on the bus.
    pub(super) connection: OnceLock<Connection>,
    /// Wakes the control thread.
    pub(super) wake: EventFd,
    state: Mutex<State>,
    changed: Condvar,
}

/// See [`Core`].
pub(super) struct State {
    pub(super) switch: Switch,
    pub(super) guest: GuestRegisters,
    pub(super) command_status: CommandStatus,
    pub(super) offer: OfferRegisters,
    pub(super) registration: Option<Registration>,
    /// What of ours may be in the guest's landing.
    pub(super) residue: Option<Residue>,
    /// What the plugin needs of the queues.
    pub(super) needs: QueueNeeds,
    pub(super) queues: Vec<QueueDescriptor>,
    /// Work that the control thread has not yet begun.
    pub(super) work: Option<Work>,
    /// Counts pieces of work: tells the control thread that its present one is superseded.
    pub(super) epoch: u64,
    pub(super) deadline: Option<Instant>,
    /// The guest asked for a detach that has not begun.
    pub(super) detach_asked: bool,
    /// The lease that the pool wants back.
    pub(super) wanted_back: Option<LeaseId>,
    /// A guest that was reset may not reuse its memory before this is false.
    pub(super) vf_may_write: bool,
    pub(super) lease: Option<LeaseId>,
    pub(super) vf: Option<PciAddress>,
    pub(super) plugin: Option<(String, String)>,
    /// A VF that the daemon could not take back yet.
    pub(super) release_pending: bool,
    /// The device was on a VF before something else needed it emulated; it gets one back.
    pub(super) wants_vf: bool,
    /// When it is tried again to give it that VF.
    pub(super) pursuit: Pursuit,
    /// A VF wrote to guest memory in ways that the guest has not marked.
    pub(super) unmarked: bool,
    /// Something else needs the device emulated: no attach until that is over.
    pub(super) reserved: bool,
    pub(super) stop: bool,
    /// What VFs carried, all of them together.
    pub(super) vf_traffic: PathCounters,
    /// Somebody waits for [`State::vf_traffic`] to be brought up to date.
    pub(super) count_asked: bool,
    pub(super) history: History,
    pub(super) last_failure: Option<SwitchFailure>,
    failure: Option<SwitchFailure>,
    phase_since: Instant,
    switch_since: Instant,
    /// Counts switches that ended.
    ended: u64,
    complaints: u32,
}

impl Core {
    pub(super) fn new(
        id: String,
        class: u16,
        landing_length: u32,
        timing: Timing,
        ram: GuestRam,
    ) -> std::io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            id,
            class,
            landing_length,
            timing,
            ram,
            connection: OnceLock::new(),
            wake: EventFd::new(EFD_NONBLOCK)?,
            state: Mutex::new(State {
                switch: Switch::default(),
                guest: GuestRegisters::default(),
                command_status: CommandStatus::Ok,
                offer: OfferRegisters::default(),
                registration: None,
                residue: None,
                needs: QueueNeeds::default(),
                queues: Vec::new(),
                work: None,
                epoch: 0,
                deadline: None,
                detach_asked: false,
                wanted_back: None,
                vf_may_write: false,
                lease: None,
                vf: None,
                plugin: None,
                release_pending: false,
                wants_vf: false,
                pursuit: Pursuit::default(),
                unmarked: false,
                reserved: false,
                stop: false,
                vf_traffic: PathCounters::default(),
                count_asked: false,
                history: History::default(),
                last_failure: None,
                failure: None,
                phase_since: now,
                switch_since: now,
                ended: 0,
                complaints: 0,
            }),
            changed: Condvar::new(),
        })
    }

    /// A poisoned lock means that a thread panicked between two complete changes; the state
    /// itself is whole.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for a change of the state.
    pub(super) fn announce(&self) {
        self.changed.notify_all();
    }

    pub(super) fn wake(&self) {
        // EAGAIN means that it is awake already.
        drop(self.wake.write(1));
    }

    /// Applies an event; `why` is kept if it turns the switch back.
    pub(super) fn apply(
        &self,
        state: &mut State,
        event: SwitchEvent,
        why: Option<SwitchFailure>,
    ) -> Next {
        let before = state.switch.phase();
        let next = state.switch.apply(event);
        // The VF's rings are set up anew, and nobody looks at what was in them.
        state.unmarked |= event == SwitchEvent::VfReset && next.verdict == Verdict::Taken;
        if next.verdict != Verdict::Taken {
            tracing::debug!(device = self.id, phase = %before, ?event, verdict = ?next.verdict);
            return next;
        }
        if next.phase != before {
            self.entered(state, before, next.phase, event, why);
        }
        if let Some(work) = next.work {
            state.epoch += 1;
            state.work = Some(work);
            self.wake();
        }
        self.changed.notify_all();
        next
    }

    /// Books a change of phase.
    fn entered(
        &self,
        state: &mut State,
        from: Phase,
        to: Phase,
        event: SwitchEvent,
        why: Option<SwitchFailure>,
    ) {
        let now = Instant::now();
        let in_phase = now - state.phase_since;
        state.phase_since = now;
        if from.at_rest() && !to.at_rest() {
            state.switch_since = now;
            state.failure = None;
            let kind = match to {
                Phase::Preparing => SwitchKind::Attach,
                Phase::Draining => SwitchKind::Detach,
                _ => SwitchKind::Revoke,
            };
            state.history.begin(kind, state.switch.generation());
        }
        if let Some(half) = from.guest_half() {
            state.history.step(guest_step(half), in_phase);
        }
        let settled = from.is_settled();
        let turned_back = matches!(to, Phase::Revoking(_) | Phase::Withdrawing { .. }) && !settled;
        state.unmarked |= turned_back && from.holds_vf();
        if turned_back && state.failure.is_none() {
            state.failure = why;
        }
        let failure = state.failure.as_ref().map(tracing::field::display);
        tracing::info!(
            device = self.id,
            from = %from,
            to = %to,
            ?event,
            generation = state.switch.generation(),
            after_us = in_phase.as_micros() as u64,
            failure,
        );
        if to == Phase::Offered {
            state.history.offered(state.switch.generation());
        }
        if to.is_settled() || turned_back {
            state.offer = OfferRegisters::default();
        }
        if from == Phase::Unregistered {
            // The guest's shell has come, which a wish may have waited for.
            state.pursuit.hurry(self.timing.retry);
        }
        if to == Phase::Active {
            state.wants_vf = false;
            state.pursuit = Pursuit::default();
        }
        if to.at_rest() && !from.at_rest() {
            state.last_failure = state.failure.take();
            state.wanted_back = None;
            let may_get_one = state.last_failure.as_ref().is_none_or(SwitchFailure::may_pass);
            if state.wants_vf && !state.reserved && may_get_one {
                // Where a VF was given back, another one may be free at once.
                let failed = state.last_failure.is_some();
                let pause = if failed { self.timing.retry } else { Duration::ZERO };
                state.pursuit.put_off(now, pause);
            }
            let reason = state.last_failure.as_ref().map(ToString::to_string);
            state.history.end(now - state.switch_since, reason);
            state.ended += 1;
        }
        state.deadline = to.guest_half().map(|half| now + self.timing.of(half));
    }

    /// Revokes if the guest's time is up.
    pub(super) fn check_deadline(&self, state: &mut State) {
        if state.deadline.is_none_or(|deadline| Instant::now() < deadline) {
            return;
        }
        state.deadline = None;
        if let Some(half) = state.switch.phase().guest_half() {
            let limit = self.timing.of(half);
            let why = SwitchFailure::Deadline { half, limit };
            self.apply(state, SwitchEvent::Deadline, Some(why));
        }
    }

    /// Tries again to give the device the VF that it wants, if it is time.
    pub(super) fn pursue(&self, state: &mut State) {
        let now = Instant::now();
        if !state.pursuit.take(now) || !state.wants_vf || state.reserved {
            return;
        }
        if self.apply(state, SwitchEvent::Attach, None).verdict != Verdict::Taken {
            // The shell is not there at present, or a switch is under way.
            state.pursuit.put_off(now, self.timing.retry);
        }
    }

    /// What the pool says of itself.
    pub(super) fn heed(&self, news: PoolNews) {
        let mut state = self.lock();
        match news {
            PoolNews::WantedBack(lease, true) => state.wanted_back = Some(lease),
            PoolNews::WantedBack(lease, false) => {
                state.wanted_back.take_if(|wanted| *wanted == lease);
            }
            PoolNews::Free => state.pursuit.hurry(self.timing.retry),
            PoolNews::Silence => return,
        }
        drop(state);
        self.wake();
    }

    /// The state with the VF's traffic counted up to now, or to shortly before when the control
    /// thread is busy.
    pub(super) fn lock_counted(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if !state.switch.phase().holds_vf() {
            return state;
        }
        state.count_asked = true;
        self.wake();
        self.changed
            .wait_timeout_while(state, COUNT_LIMIT, |state| state.count_asked)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// What the register page shows.
    pub(super) fn view(&self) -> RegisterView {
        let state = self.lock();
        let phase = state.switch.phase();
        let limit = phase.guest_half().map_or(Duration::ZERO, |half| self.timing.of(half));
        RegisterView {
            class: self.class,
            guest: state.guest,
            command_status: state.command_status,
            state: state.switch.view(),
            generation: state.switch.generation(),
            deadline_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
            landing_length: self.landing_length,
            vector_base: self.connection.get().map_or(0, |connection| connection.first_extra),
            reset_count: state.switch.resets(),
            offer: state.offer,
        }
    }

    /// A write to the register page.
    pub(super) fn write(&self, write: RegisterWrite) {
        let mut state = self.lock();
        let page = &mut state.guest.shell_page;
        match write {
            RegisterWrite::GuestAbi(value) => state.guest.abi = value,
            RegisterWrite::ShellPageLow(value) => {
                *page = *page & !u64::from(u32::MAX) | u64::from(value);
            }
            RegisterWrite::ShellPageHigh(value) => {
                *page = *page & u64::from(u32::MAX) | u64::from(value) << 32;
            }
            RegisterWrite::GuestError(value) if state.registration.is_some() => {
                state.guest.error = value;
            }
            RegisterWrite::GuestError(_) | RegisterWrite::Nothing => {}
            RegisterWrite::Command { command, generation } => {
                let status = match command {
                    Some(command) => self.command(&mut state, command, generation),
                    None => CommandStatus::Unknown,
                };
                if status != CommandStatus::Ok {
                    tracing::debug!(device = self.id, ?command, ?status, "command refused");
                }
                state.command_status = status;
            }
        }
    }

    /// Judges a command and applies it.
    fn command(&self, state: &mut State, command: Command, generation: u16) -> CommandStatus {
        let event = SwitchEvent::of_command(command);
        let stale = state.switch.generation() as u16 != generation;
        match command {
            Command::Register => return self.register(state),
            Command::Unregister => {}
            _ if state.registration.is_none() => return CommandStatus::NotRegistered,
            _ if stale => return CommandStatus::Stale,
            // Memory is read only where the answer matters.
            Command::Ready if transition(state.switch.phase(), event).verdict == Verdict::Taken => {
                match self.read_queues(state) {
                    Ok(queues) => state.queues = queues,
                    Err(error) => {
                        self.complain(state, &error);
                        return CommandStatus::BadQueues;
                    }
                }
            }
            _ => {}
        }
        let why = match command {
            Command::Fail => {
                Some(SwitchFailure::Guest { error: GuestError::from_code(state.guest.error) })
            }
            Command::Unregister => Some(SwitchFailure::GuestReset),
            _ => None,
        };
        let next = self.apply(state, event, why);
        if next.verdict == Verdict::Taken {
            match command {
                Command::Unregister => state.registration = None,
                Command::RequestDetach => {
                    state.detach_asked = true;
                    self.wake();
                }
                _ => {}
            }
        }
        next.verdict.command_status()
    }

    fn register(&self, state: &mut State) -> CommandStatus {
        let event = SwitchEvent::GuestRegister;
        let verdict = transition(state.switch.phase(), event).verdict;
        if verdict != Verdict::Taken {
            return verdict.command_status();
        }
        let abi = state.guest.abi;
        if !(u32::from(ABI_MIN)..=u32::from(ABI)).contains(&abi) {
            return CommandStatus::WrongAbi;
        }
        let page = state.guest.shell_page;
        let residue = state.residue.as_ref();
        match Registration::read(&self.ram, page, self.landing_length, residue) {
            Ok(registration) => {
                state.registration = Some(registration);
                self.apply(state, event, None).verdict.command_status()
            }
            Err(error) => {
                self.complain(state, &error);
                if error.is_landing() {
                    CommandStatus::BadLanding
                } else {
                    CommandStatus::BadShellPage
                }
            }
        }
    }

    fn read_queues(&self, state: &State) -> Result<Vec<QueueDescriptor>, ShellPageError> {
        let registration = state.registration.as_ref().ok_or(ShellPageError::NotRam(0))?;
        let needs = &state.needs;
        registration.read_queues(&self.ram, needs.count(), |index, queue| needs.fits(index, queue))
    }

    fn complain(&self, state: &mut State, error: &ShellPageError) {
        if state.complaints < COMPLAINTS {
            state.complaints += 1;
            tracing::warn!(device = self.id, %error, "the guest's shell was refused");
        }
    }

    /// The guest's driver reset the device. Returns once no VF can write to the guest's memory
    /// any more, or after [`Timing::reset`].
    pub(super) fn reset(&self) {
        let mut state = self.lock();
        let before = state.switch.phase();
        let next = self.apply(&mut state, SwitchEvent::GuestReset, Some(SwitchFailure::GuestReset));
        state.registration = None;
        state.guest = GuestRegisters::default();
        state.command_status = CommandStatus::Ok;
        state.detach_asked = false;
        // Before `Loading` the VF knows nothing of this guest's memory.
        let idle = before.at_rest() && before != Phase::Active;
        if next.work.is_none()
            || idle
            || matches!(before, Phase::Preparing | Phase::Offered | Phase::Failed { .. })
        {
            return;
        }
        state.vf_may_write = true;
        let (_state, timeout) = self
            .changed
            .wait_timeout_while(state, self.timing.reset, |state| state.vf_may_write)
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            tracing::error!(device = self.id, "the VF could not be stopped before the reset ended");
        }
    }

    /// Waits until no switch is under way.
    ///
    /// # Errors
    /// [`SwitchError::TimedOut`].
    pub(super) fn wait_for_rest(&self) -> Result<(), SwitchError> {
        let (_state, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), OPERATOR_LIMIT, |state| {
                !state.switch.phase().at_rest()
            })
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() { Err(SwitchError::TimedOut(OPERATOR_LIMIT)) } else { Ok(()) }
    }

    /// Asks for `event` and waits until the switch that it begins has ended, or is `far_enough`.
    pub(super) fn request(
        &self,
        event: SwitchEvent,
        far_enough: impl Fn(Phase) -> bool,
    ) -> Result<(), SwitchError> {
        let mut state = self.lock();
        if state.reserved && event == SwitchEvent::Attach {
            return Err(SwitchError::Reserved);
        }
        let verdict = self.apply(&mut state, event, None).verdict;
        if let Verdict::Refused(refusal) = verdict {
            return Err(SwitchError::refused(refusal));
        }
        let before = state.ended;
        let (mut state, timeout) = self
            .changed
            .wait_timeout_while(state, OPERATOR_LIMIT, |state| {
                state.ended == before && !far_enough(state.switch.phase())
            })
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return Err(SwitchError::TimedOut(OPERATOR_LIMIT));
        }
        if state.ended == before {
            return Ok(());
        }
        match (event, state.last_failure.clone()) {
            (_, None) => Ok(()),
            (SwitchEvent::Attach, Some(failure)) => Err(SwitchError::AttachFailed(failure)),
            (_, Some(failure)) => {
                state.detach_asked = false;
                Err(SwitchError::Forced(failure))
            }
        }
    }
}

/// Name of the guest's half among the steps of a switch.
const fn guest_step(half: GuestHalf) -> &'static str {
    match half {
        GuestHalf::Accept => "guest-accept",
        GuestHalf::Load => "guest-load",
        GuestHalf::Switch => "guest-switch",
        GuestHalf::Drain => "guest-drain",
        GuestHalf::Quiesce => "guest-quiesce",
    }
}
