//! Frames in both directions, features and notifications.

use super::*;

#[test]
fn frames_reach_the_guest_whole() {
    let mut setup = Setup::started();
    setup.offer(0, 64, 2048);
    for tag in 0..20 {
        let frame = unicast(tag, 60 + usize::from(tag) * 40);
        setup.arrive(&frame);
        let (head, len) = setup.driver.used(RX);
        assert_eq!(len as usize, HEADER_LEN + frame.len());
        let bytes = setup.read_ram(buffer(u64::from(head)), len as usize);
        assert_eq!(bytes[NUM_BUFFERS_AT..HEADER_LEN], [1, 0]);
        assert_eq!(bytes[HEADER_LEN..], frame);
    }
    let counters = setup.handle.counters();
    assert_eq!((counters.received, counters.received_dropped), (20, 0));
}

const NUM_BUFFERS_AT: usize = 10;

#[test]
fn a_large_frame_spreads_over_buffers_at_once() {
    let mut setup = setup();
    setup.driver.start(MRG_RXBUF | GUEST_CSUM | GUEST_TSO4, 256);
    setup.offer(0, 100, 1536);
    let frame = unicast(9, 20_000);
    setup.arrive(&frame);
    let mut got = Vec::new();
    let (head, len) = setup.driver.used(RX);
    let first = setup.read_ram(buffer(head.into()), len as usize);
    let buffers = u16::from_le_bytes([first[10], first[11]]);
    assert_eq!(buffers, 14);
    got.extend_from_slice(&first[HEADER_LEN..]);
    for _ in 1..buffers {
        // No waiting: all buffers of a frame appear together.
        let (head, len) = setup.driver.try_used(RX).expect("the frame is there in part only");
        got.extend(setup.read_ram(buffer(head.into()), len as usize));
    }
    assert_eq!(got, frame);
    assert!(setup.driver.try_used(RX).is_none());
}

#[test]
fn without_mergeable_buffers_a_frame_takes_one_chain() {
    let mut setup = setup();
    setup.driver.start(0, 256);
    let header_apart = [(buffer(0), 12, true), (buffer(1), 1514, true)];
    setup.driver.add(RX, &header_apart);
    setup.driver.kick(RX);
    let frame = unicast(3, 1514);
    setup.arrive(&frame);
    assert_eq!(setup.driver.used(RX), (0, 1526));
    assert_eq!(setup.read_ram(buffer(1), 1514), frame);
}

#[test]
fn a_frame_too_long_for_its_chain_is_dropped() {
    let mut setup = setup();
    setup.driver.start(0, 256);
    setup.driver.add(RX, &[(buffer(0), 200, true)]);
    setup.driver.kick(RX);
    setup.arrive(&unicast(1, 300));
    setup.arrive(&unicast(2, 100));
    assert_eq!(setup.driver.used(RX), (0, 112));
    assert_eq!(setup.handle.counters().received_dropped, 1);
}

#[test]
fn frames_leave_the_guest_in_order() {
    let mut setup = Setup::started();
    for tag in 0..30 {
        setup.transmit(u64::from(tag), &unicast(tag, 80));
    }
    setup.driver.kick(TX);
    for tag in 0..30 {
        assert_eq!(setup.departed(), unicast(tag, 80));
        assert_eq!(setup.driver.used(TX), (u16::from(tag), 0));
    }
    assert_eq!(setup.handle.counters().sent, 30);
}

#[test]
fn a_scattered_frame_leaves_as_one() {
    let mut setup = Setup::started();
    let frame = unicast(5, 600);
    setup.place(buffer(0), &frame);
    let pieces = [
        (buffer(0), 5, false),
        (buffer(0) + 5, 7, false),
        (buffer(0) + 12, 100, false),
        (buffer(0) + 112, 500, false),
    ];
    setup.driver.add(TX, &pieces);
    setup.driver.kick(TX);
    assert_eq!(setup.departed(), frame);
}

