//! Plugins that break a rule: counted, stopped, reported; never memory corruption, and the guest
//! goes on emulated without losing what it sent.

use crate::guest::Guest;
use crate::image::Fault;
use npa_abi::protocol::{GuestError, State};

#[test]
fn a_plugin_that_does_not_load_leaves_the_guest_emulated() {
    for fault in Fault::AT_LOAD {
        let mut guest = Guest::start();
        guest.send(20);
        assert!(guest.os().world().host.offer(fault));
        guest.unicast(20);
        guest.settle();
        assert_eq!(guest.os().world().host.view.state, State::Emulated, "{fault:?}");
        let error = guest.os().world().host.guest_error;
        assert_eq!(error, GuestError::PluginFailed as u32, "{fault:?}");
        guest.check_sent(false);
        guest.check_received(false);
        guest.attach();
        guest.stop();
    }
}

#[test]
fn a_plugin_that_lies_in_service_is_stopped() {
    for fault in Fault::IN_SERVICE {
        let mut guest = Guest::start();
        assert!(guest.os().world().host.offer(fault));
        guest.settle();
        guest.send(20);
        guest.settle();
        assert_eq!(guest.os().world().host.view.state, State::Emulated, "{fault:?}");
        let error = guest.os().world().host.guest_error;
        assert_eq!(error, GuestError::PluginFailed as u32, "{fault:?}");
        assert_eq!(guest.shell.stats().plugin_faults, 1, "{fault:?}");
        guest.send(20);
        guest.settle();
        guest.check_sent(true);
        guest.stop();
    }
}

#[test]
fn a_plugin_that_does_not_quiesce_is_revoked() {
    let mut guest = Guest::start();
    assert!(guest.os().world().host.offer(Fault::Quiesce));
    guest.settle();
    guest.send(20);
    guest.settle();
    assert!(guest.os().world().host.detach());
    guest.settle();
    assert_eq!(guest.os().world().host.view.state, State::Emulated);
    assert_eq!(guest.os().world().host.guest_error, GuestError::PluginFailed as u32);
    guest.send(20);
    guest.settle();
    guest.check_sent(true);
    guest.stop();
}
