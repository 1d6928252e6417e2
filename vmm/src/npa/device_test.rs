//! A device from end to end, with a scripted guest: good guests, hostile ones, dead daemons.

use npa_abi::protocol::{Command, CommandStatus, HostView, State};
use npa_abi::register as at;
use npa_abi::shell_page::{LANDING_FILL, ShellPage};
use pf_control::vf_control::VfEvent;
use proptest::prelude::*;

use super::core::Timing;
use super::fake_guest::*;
use super::outcome::{SwitchError, SwitchFailure};
use super::switch::{GuestHalf, SwitchAction};
use crate::virtio::pci::PciExtension;
use std::mem::offset_of;
use std::time::{Duration, Instant};

fn seen(state: State, host_done: bool) -> HostView {
    HostView { state, host_done }
}

/// Every state in which the guest has its turn.
const TURNS: [(State, bool); 5] = [
    (State::Offered, true),
    (State::Loading, true),
    (State::Ready, true),
    (State::Quiescing, false),
    (State::Quiescing, true),
];

/// An attach, and a detach if that worked; answers what went wrong.
fn round(guest: &mut Guest) -> Result<(), SwitchError> {
    guest.during(|device| device.attach().and_then(|()| device.detach()))
}

/// After whatever happened, the device works.
fn assert_usable(guest: &mut Guest) {
    guest.until(State::Emulated);
    guest.world.lock().unwrap().assert_clean();
    guest.take_log();
    round(guest).unwrap();
    guest.world.lock().unwrap().assert_clean();
}

#[test]
fn twenty_rounds() {
    let mut guest = Guest::registered();
    for number in 1..=20 {
        guest.during(|device| device.attach()).unwrap();
        assert_eq!(guest.view(), seen(State::Active, true));
        assert_eq!(guest.read(at::GENERATION), number);
        assert_eq!(guest.world.lock().unwrap().wired, [0, 1]);
        assert!(guest.take_interrupt());
        guest.during(|device| device.detach()).unwrap();
        assert_eq!(guest.view(), seen(State::Emulated, true));
        assert_eq!(guest.landing_byte(), LANDING_FILL);
        guest.world.lock().unwrap().assert_clean();
    }
    assert_eq!((guest.revoked_word(), guest.read(at::RESET_COUNT)), (0, 0));
}

#[test]
fn the_order_of_things() {
    let mut guest = Guest::registered();
    round(&mut guest).unwrap();
    let log = guest.take_log();
    let attach = [
        "acquire",
        "open",
        "init",
        "load-plugin",
        "data",
        "wire",
        "pf-init",
        "start",
        "admit",
        "activate",
        "drain",
        "standby",
    ];
    let detach = ["check", "serve", "quiesce", "dismiss", "stop", "unwire", "close", "release"];
    // Standing by is not waited for, so the check may come before it.
    let sorted = |mut list: Vec<&'static str>| {
        list.retain(|step| !matches!(*step, "standby" | "check"));
        list
    };
    assert_eq!(sorted(log), sorted([attach.as_slice(), &detach].concat()));
}

#[test]
fn a_vf_that_does_less_than_the_guest_was_promised_is_refused() {
    let mut guest = Guest::registered();
    guest.world.lock().unwrap().no_offloads = true;
    let error = guest.during(|device| device.attach()).unwrap_err().to_string();
    assert!(error.contains("checksums") && error.contains("offloads=off"), "{error}");
    assert_eq!(guest.view().state, State::Emulated);
    guest.world.lock().unwrap().assert_clean();
}

#[test]
fn without_a_shell_there_is_no_attach() {
    let guest = Guest::new();
    assert!(matches!(guest.acceleration.attach(), Err(SwitchError::NotRegistered)));
    assert!(matches!(guest.acceleration.detach(), Err(SwitchError::NotAttached)));
    assert!(guest.take_log().is_empty());
}

