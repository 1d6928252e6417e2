//! The transition function.

use npa_abi::protocol::{CommandStatus, HostView};

use super::SwitchAction as A;
use super::{Phase, SwitchAction, SwitchEvent};

/// What follows an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Next {
    /// The new phase, in force at once.
    pub phase: Phase,
    /// What the control thread is to do. `None` leaves it at what it is doing.
    pub work: Option<Work>,
    /// What to answer to whoever brought the event about.
    pub verdict: Verdict,
}

/// A list of actions for the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    /// What to do, in order.
    pub actions: &'static [SwitchAction],
    /// The event to apply once all is done.
    pub then: Option<SwitchEvent>,
    /// What a failing action means.
    pub on_failure: OnFailure,
}

/// What a failing action means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// The rest is given up and [`SwitchEvent::StepFailed`] applied.
    Abort,
    /// The failure is reported and the rest is done all the same: this is the way back, and
    /// nothing on it may keep a VF from its pool.
    Continue,
}

/// The answer to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The event took effect.
    Taken,
    /// A guest or operator asked for what the phase does not allow; nothing changed.
    Refused(Refusal),
    /// The host's own event means nothing in this phase; nothing changed.
    Ignored,
}

/// Why an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No shell is registered.
    NotRegistered,
    /// The guest's command does not fit the state that it sees.
    WrongState,
    /// The device is on a VF already.
    AlreadyAttached,
    /// The device is not on a VF.
    NotAttached,
    /// A switch is under way.
    Busy,
    /// The guest has not yet cleaned up after a failed switch.
    GuestNotClean,
}

impl Verdict {
    /// What the guest reads in the command status register.
    pub const fn command_status(self) -> CommandStatus {
        match self {
            Self::Taken => CommandStatus::Ok,
            Self::Refused(Refusal::NotRegistered) => CommandStatus::NotRegistered,
            Self::Refused(_) | Self::Ignored => CommandStatus::WrongState,
        }
    }
}

const PREPARE: Work =
    forward(&[A::Acquire, A::OpenVf, A::InitVf, A::LoadPlugin], SwitchEvent::Prepared);
const LOAD: Work =
    forward(&[A::WriteLanding, A::MapWindow, A::WireVectors], SwitchEvent::LandingWritten);
const MOVE: Work = forward(
    &[A::PfInit, A::StartQueues, A::AdmitVf, A::PfActivate, A::DrainPath],
    SwitchEvent::PathMoved,
);
const RETURN: Work =
    forward(&[A::ServePath, A::PfQuiesce, A::DismissVf], SwitchEvent::PathReturned);
const STAND_BY: Work =
    Work { actions: &[A::StandbyPath], then: None, on_failure: OnFailure::Abort };
/// The VF comes up again under the plugin, which then sets up its rings anew.
const RECOVER: Work = forward(&[A::InitVf], SwitchEvent::VfRecovered);
const NOTIFY: Work = Work { actions: &[A::Notify], then: None, on_failure: OnFailure::Continue };

/// After the guest's own quiesce: the landing is filled again while the guest still sees
/// `Quiescing`, since it may free the landing once it sees `Emulated`.
const RETIRE: Work = backward(
    &[A::MapDeadPage, A::StopVf, A::UnwireVectors, A::RestoreLanding],
    SwitchEvent::Retired,
);

/// The slow rest, for which neither the guest nor a migration needs to wait.
const PUT_AWAY: Work = backward(&[A::Notify, A::CloseVf, A::Release], SwitchEvent::Released);

/// A revoke before address and forwarding moved.
const REVOKE_UNMOVED: Work =
    backward(&[A::MapDeadPage, A::StopVf, A::SetRevoked, A::UnwireVectors], SwitchEvent::Revoked);

/// A revoke of a VF that has, or may have, the address: the emulated path serves before the
/// address comes back to it.
const REVOKE_MOVED: Work = backward(
    &[A::MapDeadPage, A::StopVf, A::SetRevoked, A::ServePath, A::PfQuiesce, A::UnwireVectors],
    SwitchEvent::Revoked,
);

/// The guest never saw the VF, or has given it up.
const WITHDRAW_UNSEEN: Work = backward(&[A::StopVf, A::CloseVf, A::Release], SwitchEvent::Released);

/// The guest was reset under a VF: as a revoke, but its memory is no longer the shell's and must
/// not be written.
const WITHDRAW_UNMOVED: Work = backward(
    &[A::MapDeadPage, A::StopVf, A::UnwireVectors, A::CloseVf, A::Release],
    SwitchEvent::Released,
);

/// See [`WITHDRAW_UNMOVED`] and [`REVOKE_MOVED`].
const WITHDRAW_MOVED: Work = backward(
    &[
        A::MapDeadPage,
        A::StopVf,
        A::ServePath,
        A::PfQuiesce,
        A::UnwireVectors,
        A::CloseVf,
        A::Release,
    ],
    SwitchEvent::Released,
);

