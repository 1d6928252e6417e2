//! Frames that did not come from the backend just now: handed over by the host that the VM came
//! from, or held back. They are delivered before the backend's.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::backend::FrameBackend;
use super::config::MacAddress;
use super::header::{HEADER_LEN, LONGEST};
use crate::virtio::arrivals::{Arrival, Intake};

/// Most frames kept: many times what a tap holds.
const MOST_FRAMES: usize = 65_536;

/// Most bytes kept.
const MOST_BYTES: usize = 64 << 20;

/// See the module.
pub(super) struct Pending {
    pub(super) intake: Intake,
    frames: VecDeque<Arrival>,
    bytes: usize,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self { intake: Intake::Open, frames: VecDeque::new(), bytes: 0 }
    }

    /// Appends frames; returns how many there was no room for.
    pub(super) fn append(&mut self, frames: impl IntoIterator<Item = Arrival>) -> u64 {
        let mut lost = 0;
        for frame in frames {
            if self.frames.len() >= MOST_FRAMES || self.bytes + frame.len() > MOST_BYTES {
                lost += 1;
                continue;
            }
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
        lost
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// The next frame to deliver.
    pub(super) fn front(&self) -> Option<&[u8]> {
        self.frames.front().map(Vec::as_slice)
    }

    /// The front frame is delivered.
    pub(super) fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.len();
        }
    }

    /// Takes all frames.
    pub(super) fn take(&mut self) -> Vec<Arrival> {
        self.bytes = 0;
        std::mem::take(&mut self.frames).into()
    }
}

/// Reads what the backend holds, at most what is kept here.
pub(super) fn read_all(backend: &impl FrameBackend) -> Vec<Arrival> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; HEADER_LEN + LONGEST as usize];
    while frames.len() < MOST_FRAMES {
        match rustix::io::read(backend.as_fd(), &mut buffer) {
            Ok(len) if len >= HEADER_LEN => frames.push(buffer[..len].to_vec()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    frames
}

/// Throws away what the backend holds; returns how many frames that were.
pub(super) fn discard_all(backend: &impl FrameBackend) -> u64 {
    read_all(backend).len() as u64
}

/// How much later than the source's copy of a frame this host's may come: the way through the
/// switches and queues of a host that is busy with the move.
const STRAGGLING: Duration = Duration::from_millis(250);

/// Frames that the source has handed over, each of which stands for one copy that a network that
/// floods gives this host too.
pub(super) struct Copies {
    expected: HashMap<Arrival, usize>,
    met: bool,
}

impl Copies {
    /// Expects a copy of each of `frames`.
    pub(super) fn of<'a>(frames: impl IntoIterator<Item = &'a Arrival>) -> Self {
        let mut expected = HashMap::new();
        for frame in frames {
            *expected.entry(frame.clone()).or_default() += 1;
        }
        Self { expected, met: false }
    }

    /// `frames` without copies.
    pub(super) fn strip(&mut self, mut frames: Vec<Arrival>) -> Vec<Arrival> {
        frames.retain(|frame| match self.expected.get_mut(frame.as_slice()) {
            Some(count) if *count > 0 => {
                *count -= 1;
                self.met = true;
                false
            }
            _ => true,
        });
        frames
    }

    /// What of `latest` may still be on its way here at `now`: `None` where no copy has come, since
    /// then the network does not flood, and a frame that is like an earlier one is a frame.
    pub(super) fn stragglers(mut self, latest: &[Arrival], now: Instant) -> Option<Stragglers> {
        if !self.met {
            return None;
        }
        self.expected.retain(|frame, count| *count > 0 && latest.contains(frame));
        (!self.expected.is_empty()).then_some(Stragglers { copies: self, until: now + STRAGGLING })
    }
}

/// Copies that are still expected, for a moment.
pub(super) struct Stragglers {
    copies: Copies,
    until: Instant,
}

impl Stragglers {
    /// `frames` without copies.
    pub(super) fn strip(&mut self, frames: Vec<Arrival>) -> Vec<Arrival> {
        self.copies.strip(frames)
    }

    /// Whether none is expected any more.
    pub(super) fn are_over(&self, now: Instant) -> bool {
        now >= self.until
    }
}

/// Sends a reverse ARP request for `mac` (RFC 903), by which switches learn where it is; no host
/// answers it.
pub(super) fn announce(backend: &impl AsFd, mac: MacAddress) -> io::Result<()> {
    /// Shortest Ethernet frame, less its checksum.
    const SHORTEST: usize = 60;
    let mut frame = vec![0; HEADER_LEN];
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&0x8035_u16.to_be_bytes());
    // Ethernet, IPv4, address lengths, operation "request reverse".
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 3]);
    for _ in 0..2 {
        frame.extend_from_slice(&mac.0);
        frame.extend_from_slice(&[0; 4]);
    }
    frame.resize(HEADER_LEN + SHORTEST, 0);
    rustix::io::write(backend, &frame)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_dropped_one_for_one() {
        let frame = |tag: u8| vec![tag; 20];
        let held = vec![frame(1), frame(2), frame(1), frame(3), frame(1)];
        let mut copies = Copies::of(&[frame(1), frame(1), frame(9)]);
        assert_eq!(copies.strip(held), [frame(2), frame(3), frame(1)]);
    }

    #[test]
    fn only_the_latest_frames_have_stragglers_and_only_where_the_network_floods() {
        let frame = |tag: u8| vec![tag; 20];
        let now = Instant::now();
        let (seen, late) = ([frame(1)], [frame(2), frame(3), frame(3)]);
        let expected = || Copies::of(late.iter().chain(&seen));
        let mut copies = expected();
        assert_eq!(copies.strip(vec![frame(4)]).len(), 1);
        assert!(copies.stragglers(&late, now).is_none(), "no copy has come");
        let mut copies = expected();
        assert!(copies.strip(vec![frame(2)]).is_empty());
        let mut stragglers = copies.stragglers(&late, now).unwrap();
        let arrived = vec![frame(1), frame(3), frame(2), frame(3), frame(3)];
        assert_eq!(stragglers.strip(arrived), [frame(1), frame(2), frame(3)]);
        assert!(!stragglers.are_over(now) && stragglers.are_over(now + STRAGGLING));
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let mut pending = Pending::new();
        let frames = std::iter::repeat_with(|| vec![0; 14]).take(MOST_FRAMES + 3);
        assert_eq!(pending.append(frames), 3);
        assert_eq!(pending.take().len(), MOST_FRAMES);
        assert_eq!(pending.append([vec![0; MOST_BYTES], vec![0; 1]]), 1);
        pending.pop();
        assert_eq!(pending.append([vec![0; 1]]), 0);
    }
}