#[test]
fn a_second_request_is_refused() {
    let mut guest = Guest::registered();
    guest.during(|device| device.attach()).unwrap();
    assert!(matches!(guest.acceleration.attach(), Err(SwitchError::AlreadyAttached)));
    guest.deaf_in = Some(seen(State::Quiescing, false));
    let other = guest.acceleration.clone();
    let first = std::thread::spawn(move || other.detach());
    while guest.view().state == State::Active {}
    assert!(matches!(guest.acceleration.detach(), Err(SwitchError::Busy)));
    assert!(matches!(first.join().unwrap(), Err(SwitchError::Forced(_))));
}

#[test]
fn a_guest_that_never_answers_is_revoked_at_its_deadline() {
    for (state, host_done) in TURNS {
        let mut guest = Guest::registered();
        guest.deaf_in = Some(seen(state, host_done));
        let began = Instant::now();
        let error = round(&mut guest).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let failure = match error {
            SwitchError::AttachFailed(failure) | SwitchError::Forced(failure) => failure,
            other => panic!("{other}"),
        };
        assert!(matches!(failure, SwitchFailure::Deadline { .. }), "{failure}");
        guest.world.lock().unwrap().assert_clean();
        assert_eq!(guest.revoked_word(), 1, "{state:?}");
        assert_eq!(guest.read(at::RESET_COUNT), 1);
        guest.deaf_in = None;
        assert_usable(&mut guest);
    }
}

#[test]
fn a_guest_that_fails_gets_its_emulated_path_back() {
    for (state, host_done) in TURNS.into_iter().chain([(State::Active, true)]) {
        let mut guest = Guest::registered();
        guest.fails_in = Some(seen(state, host_done));
        if state == State::Active {
            guest.during(|device| device.attach()).unwrap();
            guest.until(State::Failed);
        } else {
            let error = round(&mut guest).unwrap_err().to_string();
            assert!(error.contains("the plugin failed"), "{error}");
        }
        guest.fails_in = None;
        guest.wait(|world| !world.held);
        assert_usable(&mut guest);
    }
}

#[test]
fn a_guest_that_refused_is_not_asked_again() {
    let mut guest = Guest::registered();
    guest.during(|device| device.attach()).unwrap();
    guest.during(|device| device.fall_back()).unwrap();
    let (state, host_done) = TURNS[0];
    guest.fails_in = Some(seen(state, host_done));
    assert!(guest.during(|device| device.take_up()).is_err());
    guest.fails_in = None;
    guest.take_log();
    for _ in 0..20 {
        guest.act();
        std::thread::sleep(timing().retry);
    }
    assert!(!guest.take_log().contains(&"acquire"));
    assert_usable(&mut guest);
}

#[test]
fn every_failing_step_of_the_host_leaves_the_device_emulated() {
    for step in
        ["acquire", "open", "init", "load-plugin", "data", "wire", "pf-init", "activate", "drain"]
    {
        let mut guest = Guest::registered();
        guest.world.lock().unwrap().fails = Some(step);
        let error = round(&mut guest).unwrap_err();
        assert!(
            matches!(error, SwitchError::AttachFailed(SwitchFailure::Step { .. })),
            "{step}: {error}"
        );
        guest.world.lock().unwrap().fails = None;
        assert_usable(&mut guest);
    }
}

#[test]
fn the_way_back_goes_on_whatever_fails() {
    for step in ["quiesce", "stop", "unwire"] {
        let mut guest = Guest::registered();
        guest.during(|device| device.attach()).unwrap();
        guest.world.lock().unwrap().fails = Some(step);
        drop(guest.during(|device| device.detach()));
        guest.world.lock().unwrap().fails = None;
        assert_usable(&mut guest);
    }
}

#[test]
fn no_daemon_no_attach() {
    let mut guest = Guest::registered();
    guest.world.lock().unwrap().daemon_away = true;
    let error = guest.during(|device| device.attach()).unwrap_err().to_string();
    assert!(error.contains("pf-control does not run"), "{error}");
    guest.world.lock().unwrap().daemon_away = false;
    assert_usable(&mut guest);
}

