//! Frames that did not come from the backend just now: handed over by the host that the VM came
//! from, or held back. They are delivered before the backend's.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;

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

/// `frames` without those of `seen`, each of which stands for one of its equals: a network that
/// floods has given both hosts a copy.
pub(super) fn without<'a>(
    frames: Vec<Arrival>,
    seen: impl IntoIterator<Item = &'a Arrival>,
) -> Vec<Arrival> {
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    for frame in seen {
        *counts.entry(frame.as_slice()).or_default() += 1;
    }
    let is_new = |frame: &Arrival| match counts.get_mut(frame.as_slice()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    frames.into_iter().filter(is_new).collect()
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
        let left = without(held, &[frame(1), frame(1), frame(9)]);
        assert_eq!(left, [frame(2), frame(3), frame(1)]);
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
