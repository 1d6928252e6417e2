//! Every (phase, event) pair, and every way through the machine.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use npa_abi::protocol::{Command, State};

use super::*;

/// The phases that can be reached from the start, each with a shortest way there.
fn reachable() -> HashMap<Phase, Vec<SwitchEvent>> {
    let mut ways = HashMap::from([(Phase::Unregistered, Vec::new())]);
    let mut open = VecDeque::from([Phase::Unregistered]);
    while let Some(phase) = open.pop_front() {
        for event in SwitchEvent::ALL {
            let next = transition(phase, event).phase;
            if !ways.contains_key(&next) {
                let mut way = ways[&phase].clone();
                way.push(event);
                ways.insert(next, way);
                open.push_back(next);
            }
        }
    }
    ways
}

fn has(work: Option<Work>, action: SwitchAction) -> bool {
    work.is_some_and(|work| work.actions.contains(&action))
}

/// All pairs of a reachable phase and an event.
fn pairs() -> Vec<(Phase, SwitchEvent, Next)> {
    Phase::ALL
        .into_iter()
        .flat_map(|phase| SwitchEvent::ALL.map(|event| (phase, event, transition(phase, event))))
        .collect()
}

#[test]
fn all_is_exactly_what_can_be_reached() {
    let reached: HashSet<_> = reachable().into_keys().collect();
    let all: HashSet<_> = Phase::ALL.into_iter().collect();
    assert_eq!(reached, all);
    assert_eq!(all.len(), Phase::ALL.len());
}

#[test]
fn refused_and_ignored_events_change_nothing() {
    for (phase, event, next) in pairs() {
        if next.verdict != Verdict::Taken {
            assert_eq!((next.phase, next.work), (phase, None), "{phase:?} {event:?}");
        }
    }
}

#[test]
fn guests_and_operators_are_answered_and_the_host_is_never_refused() {
    for (phase, event, next) in pairs() {
        match (event.origin(), next.verdict) {
            (Origin::Host, Verdict::Refused(_))
            | (Origin::Guest | Origin::Operator, Verdict::Ignored) => {
                panic!("{phase:?} {event:?} {next:?}")
            }
            _ => {}
        }
    }
}

#[test]
fn the_landing_is_written_only_on_accept_and_filled_only_on_quiesced() {
    for (phase, event, next) in pairs() {
        if has(next.work, SwitchAction::WriteLanding) {
            assert_eq!((phase, event), (Phase::Offered, SwitchEvent::GuestAccept));
        }
        if has(next.work, SwitchAction::RestoreLanding) {
            assert_eq!((phase, event), (Phase::Returned, SwitchEvent::GuestQuiesced));
        }
    }
}

#[test]
fn after_a_reset_guest_memory_is_not_touched() {
    use SwitchAction::{DrainPath, RestoreLanding, SetRevoked, WriteLanding};
    for (phase, event, next) in pairs() {
        if !next.phase.registered() {
            for action in [WriteLanding, RestoreLanding, SetRevoked, DrainPath] {
                assert!(!has(next.work, action), "{phase:?} {event:?}");
            }
        }
        // What runs on from before must be superseded.
        if event == SwitchEvent::GuestReset
            && matches!(phase, Phase::Loading | Phase::Moving | Phase::Releasing)
        {
            assert!(next.work.is_some(), "{phase:?}");
        }
    }
}

#[test]
fn reset_is_always_taken_and_leaves_no_shell() {
    for phase in Phase::ALL {
        let next = transition(phase, SwitchEvent::GuestReset);
        assert_eq!(next.verdict, Verdict::Taken);
        assert!(!next.phase.registered());
        assert_eq!(next.phase.view().state, State::Emulated);
    }
}

#[test]
fn a_held_vf_is_released_on_every_way_out() {
    // Whatever leads from a phase with a VF to one without has passed `Released`, and whatever
    // work ends in `Released` closes before it releases.
    for (phase, event, next) in pairs() {
        if phase.holds_vf() && !next.phase.holds_vf() {
            assert_eq!(event, SwitchEvent::Released, "{phase:?}");
        }
        let Some(work) = next.work else { continue };
        if work.then == Some(SwitchEvent::Released) {
            let at = |action| work.actions.iter().position(|each| *each == action);
            assert_eq!(at(SwitchAction::Release), Some(work.actions.len() - 1));
            assert_eq!(at(SwitchAction::CloseVf), Some(work.actions.len() - 2));
            assert_eq!(work.on_failure, OnFailure::Continue);
        }
    }
}

