//! What two hosts tell each other about a VM that moves. Bodies are CBOR unless said otherwise;
//! each kind has a longest body, and nothing longer is ever believed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::MigrationError;
use crate::state::MAX_LENGTH;
use crate::virtio::Arrival;
use crate::vm::dirty::PAGE;
use crate::vm::{CpuModel, Shape};

/// Most pages in one message.
pub(super) const PAGES_MAX: u64 = 64;

/// Most bytes of arrivals in one message.
pub(super) const ARRIVALS_MAX: usize = 4 << 20;

const TEXT_MAX: usize = 64 << 10;

/// Nested arrays and maps in a body.
const DEPTH: usize = 16;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Both ends, first of all: [`Hello`].
    Hello = 1,
    /// Source: 8 bytes of guest physical address, then whole pages.
    Pages = 2,
    /// Source: 8 bytes of guest physical address and 8 bytes of length; these pages are zero.
    Zeroes = 3,
    /// Source: a pass over memory ends; empty.
    RoundEnd = 4,
    /// Destination: all of the pass has arrived; empty.
    RoundTaken = 5,
    /// Either end: nothing to say, but alive; empty.
    Alive = 6,
    /// Source: [`Final`], after all of memory. The source holds the VM.
    Final = 7,
    /// Source: the state archive, after [`Kind::Final`].
    State = 8,
    /// Destination: memory and state fit, and the VM could run; empty.
    Ready = 9,
    /// Source: [`Arrivals`] that the guest has not got, before [`Kind::Go`] and after
    /// [`Kind::Running`].
    Arrivals = 10,
    /// Source: the VM is yours; empty. The source runs it no more unless the destination dies.
    Go = 11,
    /// Destination: the VM runs here, and the network was told; empty.
    Running = 12,
    /// Source: there will be no more arrivals; empty.
    End = 13,
    /// Destination: all arrivals are with the guest; how many of them are lost, if it knows.
    Done = 14,
    /// Either end, before [`Kind::Go`]: it does not go on; a text says why.
    GiveUp = 15,
}

impl Kind {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Hello,
            2 => Self::Pages,
            3 => Self::Zeroes,
            4 => Self::RoundEnd,
            5 => Self::RoundTaken,
            6 => Self::Alive,
            7 => Self::Final,
            8 => Self::State,
            9 => Self::Ready,
            10 => Self::Arrivals,
            11 => Self::Go,
            12 => Self::Running,
            13 => Self::End,
            14 => Self::Done,
            15 => Self::GiveUp,
            _ => return None,
        })
    }

    /// Most bytes of a body.
    pub(super) fn longest(self) -> usize {
        match self {
            Self::Hello => 1 << 20,
            Self::Pages => 8 + (PAGES_MAX * PAGE) as usize,
            Self::Zeroes => 16,
            Self::State => MAX_LENGTH,
            Self::Arrivals => ARRIVALS_MAX + (128 << 10),
            Self::Final => 256,
            Self::Done => 16,
            Self::GiveUp => TEXT_MAX,
            Self::RoundEnd
            | Self::RoundTaken
            | Self::Alive
            | Self::Ready
            | Self::Go
            | Self::Running
            | Self::End => 0,
        }
    }
}

/// Who an end is and what it has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hello {
    /// Version of its vmm, for people.
    pub(super) vmm: String,
    /// Its VM.
    pub(super) shape: Shape,
    /// Its CPUs.
    pub(super) cpus: CpuModel,
}

/// What the destination needs to know beside the state.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Final {
    /// The VM was paused by its operator, and stays so.
    pub(super) paused: bool,
    /// Checksum of all memory ([`super::pages::checksum`]), when that is to be checked.
    pub(super) memory: Option<u32>,
}

/// What arrived for one device and the guest has not got, oldest first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceArrivals {
    /// Name of the device.
    pub(super) device: String,
    /// Units, each as it came from the backend.
    pub(super) units: Vec<Unit>,
}

/// One unit, as one byte string.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unit(pub(super) Arrival);

impl Serialize for Unit {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Unit;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Unit, E> {
                Ok(Unit(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Unit, E> {
                Ok(Unit(bytes))
            }
        }
        from.deserialize_byte_buf(Bytes)
    }
}

/// Most characters of another host's words that are shown.
const SHOWN_MAX: usize = 1000;

/// What another host says, fit for a terminal and a log: it may say anything.
pub(super) fn readable(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars().take(SHOWN_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Only a writer or a type that refuses can fail, and neither is there.
    let encoded = ciborium::into_writer(value, &mut bytes);
    debug_assert!(encoded.is_ok());
    bytes
}

pub(super) fn decode<T: DeserializeOwned>(
    body: &[u8],
    expected: &'static str,
) -> Result<T, MigrationError> {
    ciborium::de::from_reader_with_recursion_limit(body, DEPTH)
        .map_err(|error| MigrationError::Unexpected { got: format!("rubbish ({error})"), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_kinds_are_one_to_one() {
        for code in 0..=u8::MAX {
            assert!(Kind::from_code(code).is_none_or(|kind| kind as u8 == code));
        }
        assert_eq!((0..=u8::MAX).filter_map(Kind::from_code).count(), 15);
    }

    #[test]
    fn what_the_other_end_says_is_harmless() {
        assert_eq!(readable("no \u{1b}[2J room\n\u{fffd}".as_bytes()), "no ?[2J room?\u{fffd}");
        assert_eq!(readable(&[0xff; 5000]).chars().count(), SHOWN_MAX);
    }

    #[test]
    fn arrivals_are_byte_strings_of_any_length() {
        let arrivals = DeviceArrivals {
            device: "net0".to_owned(),
            units: vec![Unit(vec![7; 65_000]), Unit(Vec::new())],
        };
        let bytes = encode(&arrivals);
        assert!(bytes.len() < 65_100);
        let back: DeviceArrivals = decode(&bytes, "arrivals").unwrap();
        assert_eq!((back.device, back.units), (arrivals.device, arrivals.units));
        assert!(decode::<Final>(&bytes, "the end of memory").is_err());
    }
}
