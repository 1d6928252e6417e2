//! The control port: how the agent in a lab host talks to this program on the build machine.
//! One direction (lab host to build machine), over a virtio-serial port, so that the console
//! stays the kernel's. A frame is a kind byte, a little-endian u32 length and a payload.

/// Longest payload that is accepted; the agent sends pieces of at most 64 KiB.
const MAX_PAYLOAD: usize = 1 << 20;
const HEADER: usize = 5;

/// Name of the virtio-serial port.
pub(crate) const PORT: &str = "npa.control";

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The agent runs and starts the command.
    Ready,
    /// A CPU's timer went off for the n-th time.
    Beat {
        /// The CPU's number.
        cpu: u32,
        /// How often so far.
        count: u32,
    },
    /// The command printed this on standard output.
    Stdout(Vec<u8>),
    /// The command printed this on standard error.
    Stderr(Vec<u8>),
    /// The command ended with this exit status; nothing follows.
    Exit(i32),
}

/// A stream that is no sequence of frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged frame on the control port (kind {kind}, length {length})")]
pub(crate) struct Damaged {
    kind: u8,
    length: usize,
}

impl Frame {
    /// The frame as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::Ready => (1, Vec::new()),
            Self::Beat { cpu, count } => (2, [cpu.to_le_bytes(), count.to_le_bytes()].concat()),
            Self::Stdout(bytes) => (3, bytes.clone()),
            Self::Stderr(bytes) => (4, bytes.clone()),
            Self::Exit(status) => (5, status.to_le_bytes().to_vec()),
        };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = vec![kind];
        bytes.extend(length.to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    fn parse(kind: u8, payload: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(payload.get(at..at + 4)?.try_into().ok()?));
        match (kind, payload.len()) {
            (1, 0) => Some(Self::Ready),
            (2, 8) => Some(Self::Beat { cpu: word(0)?, count: word(4)? }),
            (3, _) => Some(Self::Stdout(payload.to_vec())),
            (4, _) => Some(Self::Stderr(payload.to_vec())),
            (5, 4) => Some(Self::Exit(word(0)?.cast_signed())),
            _ => None,
        }
    }
}

/// Takes bytes as they come and gives whole frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Adds received bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Damaged> {
        let Some((header, rest)) = self.pending.split_at_checked(HEADER) else { return Ok(None) };
        let kind = header[0];
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > MAX_PAYLOAD {
            return Err(Damaged { kind, length });
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::parse(kind, payload).ok_or(Damaged { kind, length })?;
        self.pending.drain(..HEADER + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Ready,
            Frame::Beat { cpu: 1, count: 70_000 },
            Frame::Stdout(b"hello\n".to_vec()),
            Frame::Stderr(Vec::new()),
            Frame::Exit(-9),
        ]
    }

    #[test]
    fn frames_survive_any_split_of_the_stream() {
        let bytes: Vec<u8> = frames().iter().flat_map(Frame::encode).collect();
        for piece in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for chunk in bytes.chunks(piece) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames());
        }
    }

    #[test]
    fn damage_is_an_error() {
        for bytes in [[9, 0, 0, 0, 0], [3, 0, 0, 0, 0x7f], [5, 0, 0, 0, 0]] {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            assert!(decoder.next().is_err());
        }
    }
}
