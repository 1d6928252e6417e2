//! A card whose VM came from another host, on a wire that floods.

use super::*;
use crate::virtio::{Arrivals, Intake};

impl Setup {
    /// Tags of the frames in the guest's buffers from `first` on, in order.
    fn received(&mut self, first: u64, count: u64) -> Vec<u8> {
        let tag = |number| {
            self.driver.used(RX);
            // The byte after both addresses has the tag in it.
            self.read_ram(buffer(number) + HEADER_LEN as u64, 13)[12] ^ 12_u8.wrapping_mul(7)
        };
        (first..first + count).map(tag).collect()
    }
}

fn frame(tag: u8) -> Vec<u8> {
    framed(&unicast(tag, 64))
}

#[test]
fn each_frame_comes_once_and_in_order() {
    let mut setup = Setup::started();
    setup.handle.set_intake(Intake::Discard).unwrap();
    for tag in [1, 2] {
        setup.arrive(&unicast(tag, 64));
    }
    setup.handle.set_intake(Intake::Discard).unwrap();
    setup.handle.set_intake(Intake::Hold).unwrap();
    // Handed over before: 3 and 4, of which 4 comes here only now, as do 5 and 6, which the
    // source got as well, and 7, which it did not.
    setup.handle.deliver(vec![frame(3), frame(4)]).unwrap();
    for tag in [4, 5, 6, 7] {
        setup.arrive(&unicast(tag, 64));
    }
    assert_eq!(setup.handle.undelivered().unwrap(), 2);
    setup.offer(0, 16, 2048);
    assert_eq!(setup.received(0, 2), [3, 4]);
    assert_eq!(setup.handle.undelivered().unwrap(), 0);
    setup.handle.open_after(vec![frame(5), frame(6)], vec![frame(3), frame(4)]).unwrap();
    setup.arrive(&unicast(8, 64));
    setup.driver.kick(RX);
    assert_eq!(setup.received(2, 4), [5, 6, 7, 8]);
}

/// This host's copy of the source's last frame comes when all is open already.
#[test]
fn a_copy_that_comes_too_late_is_dropped() {
    let mut setup = Setup::started();
    setup.handle.set_intake(Intake::Hold).unwrap();
    setup.arrive(&unicast(1, 64));
    setup.handle.open_after(vec![frame(1), frame(2)], Vec::new()).unwrap();
    setup.arrive(&unicast(2, 64));
    // One copy is expected, so the second is a frame like any other.
    setup.arrive(&unicast(2, 64));
    setup.arrive(&unicast(3, 64));
    setup.offer(0, 16, 2048);
    assert_eq!(setup.received(0, 4), [1, 2, 2, 3]);
}

#[test]
fn what_a_held_card_did_not_get_is_collected_oldest_first() {
    let mut setup = Setup::started();
    crate::pci::PciDevice::suspend(&mut setup.driver.function).unwrap();
    setup.handle.deliver(vec![frame(1)]).unwrap();
    setup.arrive(&unicast(2, 64));
    assert_eq!(setup.handle.collect().unwrap(), [frame(1), frame(2)]);
    assert!(setup.handle.collect().unwrap().is_empty());
}

/// A move that failed after its frames were sent: they come before those that arrived meanwhile.
#[test]
fn what_was_collected_in_vain_is_older_than_what_came_since() {
    let mut setup = Setup::started();
    setup.handle.set_intake(Intake::Keep).unwrap();
    for tag in [1, 2] {
        setup.arrive(&unicast(tag, 64));
    }
    let collected = setup.handle.collect().unwrap();
    assert_eq!(collected, [frame(1), frame(2)]);
    setup.arrive(&unicast(3, 64));
    setup.handle.deliver(vec![frame(4)]).unwrap();
    setup.handle.put_back(collected).unwrap();
    setup.handle.set_intake(Intake::Open).unwrap();
    setup.offer(0, 16, 2048);
    let mut order = setup.received(0, 4);
    assert_eq!(order.drain(..2).collect::<Vec<_>>(), [1, 2]);
    // Whether the third was kept before the fourth was handed in is the thread's matter.
    order.sort_unstable();
    assert_eq!(order, [3, 4]);
}

#[test]
fn a_card_keeps_more_than_its_wire_holds_while_its_vm_is_held() {
    let mut setup = Setup::started();
    crate::pci::PciDevice::suspend(&mut setup.driver.function).unwrap();
    setup.handle.set_intake(Intake::Keep).unwrap();
    let mut sent = 0_u32;
    while sent < 2_000 {
        if setup.try_arrive(&unicast(sent as u8, 64)) {
            sent += 1;
        }
    }
    let kept = setup.handle.collect().unwrap();
    assert_eq!(kept.len(), 2_000);
    assert_eq!(kept[1_999], frame(1_999_u32 as u8));
    setup.handle.set_intake(Intake::Open).unwrap();
    crate::pci::PciDevice::resume(&mut setup.driver.function);
    setup.arrive(&unicast(9, 64));
    setup.offer(0, 4, 2048);
    assert_eq!(setup.received(0, 1), [9]);
}

/// 65,536 frames is what a card keeps.
#[test]
fn what_a_card_has_no_room_for_is_lost_and_counted() {
    let setup = Setup::started();
    assert_eq!(setup.handle.lost().unwrap(), Some(100), "the wire's own");
    setup.handle.set_intake(Intake::Hold).unwrap();
    setup.handle.deliver(vec![frame(1); 65_536 + 7]).unwrap();
    assert_eq!(setup.handle.lost().unwrap(), Some(107));
}

#[test]
fn a_card_that_came_tells_the_network() {
    let mut setup = Setup::started();
    setup.handle.announce().unwrap();
    let frame = setup.departed();
    assert_eq!(frame.len(), 60);
    assert_eq!((&frame[..6], &frame[6..12]), (&[0xff; 6][..], &STATION.0[..]));
    assert_eq!(frame[12..14], [0x80, 0x35]);
}