const fn forward(actions: &'static [SwitchAction], then: SwitchEvent) -> Work {
    Work { actions, then: Some(then), on_failure: OnFailure::Abort }
}

const fn backward(actions: &'static [SwitchAction], then: SwitchEvent) -> Work {
    Work { actions, then: Some(then), on_failure: OnFailure::Continue }
}

const fn to(phase: Phase) -> Next {
    Next { phase, work: None, verdict: Verdict::Taken }
}

const fn to_do(phase: Phase, work: Work) -> Next {
    Next { phase, work: Some(work), verdict: Verdict::Taken }
}

const fn stay(phase: Phase, verdict: Verdict) -> Next {
    Next { phase, work: None, verdict }
}

/// What follows `event` in `phase`. Total: every pair has one answer.
pub const fn transition(phase: Phase, event: SwitchEvent) -> Next {
    use Phase as P;
    use SwitchEvent as E;
    match (phase, event) {
        // Registration. `Preparing`, `Closing` and `Withdrawing` look like `Emulated` to the guest.
        (P::Unregistered | P::Emulated, E::GuestRegister) => to(P::Emulated),
        (P::Preparing, E::GuestRegister) => to(P::Preparing),
        (P::Closing, E::GuestRegister) => to(P::Closing),
        (P::Withdrawing { .. }, E::GuestRegister) => to(P::Withdrawing { registered: true }),
        (P::Emulated | P::Failed { held: false }, E::GuestUnregister) => to(P::Unregistered),
        (P::Preparing | P::Failed { held: true }, E::GuestUnregister) => {
            to_do(P::Withdrawing { registered: false }, WITHDRAW_UNSEEN)
        }
        (P::Closing | P::Withdrawing { registered: true }, E::GuestUnregister) => {
            to(P::Withdrawing { registered: false })
        }

        // Attach.
        (P::Emulated, E::Attach) => to_do(P::Preparing, PREPARE),
        (P::Preparing, E::Prepared) => to_do(P::Offered, NOTIFY),
        (P::Offered, E::GuestAccept) => to_do(P::Loading, LOAD),
        (P::Loading, E::LandingWritten) => to_do(P::Landed, NOTIFY),
        (P::Landed, E::GuestReady) => to_do(P::Moving, MOVE),
        (P::Moving, E::PathMoved) => to_do(P::Granted, NOTIFY),
        (P::Granted, E::GuestSwitched) => to_do(P::Active, STAND_BY),

        // Detach.
        (P::Active, E::Detach) => to_do(P::Draining, NOTIFY),
        (P::Active, E::GuestRequestDetach) => to(P::Active),
        (P::Draining, E::GuestTxDrained) => to_do(P::Returning, RETURN),
        (P::Returning, E::PathReturned) => to_do(P::Returned, NOTIFY),
        (P::Returned, E::GuestQuiesced) => to_do(P::Releasing, RETIRE),
        (P::Releasing, E::Retired) => to_do(P::Closing, PUT_AWAY),
        (P::Closing, E::Released) => to(P::Emulated),

        // The PF was reset. Where the guest just waits for nothing, the plugin can set up its rings
        // again; in the middle of a switch, nobody could tell which of its steps still hold.
        (P::Active, E::VfReset) => to_do(P::Active, RECOVER),
        (P::Active, E::VfRecovered) => to_do(P::Active, NOTIFY),

        // An attach that fails before the guest knows of it.
        (P::Preparing, E::StepFailed | E::VfLost | E::VfReset) => {
            to_do(P::Withdrawing { registered: true }, WITHDRAW_UNSEEN)
        }
        (P::Withdrawing { registered: true }, E::Released) => to(P::Emulated),
        (P::Withdrawing { registered: false }, E::Released) => to(P::Unregistered),

        // Forced revoke.
        (
            P::Offered | P::Landed,
            E::Deadline | E::GuestFail | E::VfLost | E::VfReset | E::StepFailed,
        )
        | (P::Loading, E::GuestFail | E::VfLost | E::VfReset | E::StepFailed) => {
            to_do(P::Revoking(phase.view()), REVOKE_UNMOVED)
        }
        (
            P::Granted | P::Draining | P::Returned,
            E::Deadline | E::GuestFail | E::VfLost | E::VfReset | E::StepFailed,
        )
        | (P::Moving | P::Returning, E::GuestFail | E::VfLost | E::VfReset | E::StepFailed)
        | (P::Active, E::GuestFail | E::VfLost | E::StepFailed) => {
            to_do(P::Revoking(phase.view()), REVOKE_MOVED)
        }
        (P::Revoking(_), E::Revoked) => to_do(P::Failed { held: true }, PUT_AWAY),
        (P::Failed { held: true }, E::Released) => to(P::Failed { held: false }),
        (P::Failed { held: false }, E::GuestCleaned) => to(P::Emulated),
        (P::Failed { held: true }, E::GuestCleaned) => {
            to_do(P::Withdrawing { registered: true }, WITHDRAW_UNSEEN)
        }

        // The guest is gone.
        (P::Unregistered | P::Emulated | P::Failed { held: false }, E::GuestReset) => {
            to(P::Unregistered)
        }
        (P::Preparing | P::Failed { held: true }, E::GuestReset) => {
            to_do(P::Withdrawing { registered: false }, WITHDRAW_UNSEEN)
        }
        (P::Closing | P::Withdrawing { .. }, E::GuestReset) => {
            to(P::Withdrawing { registered: false })
        }
        (P::Offered | P::Loading | P::Landed, E::GuestReset) => {
            to_do(P::Withdrawing { registered: false }, WITHDRAW_UNMOVED)
        }
        (
            P::Moving
            | P::Granted
            | P::Active
            | P::Draining
            | P::Returning
            | P::Returned
            | P::Releasing
            | P::Revoking(_),
            E::GuestReset,
        ) => to_do(P::Withdrawing { registered: false }, WITHDRAW_MOVED),

        // Everything else is refused or means nothing here.
        (phase, E::Attach | E::Detach) => stay(phase, Verdict::Refused(operator(phase, event))),
        (
            phase,
            E::Prepared
            | E::LandingWritten
            | E::PathMoved
            | E::PathReturned
            | E::Revoked
            | E::Retired
            | E::Released
            | E::StepFailed
            | E::Deadline
            | E::VfLost
            | E::VfReset
            | E::VfRecovered,
        ) => stay(phase, Verdict::Ignored),
        (
            phase,
            E::GuestRegister
            | E::GuestUnregister
            | E::GuestAccept
            | E::GuestReady
            | E::GuestSwitched
            | E::GuestTxDrained
            | E::GuestQuiesced
            | E::GuestFail
            | E::GuestCleaned
            | E::GuestRequestDetach,
        ) => {
            let refusal =
                if phase.registered() { Refusal::WrongState } else { Refusal::NotRegistered };
            stay(phase, Verdict::Refused(refusal))
        }
    }
}

