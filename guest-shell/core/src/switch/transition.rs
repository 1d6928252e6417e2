//! The transition function. It is total: every event has an answer in every state, and repeating
//! an observation changes nothing.

use super::state::ShellAction as A;
use super::state::{Next, ShellEvent, ShellState as S};
use npa_abi::protocol::{Command, CommandStatus, HostView, State};

/// What an observation means to a shell that has adopted an offer.
#[derive(Clone, Copy)]
enum Sight {
    /// The offer is over: the VF is gone.
    Over,
    /// The host is at this point of the adopted offer.
    At(State, bool),
}

const fn sight(view: HostView, same_generation: bool) -> Sight {
    match view.state {
        State::Emulated | State::Failed => Sight::Over,
        _ if !same_generation => Sight::Over,
        state => Sight::At(state, view.host_done),
    }
}

/// Answers what the shell does next.
pub const fn transition(state: S, event: ShellEvent) -> Next {
    match event {
        ShellEvent::Registered => match state {
            S::Unregistered => Next::new(S::Emulated, &[]),
            _ => stay(state),
        },
        ShellEvent::Observed { view, same_generation } => observed(state, view, same_generation),
        ShellEvent::StepDone => step_done(state),
        ShellEvent::StepFailed(_) => failed(state),
        ShellEvent::Refused(status) => refused(state, status),
        ShellEvent::Revoked => match state {
            S::Unregistered | S::Emulated | S::CleaningUp => stay(state),
            _ => give_up(),
        },
        ShellEvent::DeviceReset => {
            if state.has_plugin() {
                Next::new(state, &[A::ReinitRings])
            } else {
                stay(state)
            }
        }
        ShellEvent::Unload => unload(state),
        ShellEvent::Gone => match state {
            S::Unregistered => stay(state),
            _ => Next::new(S::Unregistered, &[A::GiveUp]),
        },
    }
}

const fn stay(state: S) -> Next {
    Next::new(state, &[])
}

const fn give_up() -> Next {
    Next::new(S::CleaningUp, &[A::GiveUp])
}

const fn fail() -> Next {
    Next::new(S::Failing, &[A::StopPlugin, A::Send(Command::Fail)])
}

const fn observed(state: S, view: HostView, same_generation: bool) -> Next {
    // Without an adopted offer only a new offer, or a failure to confirm, matters.
    match state {
        S::Unregistered | S::CleaningUp => return stay(state),
        S::Emulated => {
            return match (view.state, same_generation) {
                (State::Offered, false) => Next::new(S::Preparing, &[A::AdoptOffer, A::Prepare]),
                // An offer that failed before the shell saw it.
                (State::Failed, false) => {
                    Next::new(S::Emulated, &[A::AdoptOffer, A::Send(Command::Cleaned)])
                }
                (State::Failed, true) => Next::new(S::Emulated, &[A::Send(Command::Cleaned)]),
                _ => stay(state),
            };
        }
        _ => {}
    }
    let (host, done) = match sight(view, same_generation) {
        Sight::Over => return give_up(),
        Sight::At(host, done) => (host, done),
    };
    match (state, host) {
        (S::Accepted, State::Loading) if done => Next::new(S::Loading, &[A::Load]),
        (S::Prepared, State::Ready) if done => Next::new(S::Switching, &[A::SwitchToVf]),
        // The way back may begin before the way there has ended.
        (S::Prepared | S::Switching | S::Active, State::Quiescing) => {
            Next::new(S::DrainingTransmit, &[A::DrainTransmit])
        }
        (S::TransmitDrained, State::Quiescing) if done => {
            Next::new(S::DrainingReceive, &[A::DrainReceive])
        }
        // A host that runs ahead of the commands it was given cannot be followed.
        (S::Preparing | S::Accepted | S::Loading, State::Ready)
        | (S::Preparing | S::Accepted | S::Loading | S::Prepared | S::Switching, State::Active)
        | (S::Preparing | S::Accepted | S::Loading, State::Quiescing) => fail(),
        _ => stay(state),
    }
}

const fn step_done(state: S) -> Next {
    match state {
        S::Preparing => Next::new(S::Accepted, &[A::Send(Command::Accept)]),
        S::Loading => Next::new(S::Prepared, &[A::Send(Command::Ready)]),
        S::Switching => Next::new(S::Active, &[A::Send(Command::Switched)]),
        S::DrainingTransmit => Next::new(S::TransmitDrained, &[A::Send(Command::TxDrained)]),
        S::DrainingReceive => Next::new(S::Quiesced, &[A::Send(Command::Quiesced)]),
        // Whether the host waits for `Cleaned` is seen by the next observation.
        S::CleaningUp => Next::new(S::Emulated, &[]),
        _ => stay(state),
    }
}

const fn failed(state: S) -> Next {
    match state {
        // Nothing to fail: no offer, or given up already.
        S::Unregistered | S::Emulated | S::Quiesced | S::Failing => stay(state),
        // Cleaning up cannot fail in a way that another attempt would mend.
        S::CleaningUp => Next::new(S::Emulated, &[]),
        _ => fail(),
    }
}

const fn refused(state: S, status: CommandStatus) -> Next {
    match (state, status) {
        // The host is not where a shell may leave; see what it wants first.
        (S::Unregistered, CommandStatus::WrongState) => Next::new(S::Emulated, &[]),
        // The host has moved on or given up: the next observation tells.
        (_, CommandStatus::Ok | CommandStatus::WrongState | CommandStatus::Stale) => stay(state),
        // What the shell told the host does not fit and never will.
        (S::Accepted | S::Prepared | S::Active | S::TransmitDrained, _) => fail(),
        _ => stay(state),
    }
}

const fn unload(state: S) -> Next {
    match state {
        S::Emulated => Next::new(S::Unregistered, &[A::Send(Command::Unregister)]),
        // Nothing has moved yet: give the offer back.
        S::Preparing | S::Accepted | S::Loading | S::Prepared => fail(),
        S::Active => Next::new(S::Active, &[A::Send(Command::RequestDetach)]),
        // On the way to a state from where it can leave.
        _ => stay(state),
    }
}