#[test]
fn without_its_daemon_a_vf_keeps_working_and_detach_changes_nothing() {
    let mut guest = Guest::registered();
    guest.during(|device| device.attach()).unwrap();
    guest.wait(|world| world.standby);
    guest.take_log();
    guest.world.lock().unwrap().daemon_away = true;
    assert!(matches!(guest.during(|device| device.detach()), Err(SwitchError::PoolAway(_))));
    assert!(guest.take_log().is_empty());
    assert_eq!(guest.view().state, State::Active);
    guest.world.lock().unwrap().daemon_away = false;
    guest.during(|device| device.detach()).unwrap();
}

#[test]
fn a_guest_s_own_detach_waits_for_the_daemon() {
    let mut guest = Guest::registered();
    guest.during(|device| device.attach()).unwrap();
    guest.world.lock().unwrap().daemon_away = true;
    assert_eq!(guest.command(Command::RequestDetach), CommandStatus::Ok);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(guest.view().state, State::Active);
    guest.world.lock().unwrap().daemon_away = false;
    guest.until(State::Emulated);
    guest.wait(|world| !world.held);
    guest.world.lock().unwrap().assert_clean();
    assert_eq!(guest.read(at::RESET_COUNT), 0);
}

#[test]
fn a_revoke_without_the_daemon_is_made_up_for_later() {
    let mut guest = Guest::registered();
    guest.during(|device| device.attach()).unwrap();
    guest.deaf_in = Some(seen(State::Quiescing, false));
    let world = guest.world.clone();
    let other = guest.acceleration.clone();
    let detach = std::thread::spawn(move || other.detach());
    while guest.view().state == State::Active {}
    world.lock().unwrap().daemon_away = true;
    assert!(matches!(detach.join().unwrap(), Err(SwitchError::Forced(_))));
    {
        let world = world.lock().unwrap();
        assert!(!world.open && !world.running && !world.standby && world.held);
    }
    guest.deaf_in = None;
    guest.until(State::Emulated);
    assert!(guest.acceleration.core.lock().release_pending);
    world.lock().unwrap().daemon_away = false;
    guest.wait(|world| !world.held);
    assert_usable(&mut guest);
    assert!(!guest.acceleration.core.lock().release_pending);
}

#[test]
fn a_lost_vf_is_revoked() {
    let mut guest = Guest::registered();
    guest.during(|device| device.attach()).unwrap();
    guest.take_interrupt();
    guest.world.lock().unwrap().vf_event(VfEvent::Gone);
    guest.wait(|world| !world.held);
    assert_eq!((guest.view().state, guest.revoked_word()), (State::Failed, 1));
    assert!(guest.take_interrupt());
    assert_usable(&mut guest);
}

#[test]
fn a_reset_vf_comes_up_again_under_the_plugin() {
    let mut guest = Guest::registered();
    guest.during(|device| device.attach()).unwrap();
    guest.take_log();
    guest.world.lock().unwrap().vf_event(VfEvent::ResetBegan);
    guest.world.lock().unwrap().vf_event(VfEvent::ResetDone);
    let limit = Instant::now() + Duration::from_secs(5);
    while guest.read(at::RESET_COUNT) == 0 {
        assert!(Instant::now() < limit);
    }
    assert_eq!(guest.take_log().iter().filter(|step| **step == "init").count(), 1);
    assert_eq!(guest.view().state, State::Active);
    guest.during(|device| device.detach()).unwrap();
}

