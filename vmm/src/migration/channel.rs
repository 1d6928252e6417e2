//! A checked stream of messages between two hosts: each has a kind, a number, and a checksum, so
//! that a stream that is cut, damaged or out of step is an error at the message where it happens.
//! Knows nothing of what the messages mean.
//!
//! Each end first sends its [`Preamble`], then messages:
//!
//! ```text
//! 0  1  kind
//! 1  3  zero
//! 4  4  length of the body, little endian here and below
//! 8  4  number of the message, from 0, each direction for itself
//! 12 4  CRC-32 (IEEE) of the 12 bytes before and of the body
//! 16    body
//! ```

use std::io::{self, Read, Write};

use super::message::Kind;

const MAGIC: [u8; 8] = *b"npamove\0";

/// Version of the protocol: kinds and bodies of messages, and who sends what when.
pub const PROTOCOL: u16 = 1;

const HEADER: usize = 16;

/// A stream that failed, or what came over it.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end, or the network, does not answer.
    #[error("the other end does not answer; is the network cut?")]
    Silent,
    /// The other end is gone: its connection came to its end.
    #[error("the other end closed the connection")]
    Closed,
    /// The connection was reset, by the other end or by something on the way to it.
    #[error("the other end, or something on the way to it, closed the connection")]
    Reset,
    /// The system's reason.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// Another protocol altogether.
    #[error("the other end is no vmm, or the connection is not the kind it expects (tcp or tls)")]
    NotVmm,
    /// Another version.
    #[error(
        "the other end speaks version {found} of the protocol, and this vmm {PROTOCOL}; use equal versions"
    )]
    Version {
        /// Its version.
        found: u16,
    },
    /// No such kind, an impossible length, or a wrong number.
    #[error("the stream is out of step at message {number}")]
    OutOfStep {
        /// Number of the message.
        number: u32,
    },
    /// A wrong checksum.
    #[error("the stream is damaged: the checksum of message {number} is wrong")]
    Damaged {
        /// Number of the message.
        number: u32,
    },
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A socket's own time limit is told as one or the other.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Reset,
            _ => Self::Broken(error),
        }
    }
}

impl ChannelError {
    /// Whether it proves that the process at the other end no longer has the connection, which
    /// it never gives up while it may run the VM. A reset does not: firewalls send them too.
    pub fn proves_death(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

/// What a channel goes over.
pub trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// See the module.
pub struct Channel {
    stream: Box<dyn Stream>,
    sent: u32,
    received: u32,
    bytes: u64,
    body: Vec<u8>,
}

impl Channel {
    /// A channel over `stream`, whose time limits are those of the channel.
    ///
    /// # Errors
    /// When the other end does not begin as one should.
    pub fn open(mut stream: Box<dyn Stream>) -> Result<Self, ChannelError> {
        let mut preamble = MAGIC.to_vec();
        preamble.extend_from_slice(&PROTOCOL.to_le_bytes());
        stream.write_all(&preamble)?;
        stream.flush()?;
        let mut theirs = [0; 10];
        stream.read_exact(&mut theirs)?;
        if theirs[..8] != MAGIC {
            return Err(ChannelError::NotVmm);
        }
        let found = u16::from_le_bytes([theirs[8], theirs[9]]);
        if found != PROTOCOL {
            return Err(ChannelError::Version { found });
        }
        Ok(Self { stream, sent: 0, received: 0, bytes: 0, body: Vec::new() })
    }

    /// Bytes sent so far.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes
    }

    /// Sends a message whose body is `parts`, one after the other.
    ///
    /// # Errors
    /// When the stream does not take it.
    pub(super) fn send(&mut self, kind: Kind, parts: &[&[u8]]) -> Result<(), ChannelError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert!(len <= kind.longest());
        let mut header = [0; HEADER];
        header[0] = kind as u8;
        header[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        header[8..12].copy_from_slice(&self.sent.to_le_bytes());
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header[..12]);
        parts.iter().for_each(|part| checksum.update(part));
        header[12..].copy_from_slice(&checksum.finalize().to_le_bytes());
        self.stream.write_all(&header)?;
        for part in parts {
            self.stream.write_all(part)?;
        }
        self.stream.flush()?;
        self.sent = self.sent.wrapping_add(1);
        self.bytes += (HEADER + len) as u64;
        Ok(())
    }

    /// The next message, its body valid until the next call.
    ///
    /// # Errors
    /// When none comes in time, or it is not sound.
    pub(super) fn receive(&mut self) -> Result<(Kind, &[u8]), ChannelError> {
        let kind = self.advance()?;
        Ok((kind, &self.body))
    }

    /// The next message that says more than that the other end is alive.
    ///
    /// # Errors
    /// As [`Channel::receive`].
    pub(super) fn receive_word(&mut self) -> Result<(Kind, &[u8]), ChannelError> {
        loop {
            let kind = self.advance()?;
            if kind != Kind::Alive {
                return Ok((kind, &self.body));
            }
        }
    }

    fn advance(&mut self) -> Result<Kind, ChannelError> {
        let number = self.received;
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header)?;
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let len = word(4) as usize;
        let out_of_step = ChannelError::OutOfStep { number };
        let Some(kind) = Kind::from_code(header[0]) else { return Err(out_of_step) };
        // Before anything is believed to be that long.
        if len > kind.longest() || word(8) != number || header[1..4] != [0; 3] {
            return Err(out_of_step);
        }
        self.body.clear();
        self.body.resize(len, 0);
        self.stream.read_exact(&mut self.body)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header[..12]);
        checksum.update(&self.body);
        if checksum.finalize() != word(12) {
            return Err(ChannelError::Damaged { number });
        }
        self.received = self.received.wrapping_add(1);
        Ok(kind)
    }
}

#[cfg(test)]
#[path = "channel_test.rs"]
mod tests;
