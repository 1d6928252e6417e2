//! The transition function.

use super::LeaseEffect::{
    AwaitClosed, ForgetForwarding, ForwardToPort, ForwardToUplink, MoveMacBack, MoveMacToVf,
    PrepareQueues, ResetVf, SetPlaceholder, SettleUplink,
};
use super::{LeaseEffect, LeaseEvent, LeaseState};

/// What follows an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Next {
    /// The state once every effect has succeeded.
    pub state: LeaseState,
    /// What to do, in order. When one fails, [`LeaseEvent::Fault`] follows in `state`.
    pub effects: &'static [LeaseEffect],
}

/// The event is not legal in the state; nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{event:?} is refused while the lease is {state}")]
pub struct Refused {
    /// The state.
    pub state: LeaseState,
    /// The event.
    pub event: LeaseEvent,
}

/// What follows `event` in `state`. Total: every pair has one answer.
///
/// Why the orders are as they are: on the way to the VF its address is set before the switch's
/// entry moves, since frames that the switch sends to the uplink before the VF takes them would
/// leave the host; and it moves only when the PF's own receive ring holds no more frames for the
/// VM, since a switch never sends a frame back to the port that it came from. On the way back the entry moves first, so that the VF still takes what comes
/// from the wire until the switch would deliver it.
///
/// # Errors
/// [`Refused`] where NPA's order of calls forbids the event.
pub const fn transition(state: LeaseState, event: LeaseEvent) -> Result<Next, Refused> {
    use LeaseState::{Acquired, Active, Failed, Free, Initialised, Quiesced};
    let (state, effects): (_, &'static [LeaseEffect]) = match (state, event) {
        (Free, LeaseEvent::Acquire) => (Acquired, &[SetPlaceholder]),
        (Acquired, LeaseEvent::Init) => (Initialised, &[PrepareQueues]),
        (Initialised, LeaseEvent::Activate) => {
            (Active, &[MoveMacToVf, SettleUplink, ForwardToUplink])
        }
        (Active, LeaseEvent::Quiesce) => (Quiesced, &[ForwardToPort, MoveMacBack]),

        // A caller whose reply got lost asks again and gets the same answer.
        (Initialised, LeaseEvent::Init) => (Initialised, &[PrepareQueues]),
        (Active, LeaseEvent::Activate) => (Active, &[]),
        (Quiesced, LeaseEvent::Quiesce) => (Quiesced, &[]),

        (Free, LeaseEvent::Release | LeaseEvent::OwnerDied) => (Free, &[]),
        (Acquired | Initialised, LeaseEvent::Release | LeaseEvent::OwnerDied) => {
            (Free, &[AwaitClosed])
        }
        (Active, LeaseEvent::Release | LeaseEvent::OwnerDied) => {
            (Free, &[ForwardToPort, MoveMacBack, AwaitClosed, ForgetForwarding])
        }
        (Quiesced, LeaseEvent::Release | LeaseEvent::OwnerDied) => {
            (Free, &[AwaitClosed, ForgetForwarding])
        }
        (Failed, LeaseEvent::Release | LeaseEvent::OwnerDied) => {
            (Free, &[ForwardToPort, MoveMacBack, AwaitClosed, ResetVf, ForgetForwarding])
        }

        // Whatever half of an activation was done is undone at once, so that the VM's traffic
        // goes on through the emulated path.
        (Active, LeaseEvent::Fault) => (Failed, &[ForwardToPort, MoveMacBack]),
        (Free | Acquired | Initialised | Quiesced | Failed, LeaseEvent::Fault) => (Failed, &[]),

        (state, event) => return Err(Refused { state, event }),
    };
    Ok(Next { state, effects })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn next(state: LeaseState, event: LeaseEvent) -> Next {
        transition(state, event).unwrap()
    }

    /// Every way through the machine of at most `depth` events, with the effects met on it.
    fn walk(
        state: LeaseState,
        trail: &mut Vec<LeaseEffect>,
        depth: u32,
        check: &impl Fn(LeaseState, &[LeaseEffect]),
    ) {
        check(state, trail);
        if depth == 0 {
            return;
        }
        for event in LeaseEvent::ALL {
            if let Ok(next) = transition(state, event) {
                let length = trail.len();
                trail.extend_from_slice(next.effects);
                walk(next.state, trail, depth - 1, check);
                trail.truncate(length);
            }
        }
    }

    #[test]
    fn the_normal_life_is_legal() {
        let mut state = LeaseState::Free;
        for (event, expected) in [
            (LeaseEvent::Acquire, LeaseState::Acquired),
            (LeaseEvent::Init, LeaseState::Initialised),
            (LeaseEvent::Activate, LeaseState::Active),
            (LeaseEvent::Quiesce, LeaseState::Quiesced),
            (LeaseEvent::Release, LeaseState::Free),
        ] {
            state = next(state, event).state;
            assert_eq!(state, expected);
        }
    }

    #[test]
    fn release_is_legal_everywhere_and_owner_death_is_the_same() {
        for state in LeaseState::ALL {
            let release = next(state, LeaseEvent::Release);
            assert_eq!(release.state, LeaseState::Free);
            assert_eq!(release, next(state, LeaseEvent::OwnerDied));
        }
    }

    #[test]
    fn failed_leads_only_to_free() {
        for event in LeaseEvent::ALL {
            match transition(LeaseState::Failed, event) {
                Ok(next) => assert!(matches!(next.state, LeaseState::Free | LeaseState::Failed)),
                Err(refused) => assert_eq!(refused, Refused { state: LeaseState::Failed, event }),
            }
        }
    }

    #[test]
    fn every_fault_leads_to_failed() {
        for state in LeaseState::ALL {
            assert_eq!(next(state, LeaseEvent::Fault).state, LeaseState::Failed);
        }
    }

    #[test]
    fn every_state_is_reachable() {
        let mut seen = HashSet::from([LeaseState::Free]);
        for _ in LeaseState::ALL {
            for state in seen.clone() {
                seen.extend(
                    LeaseEvent::ALL.iter().filter_map(|&e| Some(transition(state, e).ok()?.state)),
                );
            }
        }
        assert_eq!(seen.len(), LeaseState::ALL.len());
    }

    #[test]
    fn a_vf_never_rests_free_with_a_vm_s_address() {
        walk(LeaseState::Free, &mut Vec::new(), 7, &|state, trail| {
            let last = |wanted: &[LeaseEffect]| trail.iter().rposition(|e| wanted.contains(e));
            let moved = last(&[MoveMacToVf]);
            if state == LeaseState::Active {
                assert!(moved > last(&[MoveMacBack]), "{trail:?}");
                assert!(last(&[ForwardToUplink]) > last(&[ForwardToPort]), "{trail:?}");
            } else if moved.is_some() {
                assert!(last(&[MoveMacBack]) > moved, "{state}: {trail:?}");
                assert!(last(&[ForwardToPort]) > last(&[ForwardToUplink]), "{state}: {trail:?}");
            }
        });
    }

    #[test]
    fn a_vf_is_not_free_while_somebody_has_it_open() {
        walk(LeaseState::Free, &mut Vec::new(), 7, &|state, trail| {
            let acquired = trail.iter().rposition(|e| *e == SetPlaceholder);
            if state == LeaseState::Free && acquired.is_some() {
                assert!(trail.iter().rposition(|e| *e == AwaitClosed) > acquired, "{trail:?}");
            }
        });
    }
}
