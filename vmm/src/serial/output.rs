//! What the guest wrote and nobody has read yet: bounded, the oldest bytes go first.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

/// Bytes kept for a reader that is slow or not there yet; a whole boot log fits.
const CAPACITY: usize = 256 * 1024;

/// The buffer between the UART and the console's other end; clones share it.
#[derive(Clone)]
pub(super) struct Output {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    /// Signalled when the buffer stops being empty.
    filled: Arc<EventFd>,
}

impl Output {
    /// An empty buffer that signals `filled`.
    pub(super) fn new(filled: Arc<EventFd>) -> Self {
        Self { bytes: Arc::default(), filled }
    }

    /// Whether there is nothing to read.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.lock().unwrap().is_empty()
    }

    /// Hands the oldest bytes, at most `max`, to `write`, and forgets as many as it took.
    /// Returns that number.
    pub(super) fn drain(
        &self,
        max: usize,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().unwrap();
        let chunk: Vec<u8> = bytes.iter().take(max).copied().collect();
        // The guest must not wait for the reader, so the lock is not held while writing; what
        // the guest adds meanwhile may push out the very bytes that are being written.
        drop(bytes);
        let written = write(&chunk)?;
        bytes = self.bytes.lock().unwrap();
        let gone = written.min(bytes.len());
        bytes.drain(..gone);
        Ok(written)
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().unwrap();
        let was_empty = bytes.is_empty();
        bytes.extend(data);
        let surplus = bytes.len().saturating_sub(CAPACITY);
        bytes.drain(..surplus);
        drop(bytes);
        if was_empty {
            self.filled.write(1)?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    fn output() -> Output {
        Output::new(Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()))
    }

    fn text(output: &Output, max: usize) -> Vec<u8> {
        let mut text = Vec::new();
        let take = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            Ok(bytes.len())
        };
        output.drain(max, take).unwrap();
        text
    }

    #[test]
    fn first_in_first_out() {
        let mut output = output();
        output.write_all(b"hello").unwrap();
        assert_eq!(output.filled.read().unwrap(), 1);
        assert_eq!(text(&output, 2), b"he");
        assert_eq!(text(&output, 10), b"llo");
        assert!(output.is_empty());
    }

    #[test]
    fn a_short_write_keeps_the_rest() {
        let mut output = output();
        output.write_all(b"abc").unwrap();
        output.drain(3, |_| Ok(1)).unwrap();
        assert_eq!(text(&output, 3), b"bc");
    }

    #[test]
    fn the_oldest_go_first() {
        let mut output = output();
        output.write_all(&vec![b'a'; CAPACITY]).unwrap();
        output.write_all(b"z").unwrap();
        let all = text(&output, CAPACITY + 1);
        assert_eq!((all.len(), all.last()), (CAPACITY, Some(&b'z')));
    }
}