#[test]
fn a_full_wire_loses_nothing() {
    let mut setup = Setup::started();
    for number in 0..200 {
        setup.transmit(number, &unicast(number as u8, 3000));
    }
    setup.driver.kick(TX);
    // More than the socket holds: the rest waits for the wire, in order.
    for number in 0..200 {
        assert_eq!(setup.departed(), unicast(number as u8, 3000), "frame {number}");
    }
    setup.driver.wait_for("completion of all", |driver| driver.avail_event(TX) == 200);
}

#[test]
fn offloads_follow_the_features() {
    let mut setup = setup();
    setup.driver.start(MRG_RXBUF | GUEST_CSUM | GUEST_TSO4, 256);
    let all = ReceiveOffloads { checksum: true, tso4: true, tso6: false, ecn: false };
    let offloads = setup.offloads.clone();
    assert_eq!(*offloads.lock().unwrap(), all);
    setup.driver.start(MRG_RXBUF, 256);
    assert_eq!(*offloads.lock().unwrap(), ReceiveOffloads::default());
}

#[test]
fn the_guest_is_interrupted_where_it_asked() {
    let mut setup = Setup::started();
    setup.offer(0, 64, 2048);
    setup.driver.set_used_event(RX, 2);
    for tag in 0..2 {
        setup.arrive(&unicast(tag, 64));
        setup.driver.used(RX);
        setup.handle.set_mode(PathMode::Serving).unwrap();
        assert!(!setup.driver.interrupted(RX_VECTOR), "after frame {tag}");
    }
    setup.arrive(&unicast(2, 64));
    setup.driver.used(RX);
    setup.driver.wait_for("interrupt", |driver| driver.interrupted(RX_VECTOR));
}

#[test]
fn the_older_interrupt_suppression_works() {
    let mut setup = setup();
    setup.driver.start(MRG_RXBUF, 256);
    setup.offer(0, 64, 2048);
    setup.driver.set_avail_flags(RX, 1);
    setup.arrive(&unicast(0, 64));
    setup.driver.used(RX);
    setup.handle.set_mode(PathMode::Serving).unwrap();
    assert!(!setup.driver.interrupted(RX_VECTOR));
    setup.driver.set_avail_flags(RX, 0);
    setup.arrive(&unicast(0, 64));
    setup.driver.wait_for("interrupt", |driver| driver.interrupted(RX_VECTOR));
}

#[test]
fn receiving_goes_on_when_the_guest_adds_buffers() {
    let mut setup = Setup::started();
    setup.offer(0, 1, 2048);
    for tag in 0..5 {
        setup.arrive(&unicast(tag, 64));
    }
    assert_eq!(setup.driver.used(RX).0, 0);
    setup.offer(1, 10, 2048);
    for head in 1..5 {
        assert_eq!(setup.driver.used(RX).0, head);
    }
}

#[test]
fn link_changes_reach_the_guest() {
    let mut setup = Setup::started();
    setup.driver.write(0x10, 0, 2);
    assert_eq!(setup.driver.read(0x2006, 2), 1);
    let generation = setup.driver.read(0x15, 1);
    setup.handle.set_link_up(false);
    assert_eq!(setup.driver.read(0x2006, 2), 0);
    assert_ne!(setup.driver.read(0x15, 1), generation);
    assert!(setup.driver.interrupted(0));
    assert_eq!(setup.driver.read(0x1000, 1) & 2, 2);
}

#[test]
fn a_reset_device_starts_again() {
    let mut setup = Setup::started();
    setup.offer(0, 8, 2048);
    setup.driver.set_status(0);
    assert_eq!(setup.driver.status(), 0);
    // Nobody may touch the old rings now.
    setup.arrive(&unicast(1, 64));
    std::thread::sleep(Duration::from_millis(20));
    assert!(setup.driver.try_used(RX).is_none());
    setup.driver.start(MRG_RXBUF | EVENT_IDX, 256);
    setup.offer(0, 8, 2048);
    let (head, len) = setup.driver.used(RX);
    assert_eq!(setup.read_ram(buffer(head.into()), len as usize)[HEADER_LEN..], unicast(1, 64));
}
