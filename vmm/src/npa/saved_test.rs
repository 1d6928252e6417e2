//! Giving a VF up for something else, and a handshake that goes on elsewhere.

use npa_abi::protocol::State;
use npa_abi::register as at;
use npa_abi::shell_page::{FEATURE_MARKS, ShellPage};
use pf_control::ops::LeaseId;
use pf_control::vf_control::VfEvent;
use std::mem::offset_of;

use super::fake::*;
use super::fake_guest::*;
use super::hardware::PoolNews;
use super::outcome::SwitchError;
use crate::state::{Archive, ArchiveBuilder, StateError};
use crate::virtio::pci::PciExtension;

fn marking() -> Guest {
    let mut guest = Guest::new();
    guest.put(offset_of!(ShellPage, features), FEATURE_MARKS);
    guest.register();
    guest
}

fn saved(guest: &Guest) -> Vec<u8> {
    let mut state = ArchiveBuilder::default();
    guest.extension.save("1", &mut state).unwrap();
    state.finish()
}

/// The same guest memory under a new device that took `state` over.
fn moved(state: &[u8]) -> Guest {
    let mut guest = Guest::new();
    let mut archive = Archive::parse(state).unwrap();
    guest.extension.restore("1", &mut archive).unwrap();
    archive.finish().unwrap();
    guest
}

#[test]
fn a_device_that_gave_its_vf_up_gets_one_again_and_none_before() {
    let mut guest = marking();
    guest.during(|device| device.attach()).unwrap();
    let fell = guest.during(|device| device.fall_back()).unwrap();
    assert!(fell.had_vf && fell.logged);
    guest.wait(|world| !world.held);
    guest.world.lock().unwrap().assert_clean();
    assert!(matches!(guest.acceleration.attach(), Err(SwitchError::Reserved)));
    let again = guest.during(|device| device.fall_back()).unwrap();
    assert!(!again.had_vf);
    guest.acceleration.let_be();
    guest.during(|device| device.attach()).unwrap();
    guest.during(|device| device.fall_back()).unwrap();
    assert!(guest.during(|device| device.take_up()).unwrap());
    assert_eq!(guest.view().state, State::Active);
    guest.during(|device| device.detach()).unwrap();
    assert!(!guest.during(|device| device.take_up()).unwrap(), "nobody wants a VF any more");
}

#[test]
fn a_guest_that_does_not_help_falls_back_by_force_and_its_log_is_not_complete() {
    let mut guest = marking();
    guest.during(|device| device.attach()).unwrap();
    guest.acceleration.log_began();
    guest.deaf_in = Some(npa_abi::protocol::HostView { state: State::Quiescing, host_done: false });
    let fell = guest.during(|device| device.fall_back()).unwrap();
    assert!(fell.had_vf && !fell.logged);
    guest.acceleration.log_began();
    assert!(guest.acceleration.fall_back().unwrap().logged);
}

#[test]
fn what_a_vf_wrote_before_a_reset_is_not_known() {
    let mut guest = marking();
    guest.during(|device| device.attach()).unwrap();
    guest.acceleration.log_began();
    let resets = guest.read(at::RESET_COUNT);
    guest.world.lock().unwrap().vf_event(VfEvent::ResetDone);
    while guest.read(at::RESET_COUNT) == resets {
        guest.act();
    }
    assert!(!guest.during(|device| device.fall_back()).unwrap().logged);
}

#[test]
fn a_shell_that_does_not_mark_says_so() {
    let mut guest = Guest::registered();
    assert!(!guest.acceleration.marks_writes() && marking().acceleration.marks_writes());
    assert!(guest.acceleration.fall_back().unwrap().logged, "no VF wrote anything");
    guest.during(|device| device.take_up()).unwrap();
    guest.during(|device| device.attach()).unwrap();
    assert!(!guest.during(|device| device.fall_back()).unwrap().logged);
}