#[test]
fn a_reset_in_every_state_gives_the_vf_back() {
    for turn in TURNS.into_iter().map(Some).chain([None]) {
        let mut guest = Guest::registered();
        guest.deaf_in = turn.map(|(state, host_done)| seen(state, host_done));
        let device = guest.acceleration.clone();
        let (state, host_done) = turn.unwrap_or((State::Active, true));
        let back = state == State::Quiescing;
        let operator = std::thread::spawn(move || {
            device.attach().and_then(|()| if back { device.detach() } else { Ok(()) })
        });
        while guest.view() != seen(state, host_done) {
            guest.act();
        }
        guest.extension.reset();
        assert!(!guest.world.lock().unwrap().running || state == State::Offered);
        assert_eq!(guest.view(), seen(State::Emulated, true));
        drop(operator.join().unwrap());
        let limit = Instant::now() + Duration::from_secs(5);
        while !matches!(guest.acceleration.attach(), Err(SwitchError::NotRegistered)) {
            assert!(Instant::now() < limit);
        }
        assert_eq!(guest.revoked_word(), 0);
        guest.world.lock().unwrap().assert_clean();
        guest.deaf_in = None;
        // What a revoke left in the landing is recognised.
        assert_eq!(guest.register(), CommandStatus::Ok);
        assert_usable(&mut guest);
    }
}

#[test]
fn bad_shell_pages_are_refused() {
    let mut guest = Guest::new();
    guest.write(at::GUEST_ABI, 99);
    assert_eq!(guest.command(Command::Register), CommandStatus::WrongAbi);
    guest.write(at::GUEST_ABI, 1);
    assert_eq!(guest.command(Command::Register), CommandStatus::BadShellPage);
    guest.put(offset_of!(ShellPage, landing_pages), RAM);
    assert_eq!(guest.register(), CommandStatus::BadLanding);
    guest.put(offset_of!(ShellPage, landing_pages), SHELL);
    assert_eq!(guest.register(), CommandStatus::BadLanding);
    assert!(matches!(guest.acceleration.attach(), Err(SwitchError::NotRegistered)));
}

#[test]
fn bad_queues_are_refused_and_can_be_mended() {
    let mut guest = Guest::registered();
    let entries = offset_of!(ShellPage, queues) + 12;
    guest.put(entries, 255_u32);
    guest.deaf_in = Some(seen(State::Loading, true));
    let device = guest.acceleration.clone();
    let operator = std::thread::spawn(move || device.attach());
    while guest.view() != seen(State::Loading, true) {
        guest.act();
    }
    assert_eq!(guest.command(Command::Ready), CommandStatus::BadQueues);
    guest.put(entries, 256_u32);
    assert_eq!(guest.command(Command::Ready), CommandStatus::Ok);
    guest.until(State::Active);
    operator.join().unwrap().unwrap();
}

#[test]
fn the_landing_of_the_registration_counts_whatever_the_page_says_later() {
    let mut guest = Guest::registered();
    guest.put(offset_of!(ShellPage, landing_pages), 0_u64);
    guest.put(offset_of!(ShellPage, landing_base), 1_u64);
    guest.during(|device| device.attach()).unwrap();
    assert_ne!(guest.landing_byte(), LANDING_FILL);
}

#[test]
fn commands_out_of_order_and_stale_ones_change_nothing() {
    let mut guest = Guest::new();
    for command in Command::ALL.into_iter().filter(|command| *command != Command::Register) {
        assert_eq!(guest.command(command), CommandStatus::NotRegistered, "{command:?}");
    }
    assert_eq!(guest.register(), CommandStatus::Ok);
    guest.during(|device| device.attach()).unwrap();
    for command in Command::ALL {
        let stale = guest.command_of(command, 2);
        match command {
            Command::Register | Command::Unregister => {
                assert_eq!(stale, CommandStatus::WrongState);
            }
            _ => assert_eq!(stale, CommandStatus::Stale),
        }
        if !matches!(command, Command::Fail | Command::RequestDetach) {
            assert_eq!(guest.command(command), CommandStatus::WrongState, "{command:?}");
        }
    }
    guest.write(at::COMMAND, 0xffff);
    assert_eq!(guest.read(at::COMMAND_STATUS), CommandStatus::Unknown as u32);
    assert_eq!(guest.view().state, State::Active);
    guest.during(|device| device.detach()).unwrap();
}

