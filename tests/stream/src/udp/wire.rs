//! The stream's messages: magic, kind, number; 32 bytes, little endian, padded to the frame size.

/// Bytes of a message before the padding.
pub(super) const HEADER: usize = 32;

const MAGIC: u64 = u64::from_le_bytes(*b"npastrm1");

/// A datagram's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Frame number `sequence`, from 0.
    Data { sequence: u64 },
    /// The sender ended after `sent` frames.
    Fin { sent: u64 },
    /// The FIN arrived.
    FinAck,
    /// This end listens; the other may begin.
    Hello,
    /// Answers a hello.
    HelloAck,
}

impl Message {
    /// Writes the message to the front of `frame`, at least [`HEADER`] bytes long.
    pub(super) fn write(self, frame: &mut [u8]) {
        let (kind, number) = match self {
            Self::Data { sequence } => (0u64, sequence),
            Self::Fin { sent } => (1, sent),
            Self::FinAck => (2, 0),
            Self::Hello => (3, 0),
            Self::HelloAck => (4, 0),
        };
        frame[..8].copy_from_slice(&MAGIC.to_le_bytes());
        frame[8..16].copy_from_slice(&kind.to_le_bytes());
        frame[16..24].copy_from_slice(&number.to_le_bytes());
        // Catches a frame whose payload was mixed with another's.
        frame[24..32].copy_from_slice(&(!number ^ kind).to_le_bytes());
    }

    /// Reads a datagram; `None` if it is not one of ours or is damaged.
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(frame.get(at..at + 8)?.try_into().ok()?));
        let (kind, number) = (word(8)?, word(16)?);
        if word(0)? != MAGIC || word(24)? != !number ^ kind {
            return None;
        }
        match kind {
            0 => Some(Self::Data { sequence: number }),
            1 => Some(Self::Fin { sent: number }),
            2 => Some(Self::FinAck),
            3 => Some(Self::Hello),
            4 => Some(Self::HelloAck),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire_and_damage_does_not() {
        for message in [
            Message::Data { sequence: 7 },
            Message::Fin { sent: 9 },
            Message::FinAck,
            Message::Hello,
            Message::HelloAck,
        ] {
            let mut frame = [0u8; 64];
            message.write(&mut frame);
            assert_eq!(Message::read(&frame), Some(message));
            for at in 0..HEADER {
                let mut damaged = frame;
                damaged[at] ^= 0x40;
                assert_eq!(Message::read(&damaged), None, "byte {at}");
            }
            assert_eq!(Message::read(&frame[..HEADER - 1]), None);
        }
    }
}