#[test]
fn a_handshake_goes_on_elsewhere() {
    let mut guest = marking();
    guest.during(|device| device.attach()).unwrap();
    let mut state = ArchiveBuilder::default();
    let on_vf = guest.extension.save("1", &mut state).unwrap_err();
    assert!(matches!(on_vf, StateError::Unsaveable { .. }), "{on_vf}");
    // The VF is out of the guest's reach, but its daemon takes its time.
    guest.world.lock().unwrap().release_hangs = true;
    guest.during(|device| device.fall_back()).unwrap();
    assert!(guest.world.lock().unwrap().held);
    let generation = guest.read(at::GENERATION);
    let mut there = moved(&saved(&guest));
    assert_eq!(there.view(), guest.view());
    assert_eq!(there.read(at::GENERATION), generation);
    assert_eq!(there.read(at::SHELL_PAGE_LO), guest.read(at::SHELL_PAGE_LO));
    assert!(there.acceleration.marks_writes());
    assert!(there.during(|device| device.take_up()).unwrap());
    assert_eq!(there.read(at::GENERATION), generation + 1);
    there.during(|device| device.detach()).unwrap();
    there.world.lock().unwrap().assert_clean();
    guest.world.lock().unwrap().release_hangs = false;
    guest.wait(|world| !world.held);
    assert!(guest.during(|device| device.take_up()).unwrap(), "a move that failed");
}

#[test]
fn a_device_that_found_no_vf_gets_one_on_the_next_host() {
    let mut guest = marking();
    guest.during(|device| device.attach()).unwrap();
    guest.during(|device| device.fall_back()).unwrap();
    let mut barren = moved(&saved(&guest));
    barren.world.lock().unwrap().daemon_away = true;
    assert!(barren.during(|device| device.take_up()).is_err());
    assert!(!barren.during(|device| device.fall_back()).unwrap().had_vf);
    let mut there = moved(&saved(&barren));
    assert!(there.during(|device| device.take_up()).unwrap());
    assert_eq!(there.view().state, State::Active);
    // Until its operator takes it.
    there.during(|device| device.detach()).unwrap();
    there.during(|device| device.fall_back()).unwrap();
    assert!(!moved(&saved(&there)).during(|device| device.take_up()).unwrap());
}

#[test]
fn a_device_without_a_shell_is_saved_too() {
    let mut there = moved(&saved(&Guest::new()));
    assert!(matches!(there.acceleration.attach(), Err(SwitchError::NotRegistered)));
    there.register();
    there.during(|device| device.attach()).unwrap();
}

/// Bytes of the other side that would have the host touch what is not RAM.
#[test]
fn a_landing_outside_ram_is_refused() {
    let state = saved(&marking());
    for wrong in [1, 0xffff_f000, u64::MAX - 4095] {
        let mut builder = ArchiveBuilder::default();
        let mut archive = Archive::parse(&state).unwrap();
        let mut payload: super::saved::HandshakeState = archive.take("1").unwrap();
        payload.set_page(wrong);
        builder.put("1", &payload).unwrap();
        let mut guest = Guest::new();
        let mut archive = Archive::parse(&builder.finish()).unwrap();
        let error = guest.extension.restore("1", &mut archive).unwrap_err();
        assert!(matches!(error, StateError::Unsuitable { .. }), "{error}");
    }
}

#[test]
fn a_device_that_found_no_vf_gets_one_as_soon_as_there_is_one() {
    let mut guest = marking();
    guest.during(|device| device.attach()).unwrap();
    guest.during(|device| device.fall_back()).unwrap();
    guest.world.lock().unwrap().daemon_away = true;
    assert!(guest.during(|device| device.take_up()).is_err());
    assert_eq!(guest.view().state, State::Emulated);
    guest.world.lock().unwrap().daemon_away = false;
    guest.until(State::Active);
    // What the operator takes away stays away.
    guest.during(|device| device.detach()).unwrap();
    std::thread::sleep(3 * timing().retry);
    guest.act();
    assert_eq!(guest.view().state, State::Emulated);
}

