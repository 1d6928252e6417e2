//! The plugin against a simulated function: what must happen, case by case.

mod vf;

use npa_abi::net::{
    RX_CSUM_CORRECT, RX_CSUM_INCORRECT, RX_DISCARD, RX_VLAN, TX_CSUM, TX_IPV4, TX_TCP, TX_TSO,
    TX_VLAN, WORK_WAITS,
};
use npa_abi::plugin::{ERR_CONFIG, ERR_DEVICE, ERR_QUEUE};
use npa_plugin_sdk::testbed::{Bed, Offload, Sent, Setup};
use vf::{
    CONTROL, EIMC, EIMS, EITR0, ERROR_CRC, ERROR_L4, IVAR0, MAC, RX, STATUS_TCP_CHECKED,
    STATUS_VLAN, TAIL, TX, Vf, WINDOW, bed,
};

/// A frame of `length` bytes from another station, told apart by `seed`.
fn frame(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|i| seed.wrapping_add(i as u8)).collect();
    bytes[..6].copy_from_slice(&MAC);
    bytes[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    bytes
}

fn finish(bed: &Bed) {
    assert_eq!(bed.violations(), &[] as &[String]);
}

#[test]
fn rings_and_vectors_are_programmed_and_queues_enabled() {
    let bed = bed(256);
    assert_eq!(bed.register(IVAR0), 0x8081);
    assert_eq!(bed.register(TX + CONTROL), 1 << 25);
    assert_eq!(bed.register(RX + CONTROL), 1 << 25 | 1 << 16 | 8 << 8 | 16);
    assert_eq!(bed.register(RX + 0x0c), 0x8200_0002);
    finish(&bed);
}

#[test]
fn a_burst_rings_one_doorbell_and_completes_when_done() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    let frames: Vec<Sent> = (0..4).map(|i| Sent::plain(&frame(i, 100))).collect();
    assert_eq!(bed.send(1, &frames), 4);
    assert_eq!(bed.register(TX + TAIL), 4);
    assert_eq!(bed.reap(1), 0);
    vf.transmit(&mut bed, 3);
    assert_eq!(bed.reap(1), 3);
    vf.transmit(&mut bed, 9);
    assert_eq!(bed.reap(1), 1);
    assert_eq!(bed.outstanding(1), 0);
    let sent: Vec<_> = vf.wire.iter().map(|w| w.bytes.clone()).collect();
    assert_eq!(sent, frames.iter().map(|f| f.bytes.clone()).collect::<Vec<_>>());
    finish(&bed);
}

#[test]
fn a_full_ring_takes_no_more_and_goes_on_after_completions() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    let one = [Sent::plain(&frame(1, 60))];
    let taken = std::iter::repeat_with(|| bed.send(1, &one)).take_while(|&n| n == 1).count();
    // One descriptor stays unused, and two are kept for a context and copied headers.
    assert_eq!(taken, 61);
    vf.transmit(&mut bed, 64);
    assert_eq!(bed.reap(1), 61);
    for round in 0..200u8 {
        assert_eq!(bed.send(1, &[Sent::plain(&frame(round, 60))]), 1, "round {round}");
        vf.transmit(&mut bed, 1);
        assert_eq!(bed.reap(1), 1);
    }
    assert_eq!(vf.wire.len(), 261);
    finish(&bed);
}

#[test]
fn segments_are_gathered_and_long_ones_cut() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    let bytes = frame(7, 65_000);
    let cuts = [54, 1, 40_000, 100, 24_845].to_vec();
    let sent = Sent { bytes: bytes.clone(), cuts, offload: Offload::default() };
    assert_eq!(bed.send(1, &[sent]), 1);
    vf.transmit(&mut bed, 64);
    assert_eq!(bed.reap(1), 1);
    assert_eq!(vf.wire[0].bytes, bytes);
    finish(&bed);
}

