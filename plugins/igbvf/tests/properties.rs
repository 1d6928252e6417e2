//! Any order of what shell and device may do: every frame arrives once, in order and whole.

mod vf;

use std::collections::VecDeque;

use npa_plugin_sdk::testbed::{Offload, Sent};
use proptest::prelude::*;
use vf::{MAC, Vf, WINDOW, bed};

#[derive(Clone, Debug)]
enum Step {
    /// Frames, by the lengths of their segments.
    Send(Vec<Vec<usize>>),
    Transmit(usize),
    Reap,
    Refill(u32),
    Deliver(usize),
    Receive(u32),
    Arm(u32),
    Disarm(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let segments = proptest::collection::vec(1usize..3_000, 1..=18);
    prop_oneof![
        4 => proptest::collection::vec(segments, 1..6).prop_map(Step::Send),
        4 => (0usize..80).prop_map(Step::Transmit),
        3 => Just(Step::Reap),
        3 => (0u32..80).prop_map(Step::Refill),
        5 => (14usize..9_000).prop_map(Step::Deliver),
        4 => (0u32..40).prop_map(Step::Receive),
        1 => (0u32..2).prop_map(Step::Arm),
        1 => (0u32..2).prop_map(Step::Disarm),
    ]
}

/// A frame from another station with `seed` in it.
fn frame(seed: u32, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|i| (i as u32).wrapping_mul(seed) as u8).collect();
    let start: Vec<u8> = MAC.into_iter().chain([2, 9, 9, 9]).chain(seed.to_le_bytes()).collect();
    let count = length.min(start.len());
    bytes[..count].copy_from_slice(&start[..count]);
    bytes
}

proptest! {
    #[test]
    fn every_frame_arrives_once_in_order(
        steps in proptest::collection::vec(step(), 1..120),
        entries in prop_oneof![Just(64u32), Just(128), Just(1024)],
    ) {
        let (mut bed, mut vf) = (bed(entries), Vf::default());
        let mut seed = 0;
        let mut given: Vec<Vec<u8>> = Vec::new();
        let mut coming: VecDeque<Vec<u8>> = VecDeque::new();
        let mut completed = 0usize;
        for step in steps {
            match step {
                Step::Send(list) => {
                    let frames: Vec<Sent> = list
                        .into_iter()
                        .map(|cuts| {
                            seed += 1;
                            let bytes = frame(seed, cuts.iter().sum());
                            Sent { bytes, cuts, offload: Offload::default() }
                        })
                        .collect();
                    let taken = bed.send(1, &frames);
                    prop_assert!(taken >= 0);
                    given.extend(frames.into_iter().take(taken as usize).map(|f| f.bytes));
                }
                Step::Transmit(count) => vf.transmit(&mut bed, count),
                Step::Reap => {
                    let before = vf.wire.len();
                    completed += bed.reap(1) as usize;
                    prop_assert_eq!(completed, before, "completed what is on the wire");
                }
                Step::Refill(count) => {
                    let room = entries as usize - 1 - bed.filled(0);
                    let added = bed.refill(0, count);
                    prop_assert_eq!(added as usize, room.min(count as usize));
                }
                Step::Deliver(length) => {
                    seed += 1;
                    let bytes = frame(seed, length);
                    if vf.deliver(&mut bed, &bytes, 0, 0) {
                        coming.push_back(bytes);
                    }
                }
                Step::Receive(budget) => {
                    let got = bed.receive(0, budget);
                    prop_assert_eq!(got.len(), coming.len().min(budget as usize));
                    for received in got {
                        prop_assert_eq!(Some(received.bytes), coming.pop_front());
                    }
                }
                Step::Arm(queue) => prop_assert!(bed.arm(queue) >= 0),
                Step::Disarm(queue) => prop_assert_eq!(bed.disarm(queue), 0),
            }
        }
        vf.transmit(&mut bed, usize::MAX);
        bed.reap(1);
        prop_assert_eq!(bed.outstanding(1), 0);
        let wire: Vec<Vec<u8>> = vf.wire.into_iter().map(|frame| frame.bytes).collect();
        prop_assert_eq!(wire, given);
        prop_assert_eq!(bed.violations(), &[] as &[String]);
    }

    #[test]
    fn a_device_that_writes_nonsense_into_its_rings_breaks_nothing(
        noise in proptest::collection::vec((0u32..64, any::<u64>(), any::<u64>()), 1..60),
        budget in 0u32..80,
    ) {
        let mut bed = bed(64);
        bed.refill(0, 63);
        bed.send(1, &[Sent::plain(&frame(1, 60)), Sent::plain(&frame(2, 60))]);
        let (rx, _) = bed.queue_memory(0);
        let (tx, _) = bed.queue_memory(1);
        for (slot, low, high) in noise {
            for base in [rx, tx] {
                let place = base + 16 * u64::from(slot);
                prop_assert!(bed.dma().write(place, &low.to_le_bytes()));
                prop_assert!(bed.dma().write(place + 8, &high.to_le_bytes()));
            }
            bed.receive(0, budget);
            bed.reap(1);
            bed.refill(0, 8);
            bed.send(1, &[Sent::plain(&frame(3, 60))]);
        }
        prop_assert_eq!(bed.violations(), &[] as &[String]);
    }

    #[test]
    fn a_window_that_dies_at_any_time_ends_every_op(
        steps in proptest::collection::vec(step(), 1..40),
        death in 0usize..40,
    ) {
        let (mut bed, mut vf) = (bed(64), Vf::default());
        for (index, step) in steps.into_iter().enumerate() {
            let alive = index < death;
            if !alive {
                bed.kill_window(WINDOW);
            }
            match step {
                Step::Send(list) => {
                    let frames = list.iter().map(|cuts| frame(1, cuts.iter().sum()));
                    let frames: Vec<Sent> = frames.map(|bytes| Sent::plain(&bytes)).collect();
                    prop_assert!(bed.send(1, &frames) >= 0);
                }
                Step::Transmit(count) if alive => vf.transmit(&mut bed, count),
                Step::Deliver(length) if alive => {
                    vf.deliver(&mut bed, &frame(1, length), 0, 0);
                }
                Step::Transmit(_) | Step::Deliver(_) => {}
                Step::Reap => prop_assert!(bed.reap(1) >= 0),
                Step::Refill(count) => prop_assert!(bed.refill(0, count) >= 0),
                Step::Receive(budget) => {
                    bed.receive(0, budget);
                }
                Step::Arm(queue) => prop_assert!(bed.arm(queue) >= 0),
                Step::Disarm(queue) => prop_assert_eq!(bed.disarm(queue), 0),
            }
        }
        bed.quiesce();
        prop_assert_eq!(bed.violations(), &[] as &[String]);
    }
}