#[test]
fn host_phases_have_work_and_lead_on() {
    // A phase in which the host is at work is entered with work whose completion is taken there
    // (or from a phase of which the same holds), so nothing gets stuck.
    for (phase, event, next) in pairs() {
        let at_work = !next.phase.at_rest() && next.phase.guest_half().is_none();
        if next.verdict == Verdict::Taken && at_work && next.phase != phase {
            match next.work.and_then(|work| work.then) {
                Some(then) => {
                    let after = transition(next.phase, then);
                    assert_eq!(after.verdict, Verdict::Taken, "{phase:?} {event:?}");
                    assert_ne!(after.phase, next.phase);
                }
                None => assert!(
                    matches!(
                        (phase, next.phase),
                        (Phase::Closing | Phase::Withdrawing { .. }, Phase::Withdrawing { .. })
                    ),
                    "{phase:?} {event:?}"
                ),
            }
        }
    }
}

#[test]
fn every_guest_half_ends_at_its_deadline_and_no_other_phase_has_one() {
    for phase in Phase::ALL {
        let next = transition(phase, SwitchEvent::Deadline);
        if phase.guest_half().is_some() {
            assert!(matches!(next.phase, Phase::Revoking(view) if view == phase.view()));
        } else {
            assert_eq!(next.verdict, Verdict::Ignored);
        }
    }
}

#[test]
fn losing_the_vf_ends_in_the_way_back_from_every_phase_that_uses_it() {
    for (phase, event) in Phase::ALL
        .into_iter()
        .flat_map(|phase| [(phase, SwitchEvent::VfLost), (phase, SwitchEvent::VfReset)])
    {
        if (phase, event) == (Phase::Active, SwitchEvent::VfReset) {
            continue;
        }
        let next = transition(phase, event);
        let on_the_way_back = matches!(
            phase,
            Phase::Releasing
                | Phase::Closing
                | Phase::Revoking(_)
                | Phase::Failed { .. }
                | Phase::Withdrawing { .. }
        );
        if phase.holds_vf() && !on_the_way_back {
            assert!(matches!(next.phase, Phase::Revoking(_) | Phase::Withdrawing { .. }));
        } else {
            assert_eq!(next.verdict, Verdict::Ignored, "{phase:?}");
        }
    }
}

#[test]
fn a_settled_switch_leaves_guest_memory_alone() {
    use SwitchAction as A;
    for (phase, event, next) in pairs() {
        if phase.is_settled() && next.phase.is_settled() {
            let touches = [A::RestoreLanding, A::SetRevoked, A::WriteLanding, A::WireVectors];
            assert!(
                !touches.into_iter().any(|action| has(next.work, action)),
                "{phase:?} {event:?}"
            );
        }
        // What a phase is entered with must not either, and the VF must have been stopped before.
        if next.phase == Phase::Closing && phase != Phase::Closing {
            assert_eq!((phase, event), (Phase::Releasing, SwitchEvent::Retired));
            let before = transition(Phase::Returned, SwitchEvent::GuestQuiesced).work;
            assert!(has(before, A::MapDeadPage) && has(before, A::StopVf));
        }
    }
}

#[test]
fn the_guest_sees_failed_only_when_the_vf_can_do_no_harm() {
    for (phase, event, next) in pairs() {
        if next.phase.view().state == State::Failed && phase.view().state != State::Failed {
            assert_eq!(event, SwitchEvent::Revoked, "{phase:?}");
        }
        if let (Phase::Revoking(_), Some(work)) = (next.phase, next.work) {
            let at = |action| work.actions.iter().position(|each| *each == action);
            assert!(at(SwitchAction::MapDeadPage).is_some());
            assert!(at(SwitchAction::MapDeadPage) < at(SwitchAction::StopVf));
            assert!(at(SwitchAction::StopVf) < at(SwitchAction::SetRevoked));
        }
    }
}