#[test]
fn checksum_and_vlan_go_into_one_context_for_frames_alike() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    let offload = Offload {
        flags: TX_CSUM | TX_VLAN | TX_IPV4 | TX_TCP,
        vlan_tag: 0x0123,
        l2_length: 14,
        l3_length: 20,
        l4_length: 20,
        csum_start: 34,
        csum_offset: 16,
        ..Offload::default()
    };
    let sent = Sent { offload, ..Sent::plain(&frame(1, 200)) };
    assert_eq!(bed.send(1, &[sent.clone(), sent.clone(), sent]), 3);
    vf.transmit(&mut bed, 64);
    assert_eq!(vf.contexts, 1);
    for wire in &vf.wire {
        assert_eq!(wire.context.unwrap()[0], 0x0123 << 16 | 14 << 9 | 20);
        assert_eq!(wire.context.unwrap()[2] & 0xc00, 0xc00);
        assert_eq!(wire.options, 200 << 14 | 0x200);
        assert_ne!(wire.command & 1 << 30, 0);
    }
    // After a reset of the ring the device holds no context.
    bed.reap(1);
    assert_eq!(bed.reinit(1), 0);
    assert_eq!(bed.send(1, &[Sent { offload, ..Sent::plain(&frame(1, 200)) }]), 1);
    vf.transmit(&mut bed, 64);
    assert_eq!(vf.contexts, 2);
    finish(&bed);
}

#[test]
fn headers_of_a_frame_to_cut_are_copied_without_their_lengths() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    let mut bytes = frame(3, 4_054);
    let tcp_length = 4_054u16 - 34;
    let sum = 0x1234u16;
    bytes[16..18].copy_from_slice(&4_040u16.to_be_bytes());
    bytes[50..52].copy_from_slice(&(sum + tcp_length).to_be_bytes());
    let offload = Offload {
        flags: TX_CSUM | TX_TSO | TX_IPV4 | TX_TCP,
        mss: 1448,
        l2_length: 14,
        l3_length: 20,
        l4_length: 20,
        csum_start: 34,
        csum_offset: 16,
        ..Offload::default()
    };
    let original = bytes.clone();
    assert_eq!(bed.send(1, &[Sent { cuts: vec![100, 3_954], bytes, offload }]), 1);
    vf.transmit(&mut bed, 64);
    let wire = &vf.wire[0];
    let mut expected = original;
    expected[16..18].fill(0);
    expected[24..26].fill(0);
    expected[50..52].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(wire.bytes, expected);
    assert_eq!(wire.options, (4_054 - 54) << 14 | 0x300);
    assert_eq!(wire.context.unwrap()[3], 1448 << 16 | 20 << 8);
    assert_ne!(wire.command & 1 << 31, 0);
    assert_eq!(bed.reap(1), 1);
    finish(&bed);
}

#[test]
fn received_frames_come_with_checksum_and_vlan_in_order() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    assert_eq!(bed.refill(0, 1000), 63);
    assert_eq!(bed.filled(0), 63);
    let (a, b, c) = (frame(1, 60), frame(2, 1514), frame(3, 5_000));
    assert!(vf.deliver(&mut bed, &a, STATUS_TCP_CHECKED, 0));
    assert!(vf.deliver(&mut bed, &b, STATUS_TCP_CHECKED | ERROR_L4, 0));
    assert!(vf.deliver(&mut bed, &c, STATUS_VLAN, 0x0064));
    let first = bed.receive(0, 1);
    assert_eq!((first.len(), &first[0].bytes, first[0].checksum), (1, &a, RX_CSUM_CORRECT));
    let rest = bed.receive(0, 64);
    assert_eq!((rest.len(), &rest[0].bytes, rest[0].checksum), (2, &b, RX_CSUM_INCORRECT));
    assert_eq!((&rest[1].bytes, rest[1].segments), (&c, 3));
    assert_eq!((rest[1].flags & RX_VLAN, rest[1].vlan_tag), (RX_VLAN, 0x64));
    assert_eq!(bed.refill(0, 1000), 5);
    finish(&bed);
}

