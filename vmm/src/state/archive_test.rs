use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    ticks: u64,
    label: String,
}

impl Payload for Clock {
    const KIND: &'static str = "clock";
    const VERSION: u16 = 3;
}

/// A clock of the next version, which also shows an hour.
#[derive(Debug, Serialize, Deserialize)]
struct NewClock {
    ticks: u64,
    label: String,
    hour: u8,
}

impl Payload for NewClock {
    const KIND: &'static str = "clock";
    const VERSION: u16 = 4;
}

fn clock(ticks: u64) -> Clock {
    Clock { ticks, label: "wall".to_owned() }
}

fn two_clocks() -> Vec<u8> {
    let mut builder = ArchiveBuilder::default();
    builder.put("0", &clock(7)).unwrap();
    builder.put("1", &clock(8)).unwrap();
    builder.finish()
}

#[test]
fn what_goes_in_comes_out_once() {
    let mut archive = Archive::parse(&two_clocks()).unwrap();
    assert_eq!(archive.take::<Clock>("1").unwrap(), clock(8));
    assert_eq!(archive.take::<Clock>("0").unwrap(), clock(7));
    let again = archive.take::<Clock>("0").unwrap_err();
    assert!(matches!(again, StateError::Missing { kind: "clock", .. }), "{again}");
    archive.finish().unwrap();
}

#[test]
fn a_payload_that_nobody_took_is_named() {
    let mut archive = Archive::parse(&two_clocks()).unwrap();
    archive.take::<Clock>("0").unwrap();
    let error = archive.finish().unwrap_err();
    assert!(error.to_string().ends_with("clock 1"), "{error}");
}

#[test]
fn other_versions_say_which_vmm_to_use() {
    let mut archive = Archive::parse(&two_clocks()).unwrap();
    let error = archive.take::<NewClock>("0").unwrap_err();
    assert!(error.to_string().ends_with("version 3, and this vmm knows 4; use an older vmm"));
    let mut builder = ArchiveBuilder::default();
    builder.put("0", &NewClock { ticks: 1, label: String::new(), hour: 2 }).unwrap();
    let mut archive = Archive::parse(&builder.finish()).unwrap();
    let error = archive.take::<Clock>("0").unwrap_err();
    assert!(error.to_string().ends_with("use a newer vmm"), "{error}");
}

#[test]
fn another_format_and_other_files_are_told_apart() {
    let mut bytes = two_clocks();
    bytes[8] = 9;
    assert!(matches!(Archive::parse(&bytes), Err(StateError::Format { found: 9, known: 1 })));
    for other in [&b""[..], b"npa", b"\x7fELF\x02\x01\x01\0\0\0\0\0"] {
        assert!(matches!(Archive::parse(other), Err(StateError::NotState)));
    }
    let large = vec![0; MAX_LENGTH + 1];
    assert!(matches!(Archive::parse(&large), Err(StateError::TooLarge { .. })));
}

#[test]
fn a_component_cannot_be_there_twice() {
    let mut builder = ArchiveBuilder::default();
    builder.put("0", &clock(7)).unwrap();
    builder.put("0", &clock(7)).unwrap();
    assert!(matches!(Archive::parse(&builder.finish()), Err(StateError::Twice { .. })));
}

#[test]
fn every_flipped_bit_and_every_missing_byte_is_seen() {
    let bytes = two_clocks();
    for at in 0..bytes.len() {
        let error = Archive::parse(&bytes[..at]).unwrap_err();
        assert!(matches!(error, StateError::NotState | StateError::Truncated { .. }), "{error}");
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert!(Archive::parse(&damaged).is_err(), "byte {at}, bit {bit}");
        }
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(Archive::parse(&longer), Err(StateError::Truncated { .. })));
}

proptest! {
    /// Whoever can make checksums right can still only get an error out of it.
    #[test]
    fn bodies_of_any_bytes_are_refused_or_understood(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let head = b"\x05clock\x010\x03\0";
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[1, 0, 1, 0]);
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&checksum(head, &body));
        bytes.extend_from_slice(&body);
        let mut archive = Archive::parse(&bytes).unwrap();
        if let Err(error) = archive.take::<Clock>("0") {
            let malformed = matches!(error, StateError::Malformed { .. });
            prop_assert!(malformed);
        }
    }

    #[test]
    fn any_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Archive::parse(&bytes).is_err());
    }
}
