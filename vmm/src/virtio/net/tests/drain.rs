//! The path control that a switch relies on.

use super::*;
use crate::virtio::path::{DrainError, Drained};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(5);

#[test]
fn drain_moves_what_both_sides_hold() {
    let mut setup = Setup::started();
    setup.offer(0, 64, 2048);
    for tag in 0..10 {
        setup.arrive(&unicast(tag, 64));
    }
    // No doorbell: the drain itself must find them.
    for number in 100..105 {
        setup.transmit(number, &unicast(number as u8, 64));
    }
    setup.handle.drain(LONG).unwrap();
    for head in 0..10 {
        assert_eq!(setup.driver.try_used(RX).unwrap().0, head);
    }
    for head in 0..5 {
        assert_eq!(setup.driver.try_used(TX), Some((head, 0)));
    }
}

#[test]
fn drain_of_a_quiet_device_is_immediate() {
    let setup = Setup::started();
    assert_eq!(setup.handle.drain(LONG).unwrap(), Drained::default());
    let stopped = super::setup();
    assert_eq!(stopped.handle.drain(LONG).unwrap(), Drained::default());
}

#[test]
fn drain_reports_a_full_receive_ring() {
    let mut setup = Setup::started();
    setup.offer(0, 1, 2048);
    for tag in 0..3 {
        setup.arrive(&unicast(tag, 64));
    }
    match setup.handle.drain(SHORT) {
        Err(DrainError::Deadline { unsent: 0, undelivered: true, .. }) => {}
        other => panic!("{other:?}"),
    }
    setup.offer(1, 8, 2048);
    setup.handle.drain(LONG).unwrap();
    assert_eq!((0..3).filter(|_| setup.driver.try_used(RX).is_some()).count(), 3);
}

#[test]
fn drain_waits_for_a_guest_that_makes_room() {
    let mut setup = Setup::started();
    setup.offer(0, 1, 2048);
    for tag in 0..3 {
        setup.arrive(&unicast(tag, 64));
    }
    let handle = setup.handle.clone();
    let drain = std::thread::spawn(move || handle.drain(LONG));
    std::thread::sleep(Duration::from_millis(20));
    assert!(!drain.is_finished());
    setup.offer(1, 8, 2048);
    drain.join().unwrap().unwrap();
}

/// Frames that a VM brought along are more than a wire holds; what comes after them must not overtake
/// them on another path.
#[test]
fn drain_counts_what_was_kept() {
    let mut setup = Setup::started_over(4);
    setup.handle.deliver((0..20).map(|tag| framed(&unicast(tag, 64))).collect()).unwrap();
    setup.offer(0, 10, 2048);
    let handle = setup.handle.clone();
    let drain = std::thread::spawn(move || handle.drain(LONG));
    for _ in 0..10 {
        setup.driver.used(RX);
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(!drain.is_finished(), "ten frames are still here");
    setup.offer(10, 12, 2048);
    drain.join().unwrap().unwrap();
    assert_eq!((0..10).filter(|_| setup.driver.try_used(RX).is_some()).count(), 10);
}

#[test]
fn drain_reports_a_wire_that_takes_nothing() {
    let mut setup = Setup::started();
    for number in 0..200 {
        setup.transmit(number, &unicast(number as u8, 3000));
    }
    setup.driver.kick(TX);
    match setup.handle.drain(SHORT) {
        Err(DrainError::Deadline { unsent, undelivered: false, .. }) => {
            assert!((1..200).contains(&unsent), "{unsent}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn drain_ends_under_a_flood() {
    let mut setup = Setup::started();
    setup.offer(0, 250, 2048);
    // In standby the frames are discarded, so that the ring has room for as many as come.
    setup.handle.set_mode(PathMode::Standby).unwrap();
    let peer = rustix::io::dup(&setup.peer).unwrap();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut frame = vec![0; HEADER_LEN];
            frame.extend(multicast(1));
            while !done.load(Ordering::Relaxed) {
                let _ = rustix::net::send(&peer, &frame, SendFlags::empty());
            }
        }
    });
    let drained = setup.handle.drain(LONG);
    done.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    drained.unwrap();
}

#[test]
fn standby_delivers_unicast_and_discards_groups() {
    let mut setup = Setup::started();
    setup.offer(0, 64, 2048);
    setup.handle.set_mode(PathMode::Standby).unwrap();
    assert_eq!(setup.handle.mode(), PathMode::Standby);
    setup.arrive(&multicast(1));
    setup.arrive(&unicast(2, 64));
    setup.arrive(&multicast(3));
    setup.arrive(&unicast(4, 64));
    setup.handle.drain(LONG).unwrap();
    for tag in [2, 4] {
        let (head, len) = setup.driver.try_used(RX).unwrap();
        let bytes = setup.read_ram(buffer(head.into()), len as usize);
        assert_eq!(bytes[HEADER_LEN..], unicast(tag, 64));
    }
    assert!(setup.driver.try_used(RX).is_none());
    assert_eq!(setup.handle.counters().received_dropped, 2);
    setup.transmit(100, &unicast(9, 64));
    setup.driver.kick(TX);
    assert_eq!(setup.departed(), unicast(9, 64));
    setup.handle.set_mode(PathMode::Serving).unwrap();
    setup.arrive(&multicast(5));
    setup.driver.used(RX);
}

#[test]
fn the_mode_outlives_a_driver_reset() {
    let mut setup = Setup::started();
    setup.handle.set_mode(PathMode::Standby).unwrap();
    setup.driver.start(MRG_RXBUF, 256);
    setup.offer(0, 8, 2048);
    setup.arrive(&multicast(1));
    setup.arrive(&unicast(1, 64));
    setup.driver.used(RX);
    assert!(setup.driver.try_used(RX).is_none());
}

#[test]
fn a_reset_ends_a_drain() {
    let mut setup = Setup::started();
    setup.offer(0, 1, 2048);
    for tag in 0..3 {
        setup.arrive(&unicast(tag, 64));
    }
    let handle = setup.handle.clone();
    let drain = std::thread::spawn(move || handle.drain(LONG));
    std::thread::sleep(Duration::from_millis(20));
    setup.driver.set_status(0);
    drain.join().unwrap().unwrap();
}