#[test]
fn damaged_frames_give_every_buffer_back() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    bed.refill(0, 63);
    assert!(vf.deliver(&mut bed, &frame(1, 3_000), ERROR_CRC, 0));
    assert!(vf.deliver(&mut bed, &frame(2, 60), 0, 0));
    let got = bed.receive(0, 64);
    assert_eq!(got.len(), 3);
    assert!(got[0].bytes.is_empty() && got[1].bytes.is_empty());
    assert_eq!(got[2].bytes, frame(2, 60));
    assert_eq!(bed.filled(0), 60);
    finish(&bed);
}

#[test]
fn a_frame_of_too_many_pieces_is_given_back_whole() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    bed.refill(0, 63);
    assert!(vf.deliver(&mut bed, &frame(1, 20 * 2048), 0, 0));
    assert!(vf.deliver(&mut bed, &frame(2, 60), 0, 0));
    let got = bed.receive(0, 64);
    assert_eq!(got.iter().filter(|f| f.bytes.is_empty()).count(), 20);
    assert_eq!(got.last().unwrap().bytes, frame(2, 60));
    assert_eq!(bed.filled(0), 63 - 21);
    finish(&bed);
}

#[test]
fn an_own_broadcast_is_discarded_and_no_error() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    bed.refill(0, 63);
    let mut own = frame(1, 60);
    own[..6].fill(0xff);
    own[6..12].copy_from_slice(&MAC);
    assert!(vf.deliver(&mut bed, &own, 0, 0));
    assert!(vf.deliver(&mut bed, &frame(2, 60), 0, 0));
    let got = bed.receive(0, 64);
    assert_eq!(got[0].flags & RX_DISCARD, RX_DISCARD);
    assert_eq!((got[1].flags, &got[1].bytes), (0, &frame(2, 60)));
    assert_eq!(bed.filled(0), 61);
    finish(&bed);
}

#[test]
fn without_buffers_the_ring_is_filled_as_far_as_they_go() {
    let mut bed = bed(64);
    bed.limit_buffers(10);
    assert_eq!(bed.refill(0, 63), 10);
    assert_eq!(bed.register(RX + TAIL), 10);
    assert_eq!(bed.refill(0, 63), 0);
    finish(&bed);
}

#[test]
fn arming_tells_of_work_that_waits() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    bed.refill(0, 63);
    assert_eq!(bed.arm(0), 0);
    assert_eq!(bed.register(EIMS), 1 << 1);
    assert_eq!(bed.arm(1), 0);
    assert_eq!(bed.register(EIMS), 1 << 0);
    assert_eq!(bed.disarm(0), 0);
    assert_eq!(bed.register(EIMC), 1 << 1);
    vf.deliver(&mut bed, &frame(1, 60), 0, 0);
    assert_eq!(bed.arm(0), WORK_WAITS);
    bed.send(1, &[Sent::plain(&frame(1, 60))]);
    assert_eq!(bed.arm(1), 0);
    vf.transmit(&mut bed, 1);
    assert_eq!(bed.arm(1), WORK_WAITS);
    finish(&bed);
}

#[test]
fn dense_traffic_gets_a_longer_interval() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    let at_first = bed.register(EITR0 + 4) & 0x7ffc;
    for _ in 0..4 {
        bed.refill(0, 63);
        for seed in 0..32 {
            assert!(vf.deliver(&mut bed, &frame(seed, 60), 0, 0));
        }
        assert_eq!(bed.receive(0, 64).len(), 32);
        bed.arm(0);
    }
    assert_eq!(bed.register(EITR0 + 4) & 0x7ffc, at_first << 4);
    finish(&bed);
}

/// A guest that never comes to arm is not interrupted at the interval of sparse traffic.
#[test]
fn a_poll_that_uses_all_of_its_budget_gets_the_longest_interval_at_once() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    let at_first = bed.register(EITR0 + 4) & 0x7ffc;
    bed.refill(0, 63);
    for seed in 0..32 {
        assert!(vf.deliver(&mut bed, &frame(seed, 60), 0, 0));
    }
    assert_eq!(bed.receive(0, 31).len(), 31);
    assert_eq!(bed.register(EITR0 + 4) & 0x7ffc, 1_000 << 2);
    assert_eq!(bed.receive(0, 31).len(), 1);
    for seed in 0..16 {
        bed.arm(0);
        vf.deliver(&mut bed, &frame(seed, 60), 0, 0);
        assert_eq!(bed.receive(0, 31).len(), 1);
    }
    bed.arm(0);
    assert_eq!(bed.register(EITR0 + 4) & 0x7ffc, at_first, "traffic is sparse again");
    finish(&bed);
}

