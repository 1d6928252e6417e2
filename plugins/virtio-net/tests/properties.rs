//! Any order of what shell and device may do, and a device that writes whatever it likes.

mod device;

use std::collections::VecDeque;

use device::{ALL, BUFFER, Chain, DeviceQueue, NO_EVENTS, PLAIN, bed};
use npa_plugin_sdk::testbed::{Offload, Sent};
use proptest::prelude::*;
use virtio_net_plugin::QueueLayout;

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<Vec<usize>>),
    Take(usize),
    /// Completes one of the chains that the device holds.
    Give(prop::sample::Index),
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
        4 => proptest::collection::vec(segments, 1..4).prop_map(Step::Send),
        4 => (0usize..20).prop_map(Step::Take),
        8 => any::<prop::sample::Index>().prop_map(Step::Give),
        3 => Just(Step::Reap),
        3 => (0u32..80).prop_map(Step::Refill),
        5 => (14usize..9_000).prop_map(Step::Deliver),
        4 => (0u32..40).prop_map(Step::Receive),
        1 => (0u32..2).prop_map(Step::Arm),
        1 => (0u32..2).prop_map(Step::Disarm),
    ]
}

fn frame(seed: u32, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u32 ^ seed.wrapping_mul(0x9e37)) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_frame_arrives_once_in_order(
        steps in proptest::collection::vec(step(), 1..120),
        entries in prop_oneof![Just(32u32), Just(64), Just(1024)],
        features in prop_oneof![Just(ALL), Just(NO_EVENTS)],
    ) {
        let mut bed = bed(features, entries);
        let mut rx = DeviceQueue::new(&bed, 0, features);
        let mut tx = DeviceQueue::new(&bed, 1, features);
        let mut seed = 0;
        let mut given = Vec::new();
        let mut wire = Vec::new();
        let mut held: Vec<Chain> = Vec::new();
        let mut coming: VecDeque<Vec<u8>> = VecDeque::new();
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
                Step::Take(count) => {
                    for _ in 0..count {
                        let Some(chain) = tx.take(&mut bed) else { break };
                        wire.push(tx.bytes(&mut bed, &chain).split_off(12));
                        held.push(chain);
                    }
                }
                Step::Give(which) if !held.is_empty() => {
                    let chain = held.swap_remove(which.index(held.len()));
                    tx.give(&mut bed, chain.head.into(), 0);
                }
                Step::Give(_) => {}
                Step::Reap => {
                    bed.reap(1);
                }
                Step::Refill(count) => {
                    let room = entries as usize - bed.filled(0);
                    prop_assert_eq!(bed.refill(0, count) as usize, room.min(count as usize));
                }
                Step::Deliver(length) => {
                    seed += 1;
                    let bytes = frame(seed, length);
                    if rx.deliver(&mut bed, PLAIN, &bytes) {
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
        while let Some(chain) = tx.take(&mut bed) {
            wire.push(tx.bytes(&mut bed, &chain).split_off(12));
            held.push(chain);
        }
        for chain in held {
            tx.give(&mut bed, chain.head.into(), 0);
        }
        bed.reap(1);
        prop_assert_eq!(bed.outstanding(1), 0);
        prop_assert_eq!(wire, given);
        prop_assert_eq!(bed.violations(), &[] as &[String]);
    }

    #[test]
    fn a_device_that_writes_nonsense_into_its_area_breaks_nothing(
        noise in proptest::collection::vec((any::<u16>(), 0u32..80, any::<u32>()), 1..80),
        headers in proptest::collection::vec(any::<[u8; 12]>(), 64),
        near in any::<bool>(),
    ) {
        let mut bed = bed(ALL, 64);
        let mut rx = DeviceQueue::new(&bed, 0, ALL);
        bed.refill(0, 64);
        let mut headers = headers.into_iter();
        while let Some(chain) = rx.take(&mut bed) {
            let mut header = headers.next().unwrap_or_default();
            header[11] = 0;
            header[10] %= 24;
            prop_assert!(bed.dma().write(chain.parts[0].0, &header));
        }
        bed.send(1, &[Sent::plain(&frame(1, 60)), Sent::plain(&frame(2, 60))]);
        for (index, id, length) in noise {
            let length = if near { length % (2 * BUFFER) } else { length };
            for queue in 0..2 {
                let (base, _) = bed.queue_memory(queue);
                let device = base + QueueLayout::new(64).device;
                let element = u64::from(id) | u64::from(length) << 32;
                let place = device + 4 + 8 * u64::from(index % 64);
                prop_assert!(bed.dma().write(place, &element.to_le_bytes()));
                let index = if near { index % 64 } else { index };
                prop_assert!(bed.dma().write(device + 2, &index.to_le_bytes()));
            }
            bed.receive(0, 16);
            bed.reap(1);
            bed.refill(0, 8);
            bed.send(1, &[Sent::plain(&frame(3, 60))]);
            bed.arm(0);
            bed.arm(1);
        }
        prop_assert_eq!(bed.violations(), &[] as &[String]);
    }
}
