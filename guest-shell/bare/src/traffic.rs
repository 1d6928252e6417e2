//! Numbered frames, and the books of those that come in. Knows no machine.

/// EtherType of numbered frames (IEEE 802, local experimental 1).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Length of a numbered frame in bytes, without FCS.
pub(crate) const FRAME_LENGTH: usize = 64;

/// A frame from `from` to `to` with number `number`.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], number: u64) -> [u8; FRAME_LENGTH] {
    let mut bytes = [0; FRAME_LENGTH];
    let fields = to.into_iter().chain(from).chain(ETHERTYPE).chain(number.to_be_bytes());
    for (byte, value) in bytes.iter_mut().zip(fields) {
        *byte = value;
    }
    bytes
}

/// The number in a frame; `None` for another kind of frame.
fn number(bytes: &[u8]) -> Option<u64> {
    let (_, rest) = bytes.split_at_checked(12)?;
    let rest = rest.strip_prefix(&ETHERTYPE)?;
    rest.first_chunk().copied().map(u64::from_be_bytes)
}

/// Numbers remembered, to tell a late frame from a double one.
const WINDOW: usize = 4096;

/// Books of received frames. Counting begins with the first number that comes.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Numbered frames received.
    pub(crate) frames: u64,
    /// Frames that came twice.
    pub(crate) duplicated: u64,
    /// Frames that came after a later one.
    pub(crate) reordered: u64,
    /// Frames of other kinds.
    pub(crate) other: u64,
    first: Option<u64>,
    next: u64,
    /// By number modulo its length: the number seen there last, plus one.
    seen: [u64; WINDOW],
}

impl Received {
    /// Nothing received.
    pub(crate) const fn new() -> Self {
        Self {
            frames: 0,
            duplicated: 0,
            reordered: 0,
            other: 0,
            first: None,
            next: 0,
            seen: [0; WINDOW],
        }
    }

    /// Counts a frame.
    pub(crate) fn count(&mut self, bytes: &[u8]) {
        let Some(number) = number(bytes) else {
            self.other = self.other.wrapping_add(1);
            return;
        };
        let place = self.seen.get_mut((number % WINDOW as u64) as usize);
        let mark = number.wrapping_add(1);
        if place.as_deref() == Some(&mark) {
            self.duplicated = self.duplicated.wrapping_add(1);
            return;
        }
        if let Some(place) = place {
            *place = mark;
        }
        if self.first.is_none() {
            self.first = Some(number);
            self.next = number;
        }
        self.frames = self.frames.wrapping_add(1);
        if number < self.next {
            self.reordered = self.reordered.wrapping_add(1);
        } else {
            self.next = mark;
        }
    }

    /// Frames between the first and the latest that have not come.
    pub(crate) fn lost(&self) -> u64 {
        let expected = self.next.wrapping_sub(self.first.unwrap_or(self.next));
        expected.saturating_sub(self.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(numbers: &[u64]) -> Received {
        let mut received = Received::new();
        for number in numbers {
            received.count(&frame([1; 6], [2; 6], *number));
        }
        received
    }

    #[test]
    fn counts_what_happened() {
        let received = after(&[10, 11, 11, 14, 13, 15]);
        assert_eq!(received.frames, 5);
        assert_eq!(received.duplicated, 1);
        assert_eq!(received.reordered, 1);
        assert_eq!(received.lost(), 1);
    }

    #[test]
    fn other_frames_are_told_apart() {
        let mut received = after(&[]);
        received.count(&[0; 60]);
        received.count(&[0; 3]);
        assert_eq!((received.other, received.frames, received.lost()), (2, 0, 0));
    }
}
