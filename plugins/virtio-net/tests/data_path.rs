//! The plugin against a simulated device: what must happen, case by case.

mod device;

use device::{ALL, BUFFER, DeviceQueue, NO_EVENTS, PLAIN, bed, setup};
use npa_abi::net::{
    RX_CSUM_CORRECT, RX_CSUM_PARTIAL, RX_GSO_TCPV4, RX_GSO_TCPV6, TX_CSUM, TX_IPV4, TX_TCP, TX_TSO,
    TX_VLAN, WORK_WAITS,
};
use npa_abi::plugin::{ERR_CONFIG, ERR_QUEUE};
use npa_plugin_sdk::testbed::{Bed, Offload, Sent};
use virtio_net_plugin::{
    HEADER, VIRTIO_F_VERSION_1, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_MRG_RXBUF, entry,
};

fn frame(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| seed.wrapping_add(i as u8)).collect()
}

fn finish(bed: &Bed) {
    assert_eq!(bed.violations(), &[] as &[String]);
}

#[test]
fn a_burst_rings_one_doorbell_and_only_when_wanted() {
    for features in [ALL, NO_EVENTS] {
        let mut bed = bed(features, 64);
        let mut tx = DeviceQueue::new(&bed, 1, features);
        let frames: Vec<Sent> = (0..3).map(|i| Sent::plain(&frame(i, 60))).collect();
        assert_eq!(bed.send(1, &frames), 3);
        assert!(tx.rang(&mut bed));
        let wants_more = features == NO_EVENTS;
        assert_eq!(bed.send(1, &frames), 3);
        assert_eq!(tx.rang(&mut bed), wants_more, "the device is still busy");
        let chains: Vec<_> = std::iter::from_fn(|| tx.take(&mut bed)).collect();
        assert_eq!(chains.len(), 6);
        assert_eq!(bed.send(1, &frames[..1]), 1);
        assert!(tx.rang(&mut bed), "the device has seen everything");
        for (chain, expected) in chains.iter().zip(frames.iter().chain(&frames)) {
            let bytes = tx.bytes(&mut bed, chain);
            assert_eq!((&bytes[..12], &bytes[12..]), (&[0; 12][..], &expected.bytes[..]));
        }
        finish(&bed);
    }
}

#[test]
fn completions_out_of_order_are_reported_in_order() {
    let mut bed = bed(ALL, 64);
    let mut tx = DeviceQueue::new(&bed, 1, ALL);
    let frames: Vec<Sent> = (0..4).map(|i| Sent::plain(&frame(i, 60))).collect();
    assert_eq!(bed.send(1, &frames), 4);
    let heads: Vec<u32> = std::iter::from_fn(|| tx.take(&mut bed)).map(|c| c.head.into()).collect();
    for (head, reported) in [(heads[2], 0), (heads[0], 1), (heads[3], 0), (heads[1], 3)] {
        tx.give(&mut bed, head, 0);
        assert_eq!(bed.reap(1), reported);
    }
    assert_eq!(bed.outstanding(1), 0);
    finish(&bed);
}