#[test]
fn a_guest_that_leaves_can_come_back() {
    let mut guest = Guest::registered();
    assert_eq!(guest.command(Command::Unregister), CommandStatus::Ok);
    assert!(matches!(guest.acceleration.attach(), Err(SwitchError::NotRegistered)));
    assert_eq!(guest.register(), CommandStatus::Ok);
    assert_usable(&mut guest);
}

#[test]
fn the_end_of_the_vm_gives_the_vf_back() {
    let mut guest = Guest::registered();
    guest.during(|device| device.attach()).unwrap();
    let world = guest.world.clone();
    drop(guest);
    world.lock().unwrap().assert_clean();
}

#[test]
fn steps_are_timed() {
    let mut guest = Guest::registered();
    round(&mut guest).unwrap();
    let state = guest.acceleration.core.lock();
    let names: Vec<_> = state.history.summary().iter().map(|step| step.step).collect();
    for step in ["guest-accept", "guest-load", "guest-switch", "pf-activate", "total"] {
        assert!(names.contains(&step), "{step}: {names:?}");
    }
    assert!(names.contains(&SwitchAction::Release.name()));
    let limit = timing().drain;
    let why = SwitchFailure::Deadline { half: GuestHalf::Drain, limit };
    assert!(why.to_string().contains("150 ms"));
}

#[test]
fn what_vfs_carried_is_counted_and_stays_counted() {
    let mut guest = Guest::registered();
    let received = |guest: &Guest| guest.acceleration.core.lock_counted().vf_traffic.received;
    for round in 0..2 {
        // Two looks, and the last one when the VF is stopped.
        guest.during(|device| device.attach()).unwrap();
        assert_eq!((received(&guest), received(&guest)), (round * 9 + 3, round * 9 + 6));
        guest.during(|device| device.detach()).unwrap();
        assert_eq!(received(&guest), round * 9 + 9);
    }
}

#[test]
fn the_capability_is_what_the_abi_says() {
    let guest = Guest::new();
    let bytes = guest.extension.capability();
    assert_eq!(bytes.len(), size_of::<npa_abi::pci::NpaCapability>());
    assert_eq!((bytes[0], usize::from(bytes[2]), bytes[3]), (9, bytes.len(), 9));
    assert_eq!(bytes[8..12], *b"NPA1");
    assert_eq!(guest.hypervisor.slots().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A guest may write anything anywhere at any time: the device survives, the VF comes back.
    #[test]
    fn random_writes_harm_nobody(
        writes in prop::collection::vec((0_u64..0x8_0000, any::<u64>(), 0_usize..4, any::<bool>()), 1..400),
        sane in prop::collection::vec(any::<u8>(), 400),
    ) {
        let timing = Timing { reset: Duration::from_secs(5), ..timing() };
        let mut guest = Guest::with_timing(timing);
        guest.register();
        let device = guest.acceleration.clone();
        let operator = std::thread::spawn(move || device.attach().and_then(|()| device.detach()));
        for (&(offset, value, width, low), sane) in writes.iter().zip(sane) {
            // Half of it at registers, and now and then what a good guest would do.
            let offset = if low { offset % 0x110 } else { offset };
            let data = value.to_le_bytes();
            guest.extension.bar_write(offset, &data[..1 << width]);
            let mut data = [0; 8];
            guest.extension.bar_read(offset, &mut data[..1 << width]);
            if sane % 3 == 0 {
                let generation = guest.read(at::GENERATION);
                let command = Command::ALL[usize::from(sane / 3) % Command::ALL.len()];
                guest.command_of(command, generation);
            }
        }
        guest.extension.reset();
        drop(operator.join().unwrap());
        guest.wait(|world| !world.held);
        guest.world.lock().unwrap().assert_clean();
        prop_assert_eq!(guest.register(), CommandStatus::Ok);
        assert_usable(&mut guest);
    }
}
