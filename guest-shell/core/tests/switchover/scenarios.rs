//! Single stories.

use crate::guest::Guest;
use crate::image::Fault;
use crate::os::FakeOs;
use npa_abi::protocol::{GuestError, State};
use shell_core::net::{NetShell, StartError};
use shell_core::switch::ShellState;
use shell_core::virtio::VirtioError;

#[test]
fn emulated_traffic_and_stop() {
    let mut guest = Guest::start();
    for _ in 0..20 {
        guest.send(50);
        guest.unicast(70);
        guest.group();
        guest.settle();
    }
    guest.check_sent(false);
    guest.check_received(false);
    assert_eq!(guest.shell.plugin().name(), "virtio-net");
    guest.stop();
}

#[test]
fn twenty_cycles_under_traffic_lose_nothing() {
    let mut guest = Guest::start();
    for _ in 0..20 {
        guest.send(40);
        guest.unicast(100);
        guest.group();
        guest.attach();
        guest.send(300);
        guest.unicast(300);
        guest.group();
        guest.settle();
        guest.send(40);
        guest.unicast(100);
        guest.detach();
    }
    guest.check_sent(false);
    guest.check_received(false);
    let stats = guest.shell.stats();
    assert_eq!((stats.switches_to_vf, stats.switches_back), (20, 20));
    assert_eq!((stats.revokes, stats.plugin_faults), (0, 0));
    assert!(stats.vf.rx_frames > 0 && stats.vf.tx_frames > 0);
    guest.stop();
}

#[test]
fn one_doorbell_for_a_burst() {
    let mut guest = Guest::start();
    guest.attach();
    guest.send(32);
    assert_eq!(guest.shell.stats().vf.tx_bursts, 1);
    guest.settle();
    guest.stop();
}

#[test]
fn a_held_vf_ring_is_not_polled() {
    let mut guest = Guest::start();
    assert!(guest.os().world().host.offer(Fault::None));
    guest.event();
    guest.host_step();
    guest.event();
    assert_eq!(guest.shell.switch_state(), Some(ShellState::Prepared));
    guest.unicast(5);
    guest.group();
    let mut world = guest.os().world();
    world.host.emulated.receive(usize::MAX);
    world.host.vf.receive(usize::MAX);
    drop(world);
    while guest.shell.poll(64).done != 0 {}
    assert_eq!(guest.os().world().delivered.len(), 6);
    assert_eq!(guest.shell.stats().vf.rx_frames, 0);
    guest.settle();
    guest.check_received(false);
    assert_eq!(guest.shell.stats().rx_group_duplicates, 1);
    guest.stop();
}

#[test]
fn revoke_with_frames_everywhere() {
    let mut guest = Guest::start();
    guest.attach();
    guest.send(100);
    guest.unicast(100);
    guest.os().world().host.vf.receive(50);
    guest.os().world().host.send(true, 10);
    assert!(guest.os().world().host.revoke());
    guest.send(20);
    guest.settle();
    assert_eq!(guest.os().world().host.view.state, State::Emulated);
    guest.check_sent(true);
    guest.check_received(false);
    assert_eq!(guest.shell.stats().revokes, 1);
    // And once more from the start.
    guest.attach();
    guest.detach();
    guest.stop();
}

#[test]
fn a_revoke_within_a_poll_reorders_nothing() {
    for after in 1..60 {
        let mut guest = Guest::start();
        guest.attach();
        guest.unicast(150);
        // 100 are in the VF's ring; the rest comes to the emulated path once the VF is revoked.
        guest.os().world().host.vf.receive(100);
        guest.os().world().revoke_after = Some(after);
        guest.settle();
        assert_eq!(guest.os().world().host.view.state, State::Emulated);
        guest.check_received(false);
        assert_eq!(guest.shell.stats().revokes, 1);
        guest.stop();
    }
}

#[test]
fn a_reset_vf_is_set_up_again() {
    let mut guest = Guest::start();
    guest.attach();
    guest.send(100);
    guest.os().world().host.send(true, 10);
    assert!(guest.os().world().host.reset_vf());
    guest.settle();
    guest.unicast(100);
    guest.send(30);
    guest.settle();
    guest.check_sent(true);
    guest.check_received(false);
    assert_eq!(guest.shell.switch_state(), Some(ShellState::Active));
    guest.detach();
    guest.stop();
}

#[test]
fn stop_while_attached_asks_for_a_detach() {
    let mut guest = Guest::start();
    guest.attach();
    guest.send(10);
    guest.stop();
}

#[test]
fn stop_under_a_host_that_does_not_answer() {
    let mut guest = Guest::start();
    guest.attach();
    guest.send(10);
    // The host never ends its half: only the device reset takes the VF away.
    guest.os().world().host.view.state = State::Ready;
    guest.stop();
}

#[test]
fn a_device_that_vanishes() {
    let mut guest = Guest::start();
    guest.attach();
    guest.send(10);
    guest.os().world().host.vanish();
    guest.event();
    assert_eq!(guest.shell.switch_state(), Some(ShellState::Unregistered));
    guest.shell.close();
    guest.shell.stop();
    // It never reset, so the memory that it could write to is kept on purpose.
    assert!(guest.os().world().log.iter().any(|line| line.contains("did not reset")));
}

