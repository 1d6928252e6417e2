//! The control side against a function that behaves, and functions that do not.

use super::super::fake_function::{FakeFunction, Mood, Queue};
use super::*;
use crate::vf_control::ControlRegion;

const CONFIG: VfConfig = VfConfig { mtu: 1500, multicast: Vec::new(), vlans: Vec::new() };
const RX: QueueMemory = QueueMemory { base: 0x1_2345_0000, length: 0x4000, entries: 256 };
const TX: QueueMemory = QueueMemory { base: 0x8000, length: 0x4000, entries: 128 };

fn function(mood: Mood) -> (FakeFunction, VirtioNet<FakeFunction>) {
    let function = FakeFunction::new(mood);
    (function.clone(), VirtioNet::new(function))
}

#[test]
fn nothing_comes_before_the_gate_is_open_and_nothing_after_it_is_closed() {
    let (function, mut control) = function(Mood::Well);
    let identity = control.init(&CONFIG).unwrap();
    assert_eq!(identity.mac, Some(MacAddr([0x52, 0x53, 0x54, 0x55, 0x56, 0x57])));
    assert!(control.link_up());
    assert_eq!(control.ring_limits(), [256, 256]);
    control.start(&[RX, TX]).unwrap();
    {
        let state = function.0.lock().unwrap();
        assert_eq!(state.status, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert!(state.rung.is_empty());
        let layout = QueueLayout::new(256);
        let addresses = [0, layout.driver, layout.device].map(|offset| RX.base + offset);
        assert_eq!(state.queues[0], Queue { size: 256, vector: 0, enabled: true, addresses });
        assert_eq!((state.queues[1].size, state.queues[1].vector), (128, 1));
        let accepted = u64::from(state.accepted[0]) | u64::from(state.accepted[1]) << 32;
        assert_eq!(accepted, FEATURES | ACCESS_PLATFORM | NET_MAC | NET_STATUS, "no control queue");
    }
    control.admit().unwrap();
    {
        let state = function.0.lock().unwrap();
        assert_eq!(state.status & DRIVER_OK, DRIVER_OK);
        let open = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        assert_eq!(state.rung, [(0x3000, 0, open), (0x3004, 1, open)]);
    }
    control.dismiss().unwrap();
    assert_eq!(function.0.lock().unwrap().status, 0);
    control.init(&CONFIG).unwrap();
    control.force_quiesce();
    assert_eq!(function.0.lock().unwrap().status, 0);
}

#[test]
fn the_plugin_learns_features_and_doorbells() {
    let (_, mut control) = function(Mood::Well);
    control.init(&CONFIG).unwrap();
    let mut words = [7; limits::DEVICE_INFO_WORDS];
    control.describe(&mut words);
    let first = VirtioInfo::FIRST_WORD;
    assert_eq!(words[..first], [7; 8], "the class's words");
    assert_eq!(u64::from(words[first]) & FEATURES, FEATURES & 0xffff_ffff);
    assert_eq!(words[first + 2..first + 4], [0, 4]);
}

#[test]
fn what_it_does_for_frames_is_what_was_negotiated() {
    for (mood, expected) in [(Mood::Well, Offloads::ALL), (Mood::NoChecksums, Offloads::default())]
    {
        let (_, mut control) = function(mood);
        control.init(&CONFIG).unwrap();
        assert_eq!(control.offloads(), expected);
    }
    assert_eq!(Offloads::ALL.beyond(Offloads::default()).len(), 3);
    assert!(Offloads::default().beyond(Offloads::default()).is_empty());
}

#[test]
fn functions_that_lie_are_refused_by_name() {
    let error = |mood| {
        let (_, mut control) = function(mood);
        let outcome = control
            .init(&CONFIG)
            .and_then(|_| control.start(&[RX, TX]))
            .and_then(|()| control.admit());
        outcome.unwrap_err().to_string()
    };
    assert!(error(Mood::Legacy).contains("legacy"));
    assert!(error(Mood::BypassesIommu).contains("IOMMU"));
    assert!(error(Mood::RefusesFeatures).contains("features"));
    assert!(error(Mood::NeverResets).contains("reset"));
    assert!(error(Mood::NoQueues).contains("no queue 0"));
    assert!(error(Mood::DoorbellsOutside).contains("doorbell"));
    assert!(error(Mood::NoVectors).contains("vector"));
    assert!(error(Mood::NeedsReset).contains("queues"));
    assert!(error(Mood::Removed).contains("removed"));
}

#[test]
fn queues_that_it_cannot_have_are_refused() {
    let (_, mut control) = function(Mood::Well);
    control.init(&CONFIG).unwrap();
    let long = QueueMemory { entries: 512, ..RX };
    assert!(control.start(&[long, TX]).unwrap_err().to_string().contains("256 entries"));
    assert!(control.start(&[RX]).is_err());
}

#[test]
fn a_region_is_read_at_every_width() {
    let function = FakeFunction::new(Mood::Removed);
    assert_eq!(function.read8(0), 0xff);
    assert_eq!(function.read16(0), 0xffff);
    assert_eq!(function.read32(0), u32::MAX);
}