#[test]
fn an_address_that_moved_comes_back_and_the_emulated_path_serves_first() {
    let moved = |phase: Phase| {
        matches!(phase, Phase::Moving | Phase::Granted | Phase::Active | Phase::Draining)
    };
    for (phase, event, next) in pairs() {
        if moved(phase) && !moved(next.phase) {
            let work = next.work.unwrap_or_else(|| panic!("{phase:?} {event:?}"));
            let at = |action| work.actions.iter().position(|each| *each == action);
            assert!(at(SwitchAction::ServePath).is_some());
            assert!(at(SwitchAction::ServePath) < at(SwitchAction::PfQuiesce));
        }
    }
}

#[test]
fn the_guest_is_told_of_every_change_that_it_did_not_bring_about() {
    for (phase, event, next) in pairs() {
        let told = next.phase.view() != phase.view() && event.origin() != Origin::Guest;
        // A guest whose shell is gone sees nothing; neither does one that was only prepared for.
        if told && next.phase.registered() {
            assert!(has(next.work, SwitchAction::Notify), "{phase:?} {event:?}");
        }
    }
}

#[test]
fn commands_are_taken_only_where_the_protocol_says() {
    let takes = |command: Command| -> BTreeSet<(&str, bool)> {
        Phase::ALL
            .into_iter()
            .filter(|phase| {
                transition(*phase, SwitchEvent::of_command(command)).verdict == Verdict::Taken
            })
            .map(|phase| (phase.view().state.name(), phase.view().host_done))
            .collect()
    };
    let only = |views: &[(&'static str, bool)]| views.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(takes(Command::Register), only(&[("emulated", true)]));
    assert_eq!(takes(Command::Unregister), only(&[("emulated", true), ("failed", true)]));
    assert_eq!(takes(Command::Accept), only(&[("offered", true)]));
    assert_eq!(takes(Command::Ready), only(&[("loading", true)]));
    assert_eq!(takes(Command::Switched), only(&[("ready", true)]));
    assert_eq!(takes(Command::TxDrained), only(&[("quiescing", false)]));
    assert_eq!(takes(Command::Quiesced), only(&[("quiescing", true)]));
    assert_eq!(takes(Command::Cleaned), only(&[("failed", true)]));
    assert_eq!(takes(Command::RequestDetach), only(&[("active", true)]));
    assert_eq!(
        takes(Command::Fail),
        only(&[
            ("offered", true),
            ("loading", false),
            ("loading", true),
            ("ready", false),
            ("ready", true),
            ("active", true),
            ("quiescing", false),
            ("quiescing", true),
        ])
    );
}

#[test]
fn twenty_rounds_end_where_they_began() {
    use SwitchEvent as E;
    let mut switch = Switch::default();
    switch.apply(E::GuestRegister);
    for round in 1..=20 {
        for event in [
            E::Attach,
            E::Prepared,
            E::GuestAccept,
            E::LandingWritten,
            E::GuestReady,
            E::PathMoved,
            E::GuestSwitched,
            E::Detach,
            E::GuestTxDrained,
            E::PathReturned,
            E::GuestQuiesced,
            E::Retired,
            E::Released,
        ] {
            assert_eq!(switch.apply(event).verdict, Verdict::Taken, "{event:?}");
        }
        assert_eq!((switch.phase(), switch.generation()), (Phase::Emulated, round));
    }
    assert_eq!(switch.resets(), 0);
}

#[test]
fn a_reset_vf_comes_back_or_is_revoked() {
    use SwitchEvent as E;
    let mut switch = Switch::default();
    for event in [
        E::GuestRegister,
        E::Attach,
        E::Prepared,
        E::GuestAccept,
        E::LandingWritten,
        E::GuestReady,
        E::PathMoved,
        E::GuestSwitched,
    ] {
        switch.apply(event);
    }
    let next = switch.apply(E::VfReset);
    assert_eq!((next.phase, next.work.unwrap().then), (Phase::Active, Some(E::VfRecovered)));
    assert_eq!(switch.resets(), 0);
    assert!(has(switch.apply(E::VfRecovered).work, SwitchAction::Notify));
    assert_eq!(switch.resets(), 1);
    assert!(matches!(switch.apply(E::StepFailed).phase, Phase::Revoking(_)));
    assert_eq!(switch.resets(), 1);
    switch.apply(E::Revoked);
    assert_eq!(switch.resets(), 2);
}