#[test]
fn quiesce_stops_both_queues() {
    let mut bed = bed(64);
    assert_eq!(bed.quiesce(), 0);
    assert_eq!(bed.register(TX + CONTROL) & 1 << 25, 0);
    assert_eq!(bed.register(RX + CONTROL) & 1 << 25, 0);
    assert_eq!(bed.register(EIMC), 3);
    finish(&bed);
}

#[test]
fn what_came_before_the_quiesce_is_still_there_after_it() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    bed.refill(0, 32);
    for seed in 0..5 {
        vf.deliver(&mut bed, &frame(seed, 60), 0, 0);
    }
    assert_eq!(bed.quiesce(), 0);
    assert_eq!(bed.receive(0, 64).len(), 5);
    assert_eq!(bed.receive(0, 64).len(), 0);
    finish(&bed);
}

#[test]
fn a_device_that_is_gone_costs_an_error_and_no_more() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    bed.refill(0, 32);
    bed.send(1, &[Sent::plain(&frame(1, 60))]);
    vf.deliver(&mut bed, &frame(2, 60), 0, 0);
    bed.kill_window(WINDOW);
    assert_eq!(bed.receive(0, 64).len(), 1, "what came before is still good");
    assert_eq!(bed.reap(1), 0);
    assert_eq!(bed.send(1, &[Sent::plain(&frame(3, 60))]), 1);
    assert!(bed.refill(0, 64) > 0);
    bed.arm(0);
    bed.arm(1);
    bed.kill_window(WINDOW);
    assert_eq!(bed.quiesce(), ERR_DEVICE);
    bed.kill_window(WINDOW);
    assert_eq!(bed.reinit(0), ERR_DEVICE);
    assert_eq!(bed.reinit(1), ERR_DEVICE);
    finish(&bed);
}

#[test]
fn reinit_forgets_frames_and_buffers() {
    let (mut bed, mut vf) = (bed(64), Vf::default());
    bed.refill(0, 63);
    bed.send(1, &[Sent::plain(&frame(1, 60)), Sent::plain(&frame(2, 60))]);
    vf.transmit(&mut bed, 1);
    assert_eq!((bed.reinit(0), bed.reinit(1)), (0, 0));
    assert_eq!((bed.reap(1), bed.receive(0, 64).len()), (0, 0));
    assert_eq!(bed.refill(0, 63), 63);
    assert_eq!(bed.send(1, &[Sent::plain(&frame(3, 60))]), 1);
    vf.transmit(&mut bed, 9);
    assert_eq!(bed.reap(1), 1);
    finish(&bed);
}

#[test]
fn wrong_queues_and_instances_are_refused() {
    let mut bed = bed(64);
    assert_eq!(bed.arm(2), ERR_QUEUE);
    assert_eq!(bed.reap(0), ERR_QUEUE);
    assert_eq!(bed.refill(1, 1), ERR_QUEUE);
    let setup = |buffer_length, window_length, vectors, entries| Setup {
        pairs: 1,
        entries,
        buffer_length,
        window_length,
        vectors,
        device_info: [0; 32],
    };
    for setup in [
        setup(512, WINDOW, 2, 64),
        setup(2048, WINDOW - 4096, 2, 64),
        setup(2048, WINDOW, 1, 64),
        setup(2048, WINDOW, 2, 16),
    ] {
        let mut bed = Bed::new(igbvf_plugin::entry, &igbvf_plugin::HEADER, &setup);
        assert_eq!(bed.sw_init(), ERR_CONFIG, "{setup:?}");
        assert_eq!(bed.quiesce(), ERR_CONFIG, "before a good sw_init nothing works");
    }
}