#[test]
fn a_device_that_waits_for_a_vf_does_not_take_one_while_it_is_reserved() {
    let mut guest = marking();
    guest.during(|device| device.attach()).unwrap();
    guest.during(|device| device.fall_back()).unwrap();
    guest.world.lock().unwrap().daemon_away = true;
    assert!(guest.during(|device| device.take_up()).is_err());
    assert!(!guest.during(|device| device.fall_back()).unwrap().had_vf);
    guest.world.lock().unwrap().daemon_away = false;
    std::thread::sleep(3 * timing().retry);
    guest.act();
    assert_eq!(guest.view().state, State::Emulated);
    assert!(guest.during(|device| device.take_up()).unwrap());
}

#[test]
fn a_vf_that_is_wanted_back_is_given_back_and_another_one_taken() {
    let mut guest = marking();
    guest.during(|device| device.attach()).unwrap();
    guest.take_log();
    // Another's lease is no concern of ours.
    let other = LeaseId("0000:09:00.0".parse().unwrap());
    guest.world.lock().unwrap().news.push(PoolNews::WantedBack(other, true));
    std::thread::sleep(3 * timing().retry);
    guest.act();
    assert_eq!(guest.view().state, State::Active);
    guest.world.lock().unwrap().news.push(PoolNews::WantedBack(LeaseId(VF), true));
    guest.until(State::Quiescing);
    guest.until(State::Active);
    let log = guest.take_log();
    let at = |step: &str| log.iter().position(|one| *one == step);
    assert!(at("quiesce") < at("release") && at("release") < at("acquire"), "{log:?}");
    // The next one is not wanted back, and stays.
    std::thread::sleep(3 * timing().retry);
    guest.act();
    assert_eq!(guest.view().state, State::Active);
    guest.during(|device| device.detach()).unwrap();
}

#[test]
fn a_vf_that_is_wanted_back_no_longer_stays() {
    let mut guest = marking();
    guest.during(|device| device.attach()).unwrap();
    {
        let mut world = guest.world.lock().unwrap();
        world.daemon_away = true;
        world.news.push(PoolNews::WantedBack(LeaseId(VF), true));
    }
    std::thread::sleep(3 * timing().retry);
    guest.act();
    assert_eq!(guest.view().state, State::Active, "without the daemon nothing can be given back");
    guest.world.lock().unwrap().news.push(PoolNews::WantedBack(LeaseId(VF), false));
    std::thread::sleep(timing().retry);
    guest.world.lock().unwrap().daemon_away = false;
    std::thread::sleep(3 * timing().retry);
    guest.act();
    assert_eq!(guest.view().state, State::Active);
}

#[test]
fn a_device_that_may_wait_is_queued_until_a_vf_is_free() {
    let mut guest = marking();
    guest.world.lock().unwrap().held = true;
    assert!(guest.during(|device| device.attach()).is_err());
    assert!(!guest.world.lock().unwrap().waits, "an attach that fails is no wish");
    guest.acceleration.attach_when_free().unwrap();
    guest.wait(|world| world.waits);
    {
        let mut world = guest.world.lock().unwrap();
        world.held = false;
        world.news.push(PoolNews::Free);
    }
    guest.until(State::Active);
    let again = guest.acceleration.attach_when_free();
    assert!(matches!(again, Err(SwitchError::AlreadyAttached)));
    // A wish ends with the detach, also before it is fulfilled.
    guest.during(|device| device.detach()).unwrap();
    guest.world.lock().unwrap().held = true;
    guest.acceleration.attach_when_free().unwrap();
    guest.wait(|world| world.waits);
    guest.during(|device| device.detach()).unwrap();
    guest.world.lock().unwrap().held = false;
    std::thread::sleep(3 * timing().retry);
    guest.act();
    assert_eq!(guest.view().state, State::Emulated);
    assert!(matches!(guest.acceleration.detach(), Err(SwitchError::NotAttached)));
}

#[test]
fn a_device_whose_shell_comes_later_gets_its_vf_then() {
    let mut guest = Guest::new();
    guest.put(offset_of!(ShellPage, features), FEATURE_MARKS);
    guest.acceleration.attach_when_free().unwrap();
    std::thread::sleep(3 * timing().retry);
    guest.register();
    guest.until(State::Active);
}
