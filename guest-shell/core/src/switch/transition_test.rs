//! Every state with every event: what must hold everywhere, and the paths that matter.

use super::{Next, ShellAction, ShellEvent, ShellState, transition};
use npa_abi::protocol::{Command, CommandStatus, GuestError, HostView, State};

fn observed(state: State, host_done: bool) -> ShellEvent {
    ShellEvent::Observed { view: HostView { state, host_done }, same_generation: true }
}

fn events() -> Vec<ShellEvent> {
    let mut all = vec![
        ShellEvent::Registered,
        ShellEvent::StepDone,
        ShellEvent::StepFailed(GuestError::NoMemory),
        ShellEvent::Revoked,
        ShellEvent::DeviceReset,
        ShellEvent::Unload,
        ShellEvent::Gone,
    ];
    all.extend((0..=8).filter_map(CommandStatus::from_code).map(ShellEvent::Refused));
    for state in State::ALL {
        for host_done in [false, true] {
            for same_generation in [false, true] {
                let view = HostView { state, host_done };
                all.push(ShellEvent::Observed { view, same_generation });
            }
        }
    }
    all
}

fn each(mut check: impl FnMut(ShellState, ShellEvent, Next)) {
    for state in ShellState::ALL {
        for event in events() {
            check(state, event, transition(state, event));
        }
    }
}

#[test]
fn a_state_with_a_step_is_entered_with_its_action_only() {
    let begins = |state| match state {
        ShellState::Preparing => Some(ShellAction::Prepare),
        ShellState::Loading => Some(ShellAction::Load),
        ShellState::Switching => Some(ShellAction::SwitchToVf),
        ShellState::DrainingTransmit => Some(ShellAction::DrainTransmit),
        ShellState::DrainingReceive => Some(ShellAction::DrainReceive),
        ShellState::CleaningUp => Some(ShellAction::GiveUp),
        _ => None,
    };
    each(|state, event, next| {
        if next.state != state {
            assert_eq!(
                begins(next.state),
                next.actions.last().copied().filter(|action| {
                    !matches!(action, ShellAction::Send(_))
                        && next.state != ShellState::Unregistered
                }),
                "{state:?} {event:?}"
            );
        }
    });
}

#[test]
fn only_the_last_action_leads_to_an_event() {
    each(|state, event, next| {
        let silent = [ShellAction::AdoptOffer, ShellAction::StopPlugin];
        for action in next.actions.iter().rev().skip(1) {
            assert!(silent.contains(action), "{state:?} {event:?}");
        }
    });
}

#[test]
fn repeating_an_observation_changes_nothing_more() {
    each(|state, event, next| {
        let ShellEvent::Observed { view, .. } = event else { return };
        // The offer is adopted now, so that the same view is of the same generation.
        let adopted = next.actions.contains(&ShellAction::AdoptOffer);
        let again = if adopted { observed(view.state, view.host_done) } else { event };
        let second = transition(next.state, again);
        assert_eq!(second.state, next.state, "{state:?} {event:?}");
        let harmless = [ShellAction::Send(Command::Cleaned)];
        assert!(second.actions.iter().all(|action| harmless.contains(action)), "{state:?}");
    });
}

#[test]
fn memory_is_freed_only_when_the_vf_is_gone() {
    each(|state, event, next| {
        if next.actions.contains(&ShellAction::GiveUp) {
            let gone = match event {
                ShellEvent::Revoked | ShellEvent::Gone => true,
                ShellEvent::Observed { view, same_generation } => {
                    matches!(view.state, State::Emulated | State::Failed) || !same_generation
                }
                _ => false,
            };
            assert!(gone, "{state:?} {event:?}");
        }
    });
}

#[test]
fn a_lost_vf_is_always_cleaned_up_after() {
    for state in ShellState::ALL {
        let next = transition(state, ShellEvent::Revoked);
        match state {
            ShellState::Unregistered | ShellState::Emulated => assert_eq!(next.state, state),
            _ => assert_eq!(next.state, ShellState::CleaningUp),
        }
    }
    for state in ShellState::ALL.into_iter().filter(|state| state.has_plugin()) {
        for view in [State::Failed, State::Emulated] {
            assert_eq!(transition(state, observed(view, true)).state, ShellState::CleaningUp);
        }
        let view = HostView { state: State::Offered, host_done: true };
        let event = ShellEvent::Observed { view, same_generation: false };
        assert_eq!(transition(state, event).state, ShellState::CleaningUp);
    }
}

#[test]
fn the_good_way_there_and_back() {
    let offered = HostView { state: State::Offered, host_done: true };
    let story = [
        (ShellEvent::Registered, ShellState::Emulated),
        (ShellEvent::Observed { view: offered, same_generation: false }, ShellState::Preparing),
        (ShellEvent::StepDone, ShellState::Accepted),
        (observed(State::Loading, false), ShellState::Accepted),
        (observed(State::Loading, true), ShellState::Loading),
        (ShellEvent::StepDone, ShellState::Prepared),
        (observed(State::Ready, false), ShellState::Prepared),
        (observed(State::Ready, true), ShellState::Switching),
        (ShellEvent::StepDone, ShellState::Active),
        (observed(State::Active, true), ShellState::Active),
        (observed(State::Quiescing, false), ShellState::DrainingTransmit),
        (ShellEvent::StepDone, ShellState::TransmitDrained),
        (observed(State::Quiescing, false), ShellState::TransmitDrained),
        (observed(State::Quiescing, true), ShellState::DrainingReceive),
        (ShellEvent::StepDone, ShellState::Quiesced),
        (observed(State::Quiescing, true), ShellState::Quiesced),
        (observed(State::Emulated, true), ShellState::CleaningUp),
        (ShellEvent::StepDone, ShellState::Emulated),
        (ShellEvent::Unload, ShellState::Unregistered),
    ];
    let mut state = ShellState::Unregistered;
    let mut commands = Vec::new();
    for (event, expected) in story {
        let next = transition(state, event);
        assert_eq!(next.state, expected, "{state:?} {event:?}");
        commands.extend(next.actions.iter().filter_map(|action| match action {
            ShellAction::Send(command) => Some(*command),
            _ => None,
        }));
        state = next.state;
    }
    assert_eq!(
        commands,
        [
            Command::Accept,
            Command::Ready,
            Command::Switched,
            Command::TxDrained,
            Command::Quiesced,
            Command::Unregister,
        ]
    );
}

#[test]
fn every_state_has_a_way_out() {
    // With a host that takes the VF away and steps that end, every state comes to rest.
    for start in ShellState::ALL {
        let mut state = start;
        for _ in 0..4 {
            state = transition(state, observed(State::Failed, true)).state;
            state = transition(state, ShellEvent::StepDone).state;
        }
        state = transition(state, ShellEvent::Unload).state;
        assert_eq!(state, ShellState::Unregistered, "{start:?}");
    }
}

#[test]
fn a_refused_farewell_goes_back_to_work() {
    let next = transition(ShellState::Unregistered, ShellEvent::Refused(CommandStatus::WrongState));
    assert_eq!(next.state, ShellState::Emulated);
}