const fn operator(phase: Phase, event: SwitchEvent) -> Refusal {
    match phase {
        Phase::Unregistered => {
            if matches!(event, SwitchEvent::Attach) {
                Refusal::NotRegistered
            } else {
                Refusal::NotAttached
            }
        }
        Phase::Emulated => Refusal::NotAttached,
        // What was to be detached is; only the VF is not back yet.
        Phase::Closing if matches!(event, SwitchEvent::Detach) => Refusal::NotAttached,
        Phase::Active => Refusal::AlreadyAttached,
        Phase::Failed { held: false } => {
            if matches!(event, SwitchEvent::Attach) {
                Refusal::GuestNotClean
            } else {
                Refusal::NotAttached
            }
        }
        _ => Refusal::Busy,
    }
}

/// A switch: its phase, and the two counters that the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Switch {
    phase: Phase,
    generation: u32,
    resets: u32,
}

impl Default for Switch {
    fn default() -> Self {
        Self { phase: Phase::Unregistered, generation: 0, resets: 0 }
    }
}

impl Switch {
    /// A switch that rests in `phase` with these counters, as it was saved elsewhere.
    pub const fn at(phase: Phase, generation: u32, resets: u32) -> Self {
        Self { phase, generation, resets }
    }

    /// The phase.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// What the guest reads in the state register.
    pub const fn view(&self) -> HostView {
        self.phase.view()
    }

    /// Number of the present or last offer, from 1; 0 before the first.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// How many times the guest lost a VF by force, or had it reset.
    pub const fn resets(&self) -> u32 {
        self.resets
    }

    /// Applies an event. Generation and reset count change together with the phase, so that no
    /// reader sees an offer under the number of the one before.
    pub const fn apply(&mut self, event: SwitchEvent) -> Next {
        let next = transition(self.phase, event);
        if matches!(next.phase, Phase::Offered) && !matches!(self.phase, Phase::Offered) {
            // Zero means "no offer" and "nothing revoked", so the count skips it.
            self.generation = match self.generation.wrapping_add(1) {
                0 => 1,
                count => count,
            };
        }
        // Not before: a shell that sees the count move sets up the VF's rings again, unless it
        // sees that the VF is gone.
        if matches!((self.phase, event), (Phase::Revoking(_), SwitchEvent::Revoked))
            || matches!((self.phase, event), (Phase::Active, SwitchEvent::VfRecovered))
        {
            self.resets = self.resets.wrapping_add(1);
        }
        self.phase = next.phase;
        next
    }
}
