//! Random orders of everything that can happen.

use crate::guest::Guest;
use crate::image::Fault;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Deed {
    Send(usize),
    Unicast(usize),
    Group,
    EmulatedSends(usize),
    EmulatedReceives(usize),
    VfSends(usize),
    VfReceives(usize),
    Poll(u32),
    Event,
    HostStep,
    Offer,
    Detach,
    Revoke,
    ResetVf,
    Shortage(bool),
    Close,
    Open,
}

fn gentle() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (1usize..60).prop_map(Deed::Send),
        4 => (1usize..40).prop_map(Deed::Unicast),
        2 => Just(Deed::Group),
        3 => (1usize..40).prop_map(Deed::EmulatedSends),
        3 => (1usize..40).prop_map(Deed::EmulatedReceives),
        3 => (1usize..40).prop_map(Deed::VfSends),
        3 => (1usize..40).prop_map(Deed::VfReceives),
        6 => (1u32..65).prop_map(Deed::Poll),
        6 => Just(Deed::Event),
        6 => Just(Deed::HostStep),
        3 => Just(Deed::Offer),
        2 => Just(Deed::Detach),
        1 => any::<bool>().prop_map(Deed::Shortage),
    ]
}

fn rough() -> impl Strategy<Value = Deed> {
    prop_oneof![
        12 => gentle(),
        1 => Just(Deed::Revoke),
        1 => Just(Deed::ResetVf),
    ]
}

fn with_closing() -> impl Strategy<Value = Deed> {
    prop_oneof![10 => rough(), 1 => Just(Deed::Close), 1 => Just(Deed::Open)]
}

/// Does everything in order; answers whether a VF was taken away or reset by force, or could not
/// get memory (which the host answers the same way).
fn run(guest: &mut Guest, deeds: &[Deed]) -> bool {
    let mut open = true;
    for deed in deeds {
        match *deed {
            Deed::Send(count) => {
                if open {
                    guest.send(count);
                }
            }
            Deed::Unicast(count) => guest.unicast(count),
            Deed::Group => guest.group(),
            Deed::EmulatedSends(count) => drop(guest.os().world().host.send(false, count)),
            Deed::VfSends(count) => drop(guest.os().world().host.send(true, count)),
            Deed::EmulatedReceives(count) => {
                guest.os().world().host.emulated.receive(count);
            }
            Deed::VfReceives(count) => {
                guest.os().world().host.vf.receive(count);
            }
            Deed::Poll(budget) => {
                if open {
                    let poll = guest.shell.poll(budget);
                    assert!(poll.done <= budget);
                    guest.os().world().poll_wanted |= poll.again;
                }
            }
            Deed::Event => {
                let again = guest.event();
                guest.os().world().event_wanted |= again;
            }
            Deed::HostStep => drop(guest.host_step()),
            Deed::Offer => drop(guest.os().world().host.offer(Fault::None)),
            Deed::Detach => drop(guest.os().world().host.detach()),
            Deed::Revoke => drop(guest.os().world().host.revoke()),
            Deed::ResetVf => drop(guest.os().world().host.reset_vf()),
            Deed::Shortage(short) => {
                guest.os().world().buffers = if short { 0 } else { usize::MAX };
            }
            Deed::Close => {
                guest.shell.close();
                open = false;
            }
            Deed::Open => {
                guest.shell.open();
                open = true;
            }
        }
    }
    guest.os().world().buffers = usize::MAX;
    if !open {
        guest.shell.open();
    }
    guest.settle();
    guest.os().world().host.resets != 0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_reordered(deeds in prop::collection::vec(gentle(), 1..200)) {
        let mut guest = Guest::start();
        let forced = run(&mut guest, &deeds);
        guest.check_sent(forced);
        guest.check_received(forced);
        guest.stop();
    }

    #[test]
    fn a_revoke_anywhere_loses_nothing(deeds in prop::collection::vec(rough(), 1..200)) {
        let mut guest = Guest::start();
        run(&mut guest, &deeds);
        guest.check_sent(true);
        guest.stop();
    }

    #[test]
    fn nothing_leaks_whenever_it_stops(deeds in prop::collection::vec(with_closing(), 1..150)) {
        let mut guest = Guest::start();
        run(&mut guest, &deeds);
        guest.stop();
    }
}