#[test]
fn checksum_and_segmentation_stand_in_the_header() {
    let mut bed = bed(ALL, 64);
    let mut tx = DeviceQueue::new(&bed, 1, ALL);
    let offload = Offload {
        flags: TX_CSUM | TX_TSO | TX_IPV4 | TX_TCP,
        mss: 1448,
        l2_length: 14,
        l3_length: 20,
        l4_length: 32,
        csum_start: 34,
        csum_offset: 16,
        ..Offload::default()
    };
    let bytes = frame(1, 9_000);
    bed.send(1, &[Sent { bytes: bytes.clone(), cuts: vec![66, 4_000, 4_934], offload }]);
    let chain = tx.take(&mut bed).unwrap();
    let got = tx.bytes(&mut bed, &chain);
    assert_eq!(&got[12..], &bytes[..]);
    assert_eq!(&got[..12], &[1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
    finish(&bed);
}

#[test]
fn a_vlan_tag_goes_behind_the_addresses_wherever_segments_end() {
    for cuts in [vec![60], vec![12, 48], vec![5, 55], vec![5, 7, 48], vec![13, 47]] {
        let mut bed = bed(ALL, 64);
        let mut tx = DeviceQueue::new(&bed, 1, ALL);
        let bytes = frame(1, 60);
        let offload = Offload {
            flags: TX_VLAN | TX_CSUM,
            vlan_tag: 0x2064,
            csum_start: 34,
            csum_offset: 6,
            ..Offload::default()
        };
        bed.send(1, &[Sent { bytes: bytes.clone(), cuts, offload }]);
        let chain = tx.take(&mut bed).unwrap();
        let got = tx.bytes(&mut bed, &chain);
        let expected = [&bytes[..12], &[0x81, 0x00, 0x20, 0x64], &bytes[12..]].concat();
        assert_eq!(&got[12..], &expected[..]);
        assert_eq!(&got[6..10], &[38, 0, 6, 0]);
        finish(&bed);
    }
}

#[test]
fn a_full_queue_takes_no_more_and_goes_on_after_completions() {
    let mut bed = bed(ALL, 32);
    let mut tx = DeviceQueue::new(&bed, 1, ALL);
    let one = [Sent::plain(&frame(1, 60))];
    let taken = std::iter::repeat_with(|| bed.send(1, &one)).take_while(|&n| n == 1).count();
    assert_eq!(taken, 15);
    for round in 0..500 {
        let chain = tx.take(&mut bed).expect("a frame");
        tx.give(&mut bed, chain.head.into(), 0);
        assert_eq!(bed.reap(1), 1, "round {round}");
        assert_eq!(bed.send(1, &one), 1);
    }
    finish(&bed);
}

#[test]
fn received_frames_come_with_their_metadata() {
    let mut bed = bed(ALL, 64);
    let mut rx = DeviceQueue::new(&bed, 0, ALL);
    assert_eq!(bed.refill(0, 1000), 64);
    assert!(rx.rang(&mut bed));
    let (plain, big) = (frame(1, 60), frame(2, 60_000));
    assert!(rx.deliver(&mut bed, PLAIN, &plain));
    assert!(rx.deliver(&mut bed, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0], &plain));
    assert!(rx.deliver(&mut bed, [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0], &big));
    assert!(rx.deliver(&mut bed, [1, 0x84, 54, 0, 0xa8, 5, 34, 0, 16, 0], &big));
    let got = bed.receive(0, 64);
    assert_eq!((&got[0].bytes, got[0].checksum), (&plain, 0));
    assert_eq!((&got[1].bytes, got[1].checksum), (&plain, RX_CSUM_CORRECT));
    assert_eq!(
        (&got[2].bytes, got[2].checksum, got[2].gso_type),
        (&big, RX_CSUM_PARTIAL, RX_GSO_TCPV4)
    );
    assert_eq!((got[2].gso_size, got[2].csum_start, got[2].csum_offset), (1448, 34, 16));
    assert_eq!((got[2].segments, got[3].gso_type), (15, RX_GSO_TCPV6));
    assert_eq!(bed.refill(0, 1000), 32);
    finish(&bed);
}

#[test]
fn a_frame_whose_rest_is_still_to_come_waits() {
    let mut bed = bed(ALL, 64);
    let mut rx = DeviceQueue::new(&bed, 0, ALL);
    bed.refill(0, 64);
    let first = rx.take(&mut bed).unwrap();
    let second = rx.take(&mut bed).unwrap();
    let mut bytes = vec![0; 10];
    bytes.extend([2, 0]);
    bytes.extend(frame(1, BUFFER as usize - 12));
    assert!(bed.dma().write(first.parts[0].0, &bytes));
    rx.give(&mut bed, first.head.into(), BUFFER);
    assert!(bed.receive(0, 64).is_empty());
    assert_eq!(bed.refill(0, 64), 0);
    rx.give(&mut bed, second.head.into(), 100);
    let got = bed.receive(0, 64);
    assert_eq!(
        (got.len(), got[0].bytes.len(), got[0].segments),
        (1, BUFFER as usize - 12 + 100, 2)
    );
    finish(&bed);
}

#[test]
fn buffers_used_in_any_order_are_filled_again() {
    let mut bed = bed(ALL, 64);
    let mut rx = DeviceQueue::new(&bed, 0, ALL);
    bed.refill(0, 64);
    let mut heads: Vec<u32> =
        std::iter::from_fn(|| rx.take(&mut bed)).map(|chain| chain.head.into()).collect();
    heads.reverse();
    heads.swap(3, 40);
    for &head in &heads[..50] {
        rx.give(&mut bed, head, 72);
    }
    // Their headers say zero buffers: damaged, and given back one by one.
    assert_eq!(bed.receive(0, 64).len(), 50);
    assert_eq!(bed.refill(0, 64), 50);
    assert_eq!(bed.filled(0), 64);
    finish(&bed);
}

#[test]
fn arming_asks_for_an_interrupt_and_tells_of_work_that_waits() {
    for features in [ALL, NO_EVENTS] {
        let mut bed = bed(features, 64);
        let mut rx = DeviceQueue::new(&bed, 0, features);
        bed.refill(0, 64);
        let interrupts = |bed: &mut Bed, rx: &mut DeviceQueue| {
            let chain = rx.take(bed).unwrap();
            rx.give(bed, chain.head.into(), 72)
        };
        assert!(!interrupts(&mut bed, &mut rx), "disarmed at first");
        assert_eq!(bed.arm(0), WORK_WAITS);
        bed.receive(0, 64);
        assert_eq!(bed.arm(0), 0);
        assert!(interrupts(&mut bed, &mut rx));
        assert_eq!(bed.disarm(0), 0);
        assert!(!interrupts(&mut bed, &mut rx));
        finish(&bed);
    }
}

#[test]
fn every_completion_is_told_of_in_the_end() {
    let mut bed = bed(ALL, 64);
    let mut tx = DeviceQueue::new(&bed, 1, ALL);
    let frames: Vec<Sent> = (0..9).map(|i| Sent::plain(&frame(i, 60))).collect();
    assert_eq!(bed.send(1, &frames), 9);
    assert_eq!(bed.arm(1), 0);
    let mut interrupts = 0;
    while let Some(chain) = tx.take(&mut bed) {
        if tx.give(&mut bed, chain.head.into(), 0) {
            interrupts += 1;
            bed.reap(1);
            bed.arm(1);
        }
    }
    assert_eq!(bed.outstanding(1), 0);
    assert!((1..=5).contains(&interrupts), "{interrupts} interrupts");
    finish(&bed);
}

#[test]
fn lies_about_ids_lengths_and_counts_cost_frames_only() {
    let mut bed = bed(ALL, 64);
    let mut rx = DeviceQueue::new(&bed, 0, ALL);
    let mut tx = DeviceQueue::new(&bed, 1, ALL);
    bed.refill(0, 64);
    let good = rx.take(&mut bed).unwrap();
    assert!(bed.dma().write(good.parts[0].0 + 10, &[1, 0]));
    rx.give(&mut bed, 4_000_000, 100);
    rx.give(&mut bed, good.head.into(), u32::MAX);
    rx.give(&mut bed, good.head.into(), 100);
    let got = bed.receive(0, 64);
    assert_eq!(got.len(), 1);
    assert!(got[0].bytes.is_empty());
    bed.send(1, &[Sent::plain(&frame(1, 60)), Sent::plain(&frame(2, 60))]);
    let chain = tx.take(&mut bed).unwrap();
    tx.give(&mut bed, 63, 0);
    tx.give(&mut bed, u32::MAX, 0);
    assert_eq!(bed.reap(1), 0);
    tx.lie(&mut bed, 1_000);
    tx.give(&mut bed, chain.head.into(), 0);
    bed.reap(1);
    finish(&bed);
}

#[test]
fn instances_that_do_not_fit_are_refused() {
    let merging = VIRTIO_F_VERSION_1 | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_GUEST_TSO4;
    for (features, buffer, entries) in [
        (0, BUFFER, 64),
        (VIRTIO_F_VERSION_1, 1500, 64),
        (merging, 2048, 64),
        (ALL & !VIRTIO_NET_F_MRG_RXBUF, BUFFER, 64),
        (ALL, BUFFER, 16),
    ] {
        let mut bed = Bed::new(entry, &HEADER, &setup(features, buffer, entries));
        assert_eq!(bed.sw_init(), ERR_CONFIG, "{features:#x} {buffer} {entries}");
    }
    let mut good = Bed::new(entry, &HEADER, &setup(VIRTIO_F_VERSION_1, 2048, 64));
    assert_eq!(good.sw_init(), 0);
    assert_eq!((good.arm(2), good.reap(0)), (ERR_QUEUE, ERR_QUEUE));
    assert_eq!(good.quiesce(), 0);
}
