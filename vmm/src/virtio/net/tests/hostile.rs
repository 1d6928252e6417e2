//! Drivers that break the protocol: the card stops and asks for a reset, and works after it.

use super::*;
use crate::virtio::fake_driver::{MEMORY_MIB, NEEDS_RESET, NEXT, WRITE};

const OUTSIDE: u64 = MEMORY_MIB << 20;

/// Runs `break_it`, expects `DEVICE_NEEDS_RESET`, then a working device after a reset.
fn expect_reset(name: &str, break_it: impl FnOnce(&mut Setup)) {
    let mut setup = Setup::started();
    break_it(&mut setup);
    setup.driver.wait_for(name, |driver| driver.status() & NEEDS_RESET != 0);
    setup.driver.start(MRG_RXBUF, 256);
    assert_eq!(setup.driver.status() & NEEDS_RESET, 0, "{name}");
    setup.transmit(0, &unicast(7, 64));
    setup.driver.kick(TX);
    assert_eq!(setup.departed(), unicast(7, 64), "{name}");
}

fn break_transmit(name: &str, descriptors: &[(u64, u32, u16, u16)]) {
    expect_reset(name, |setup| {
        for (index, descriptor) in (0..).zip(descriptors) {
            setup.driver.descriptor(TX, index, *descriptor);
        }
        setup.driver.make_available(TX, 0);
        setup.driver.kick(TX);
    });
}

#[test]
fn broken_chains() {
    let at = buffer(0);
    break_transmit("a chain that is its own next", &[(at, 64, NEXT, 0)]);
    break_transmit("a chain of two that loops", &[(at, 64, NEXT, 1), (at, 64, NEXT, 0)]);
    break_transmit("a next outside the table", &[(at, 64, NEXT, 256)]);
    break_transmit("a buffer outside memory", &[(OUTSIDE, 64, 0, 0)]);
    break_transmit("a buffer across the end of memory", &[(OUTSIDE - 32, 64, 0, 0)]);
    break_transmit("a buffer at the end of addresses", &[(u64::MAX - 8, 64, 0, 0)]);
    break_transmit("4 GiB in a chain", &[(at, u32::MAX, NEXT, 1), (at, u32::MAX, 0, 0)]);
    break_transmit("a writable buffer to send", &[(at, 64, WRITE, 0)]);
    break_transmit("an indirect table outside memory", &[(OUTSIDE, 64, 4, 0)]);
}

#[test]
fn broken_rings() {
    expect_reset("an index past the ring", |setup| {
        setup.driver.set_avail_index(TX, 300);
        setup.driver.kick(TX);
    });
    expect_reset("a head outside the table", |setup| {
        setup.driver.make_available(TX, 256);
        setup.driver.kick(TX);
    });
    expect_reset("a readable buffer to receive into", |setup| {
        setup.driver.add(RX, &[(buffer(0), 2048, false)]);
        setup.driver.kick(RX);
    });
    expect_reset("a receive buffer outside memory", |setup| {
        setup.driver.add(RX, &[(OUTSIDE, 2048, true)]);
        setup.driver.kick(RX);
    });
}

#[test]
fn empty_and_short_frames_are_dropped() {
    let mut setup = Setup::started();
    setup.driver.add(TX, &[(buffer(0), 0, false)]);
    setup.driver.add(TX, &[(buffer(0), 12, false)]);
    setup.driver.add(TX, &[(buffer(0), 20, false)]);
    setup.driver.add(TX, &[(buffer(0), 0x10_0000, false)]);
    setup.transmit(1, &unicast(1, 64));
    setup.driver.kick(TX);
    assert_eq!(setup.departed(), unicast(1, 64));
    for head in 0..5 {
        assert_eq!(setup.driver.used(TX), (head, 0));
    }
    assert_eq!(setup.handle.counters().sent_dropped, 4);
}

#[test]
fn empty_receive_buffers_do_no_harm() {
    let mut setup = Setup::started();
    setup.offer(0, 3, 0);
    setup.offer(3, 3, 2048);
    setup.arrive(&unicast(1, 64));
    // The frame takes the empty buffers along.
    let lens: Vec<_> = (0..4).map(|_| setup.driver.used(RX).1).collect();
    assert_eq!(lens, [0, 0, 0, 76]);
}

#[test]
fn a_frame_shorter_than_its_header_is_dropped() {
    let mut setup = Setup::started();
    setup.offer(0, 8, 2048);
    rustix::net::send(&setup.peer, &[1, 2, 3], SendFlags::empty()).unwrap();
    setup.arrive(&unicast(1, 64));
    assert_eq!(setup.driver.used(RX), (0, 76));
    assert_eq!(setup.handle.counters().received_dropped, 1);
}
