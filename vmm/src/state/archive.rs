//! The archive's bytes. All of what is read is hostile until it was checked: lengths against what
//! there is, checksums, types.
//!
//! ```text
//! 0   8  magic
//! 8   2  format, little endian here and below
//! 10  2  number of payloads
//! 12     payloads, one after the other:
//!        1  length of the kind, then the kind
//!        1  length of the instance, then the instance
//!        2  version
//!        4  length of the body
//!        32 SHA-256 of kind, instance, version (as they stand here) and body
//!           body: CBOR (RFC 8949)
//! ```

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{Payload, StateError};

const MAGIC: [u8; 8] = *b"npastate";

/// The format of archives, of which payload versions are independent.
pub const FORMAT: u16 = 1;

/// Most bytes of an archive: 254 vCPUs and 31 functions stay far below.
pub const MAX_LENGTH: usize = 16 << 20;

/// Nested arrays and maps in a payload; deeper ones are an attack on the decoder's stack.
const DEPTH: usize = 16;

const NAME_MAX: usize = 32;

/// An archive in the making.
#[derive(Default)]
pub struct ArchiveBuilder {
    payloads: Vec<u8>,
    count: u16,
}

impl ArchiveBuilder {
    /// Adds the payload of one component.
    ///
    /// # Errors
    /// [`StateError::Unsaveable`] when it does not encode.
    ///
    /// # Panics
    /// When kind or instance are longer than a component's name may be: a mistake in code.
    pub fn put<P: Payload>(&mut self, instance: &str, payload: &P) -> Result<(), StateError> {
        assert!((1..=NAME_MAX).contains(&P::KIND.len()) && instance.len() <= NAME_MAX);
        let mut body = Vec::new();
        ciborium::into_writer(payload, &mut body)
            .map_err(|error| StateError::unsaveable::<P>(instance, error.to_string()))?;
        let mut head = Vec::with_capacity(4 + P::KIND.len() + instance.len());
        for name in [P::KIND, instance] {
            head.push(name.len() as u8);
            head.extend_from_slice(name.as_bytes());
        }
        head.extend_from_slice(&P::VERSION.to_le_bytes());
        self.payloads.extend_from_slice(&head);
        self.payloads.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.payloads.extend_from_slice(&checksum(&head, &body));
        self.payloads.extend_from_slice(&body);
        self.count += 1;
        Ok(())
    }

    /// The archive's bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.payloads);
        bytes
    }
}

fn checksum(head: &[u8], body: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(head);
    digest.update(body);
    digest.finalize().into()
}

/// An archive whose checksums are right, and of which nothing was taken yet.
#[derive(Debug)]
pub struct Archive {
    payloads: BTreeMap<(String, String), Stored>,
}

#[derive(Debug)]
struct Stored {
    version: u16,
    body: Vec<u8>,
}

impl Archive {
    /// Reads an archive, which is all of `bytes`.
    ///
    /// # Errors
    /// [`StateError`] says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, StateError> {
        if bytes.len() > MAX_LENGTH {
            return Err(StateError::TooLarge { len: bytes.len(), max: MAX_LENGTH });
        }
        let mut input = Input { bytes, at: 0 };
        if input.take(MAGIC.len()).map_err(|_| StateError::NotState)? != MAGIC {
            return Err(StateError::NotState);
        }
        let found = input.u16()?;
        if found != FORMAT {
            return Err(StateError::Format { found, known: FORMAT });
        }
        let count = input.u16()?;
        let mut payloads = BTreeMap::new();
        for _ in 0..count {
            let start = input.at;
            let (kind, instance) = (input.name()?, input.name()?);
            let version = input.u16()?;
            let head = &bytes[start..input.at];
            let len = input.u32()? as usize;
            let sum = input.take(32)?;
            let body = input.take(len)?;
            if checksum(head, body) != sum {
                return Err(StateError::Checksum { kind, instance });
            }
            let stored = Stored { version, body: body.to_vec() };
            if payloads.insert((kind.clone(), instance.clone()), stored).is_some() {
                return Err(StateError::Twice { kind, instance });
            }
        }
        if input.at != bytes.len() {
            return Err(StateError::Truncated { at: input.at });
        }
        Ok(Self { payloads })
    }

    /// Takes out the payload of one component.
    ///
    /// # Errors
    /// When it is missing, of another version, or not of type `P`.
    pub fn take<P: Payload>(&mut self, instance: &str) -> Result<P, StateError> {
        let owned = || instance.to_owned();
        let stored = self
            .payloads
            .remove(&(P::KIND.to_owned(), owned()))
            .ok_or_else(|| StateError::Missing { kind: P::KIND, instance: owned() })?;
        if stored.version != P::VERSION {
            return Err(StateError::Version {
                kind: P::KIND,
                instance: owned(),
                found: stored.version,
                known: P::VERSION,
            });
        }
        let mut body = stored.body.as_slice();
        let malformed = |reason| StateError::Malformed { kind: P::KIND, instance: owned(), reason };
        let payload = ciborium::de::from_reader_with_recursion_limit(&mut body, DEPTH)
            .map_err(|error| malformed(error.to_string()))?;
        match body.len() {
            0 => Ok(payload),
            left => Err(malformed(format!("{left} bytes are left over"))),
        }
    }

    /// Ends the restore.
    ///
    /// # Errors
    /// [`StateError::LeftOver`] when there are payloads that nobody took.
    pub fn finish(self) -> Result<(), StateError> {
        if self.payloads.is_empty() {
            return Ok(());
        }
        let name = |(kind, instance): &(String, String)| format!("{kind} {instance}");
        Err(StateError::LeftOver(self.payloads.keys().map(name).collect()))
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(StateError::Truncated { at: self.at })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, StateError> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, StateError> {
        Ok(u32::from(self.u16()?) | u32::from(self.u16()?) << 16)
    }

    /// A length of one byte and as many characters.
    fn name(&mut self) -> Result<String, StateError> {
        let at = self.at;
        let len = usize::from(self.take(1)?[0]);
        let name = self.take(len)?;
        let valid = len <= NAME_MAX && name.iter().all(|byte| byte.is_ascii_graphic());
        let text = std::str::from_utf8(name).ok().filter(|_| valid);
        text.map(str::to_owned).ok_or(StateError::Truncated { at })
    }
}

#[cfg(test)]
#[path = "archive_test.rs"]
mod tests;