#[test]
fn attach_and_detach_of_a_closed_interface() {
    let guest = Guest::start();
    guest.shell.close();
    guest.attach();
    guest.detach();
    guest.shell.open();
    guest.attach();
    guest.stop();
}

#[test]
fn full_transmit_stops_and_wakes() {
    let mut guest = Guest::start();
    guest.send(10_000);
    assert!(guest.os().world().stopped);
    assert!(guest.next_out >= 85);
    guest.settle();
    assert!(!guest.os().world().stopped);
    guest.check_sent(false);
    guest.stop();
}

#[test]
fn receive_recovers_from_a_buffer_shortage() {
    let mut guest = Guest::start();
    guest.os().world().buffers = 0;
    guest.unicast(1000);
    for _ in 0..50 {
        guest.event();
        guest.shell.poll(64);
        guest.os().world().host.emulated.receive(usize::MAX);
    }
    guest.os().world().buffers = usize::MAX;
    guest.settle();
    guest.check_received(false);
    assert!(guest.shell.stats().rx_no_buffer > 0);
    guest.stop();
}

/// Asks the guest to announce itself, twice, and answers how often it did.
fn announcements(answer: Option<u8>) -> (u32, Guest) {
    let guest = Guest::start();
    guest.attach();
    guest.os().world().host.answer = answer;
    for _ in 0..2 {
        guest.os().world().host.announce = true;
        guest.event();
        guest.settle();
    }
    let count = guest.os().world().announcements;
    assert_eq!(guest.shell.stats().announcements, u64::from(count));
    (count, guest)
}

#[test]
fn announces_itself_once_for_each_wish_and_says_so() {
    let (count, guest) = announcements(Some(0));
    assert_eq!(count, 2);
    assert!(!guest.os().world().host.announce, "the device was told");
    guest.stop();
}

#[test]
fn a_device_that_is_never_content_gets_one_announcement() {
    for (answer, said) in [(None, "no answer"), (Some(1), "refused")] {
        let (count, guest) = announcements(answer);
        assert_eq!(count, 1, "{said}");
        assert!(guest.os().world().log.iter().any(|line| line.contains(said)));
        guest.detach();
        guest.stop();
    }
}

#[test]
fn link_changes_are_told() {
    let guest = Guest::start();
    assert!(guest.shell.link_up());
    guest.os().world().host.link_up = false;
    guest.event();
    guest.event();
    assert!(!guest.shell.link_up());
    assert_eq!(guest.os().world().link_changes, 1);
    guest.stop();
}

#[test]
fn without_a_landing_the_device_stays_emulated() {
    let mut os = FakeOs::new();
    os.injection = false;
    let mut guest = Guest::start_on(os);
    assert!(!guest.os().world().host.registered);
    guest.send(10);
    guest.settle();
    guest.check_sent(false);
    guest.stop();
}

#[test]
fn start_fails_cleanly_without_memory() {
    for allocations in 0..16 {
        let os = FakeOs::new();
        os.world().allocations = allocations;
        let shell = NetShell::new(os);
        match shell.start() {
            Ok(_) => {
                shell.os().world().allocations = usize::MAX;
                shell.stop();
            }
            Err(error) => assert_eq!(error, StartError::NoMemory, "{allocations}"),
        }
        assert_eq!(shell.os().leaks(), None, "{allocations}");
    }
}

#[test]
fn start_fails_cleanly_on_a_stubborn_device() {
    let os = FakeOs::new();
    os.world().host.stubborn = true;
    let shell = NetShell::new(os);
    assert_eq!(shell.start(), Err(StartError::Virtio(VirtioError::FeaturesRefused)));
    assert_eq!(shell.os().leaks(), None);
}

#[test]
fn attach_fails_cleanly_without_memory() {
    for allocations in 0..8 {
        let mut guest = Guest::start();
        guest.os().world().allocations = allocations;
        assert!(guest.os().world().host.offer(Fault::None));
        guest.settle();
        let state = guest.os().world().host.view.state;
        if state == State::Emulated {
            assert_eq!(guest.os().world().host.guest_error, GuestError::NoMemory as u32);
        } else {
            assert_eq!(state, State::Active, "{allocations}");
        }
        guest.os().world().allocations = usize::MAX;
        guest.send(10);
        guest.unicast(10);
        guest.settle();
        guest.check_sent(false);
        guest.check_received(false);
        guest.stop();
    }
}

#[test]
fn attach_fails_cleanly_without_vectors() {
    let guest = Guest::start();
    guest.os().world().vectors_missing = true;
    assert!(guest.os().world().host.offer(Fault::None));
    guest.settle();
    let world = guest.os().world();
    assert_eq!(world.host.view.state, State::Emulated);
    assert_eq!(world.host.guest_error, GuestError::NoVectors as u32);
    drop(world);
    guest.stop();
}
