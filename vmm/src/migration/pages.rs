//! Copies guest memory, a run of pages at a time, and finds the pages that are zero. Where the
//! pages go is somebody else's business.

use vm_memory::{Bytes, GuestAddress};

use super::error::MigrationError;
use super::message::PAGES_MAX;
use crate::vm::dirty::PAGE;
use crate::vm::{GuestRam, PageSet, RamRange};

/// Takes pages, in ascending order within one call of [`copy`].
pub(super) trait PageSink {
    /// `bytes`, whole pages that are not zero, from guest physical address `gpa` on.
    fn pages(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), MigrationError>;

    /// `len` bytes of zero pages from `gpa` on.
    fn zeroes(&mut self, gpa: u64, len: u64) -> Result<(), MigrationError>;
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    /// Pages with content.
    pub(super) pages: u64,
    /// Pages of zeroes.
    pub(super) zeroes: u64,
}

fn is_zero(page: &[u8]) -> bool {
    const ZEROES: [u8; PAGE as usize] = [0; PAGE as usize];
    page == ZEROES
}

/// Hands all pages of `set` to `sink`.
pub(super) fn copy(
    ram: &GuestRam,
    set: &PageSet,
    sink: &mut dyn PageSink,
) -> Result<Copied, MigrationError> {
    let mut copied = Copied::default();
    let mut buffer = vec![0; (PAGES_MAX * PAGE) as usize];
    for run in set.runs(PAGES_MAX) {
        let bytes = &mut buffer[..run.bytes() as usize];
        ram.read_slice(bytes, GuestAddress(run.gpa))
            .map_err(|_| MigrationError::NotRam { gpa: run.gpa, len: run.bytes() })?;
        let mut at = 0;
        for (zero, group) in grouped(bytes) {
            let (gpa, len) = (run.gpa + at, group.len() as u64);
            if zero {
                copied.zeroes += len / PAGE;
                sink.zeroes(gpa, len)?;
            } else {
                copied.pages += len / PAGE;
                sink.pages(gpa, group)?;
            }
            at += len;
        }
    }
    Ok(copied)
}

/// Splits whole pages into runs that are zero, or not.
fn grouped(bytes: &[u8]) -> Vec<(bool, &[u8])> {
    let page = PAGE as usize;
    let kinds: Vec<_> = bytes.chunks(page).map(is_zero).collect();
    let mut groups = Vec::new();
    let mut first = 0;
    for at in 1..=kinds.len() {
        if at == kinds.len() || kinds[at] != kinds[first] {
            groups.push((kinds[first], &bytes[first * page..at * page]));
            first = at;
        }
    }
    groups
}

/// Bytes between two signs of life of a long computation.
const SIGN_OF_LIFE: u64 = 16 << 20;

/// CRC-32 of all pages of `ranges` that are not zero, each run of them behind its address, in ascending
/// order; calls `alive` now and then. Zeroes are left out since they are most of a guest's memory.
pub(super) fn checksum<E>(
    ram: &GuestRam,
    ranges: &[RamRange],
    mut alive: impl FnMut() -> Result<(), E>,
) -> Result<u32, E> {
    let mut checksum = crc32fast::Hasher::new();
    let mut buffer = vec![0; (PAGES_MAX * PAGE) as usize];
    let mut silent = 0;
    for run in PageSet::all(ranges).runs(PAGES_MAX) {
        let bytes = &mut buffer[..run.bytes() as usize];
        // Ranges of RAM are RAM.
        if ram.read_slice(bytes, GuestAddress(run.gpa)).is_ok() {
            let mut gpa = run.gpa;
            for (zero, group) in grouped(bytes) {
                if !zero {
                    checksum.update(&gpa.to_le_bytes());
                    checksum.update(group);
                }
                gpa += group.len() as u64;
            }
        }
        silent += run.bytes();
        if silent >= SIGN_OF_LIFE {
            silent = 0;
            alive()?;
        }
    }
    Ok(checksum.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Memory;
    use crate::vm::layout::Layout;

    #[derive(Default)]
    struct Seen {
        pages: Vec<(u64, Vec<u8>)>,
        zeroes: Vec<(u64, u64)>,
    }

    impl PageSink for Seen {
        fn pages(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), MigrationError> {
            self.pages.push((gpa, bytes.to_vec()));
            Ok(())
        }

        fn zeroes(&mut self, gpa: u64, len: u64) -> Result<(), MigrationError> {
            self.zeroes.push((gpa, len));
            Ok(())
        }
    }

    #[test]
    fn content_and_zeroes_go_their_ways() {
        let memory = Memory::new(&Layout::new(2, 36).unwrap()).unwrap();
        memory.ram().write_obj(1_u8, GuestAddress(2 * PAGE - 1)).unwrap();
        memory.ram().write_obj(2_u8, GuestAddress(2 * PAGE)).unwrap();
        let mut seen = Seen::default();
        let copied = copy(memory.ram(), &PageSet::all(memory.ranges()), &mut seen).unwrap();
        assert_eq!(copied, Copied { pages: 2, zeroes: 510 });
        assert_eq!(seen.pages.len(), 1);
        assert_eq!((seen.pages[0].0, seen.pages[0].1.len()), (PAGE, 2 * PAGE as usize));
        assert_eq!(seen.zeroes[..2], [(0, PAGE), (3 * PAGE, 61 * PAGE)]);
    }

    #[test]
    fn the_checksum_is_of_content_and_place() {
        let layout = Layout::new(2, 36).unwrap();
        let sum = |at: u64| {
            let memory = Memory::new(&layout).unwrap();
            memory.ram().write_obj(1_u8, GuestAddress(at)).unwrap();
            let alive = || Ok::<(), ()>(());
            checksum(memory.ram(), memory.ranges(), alive).unwrap()
        };
        assert_eq!(sum(5), sum(5));
        assert_ne!(sum(5), sum(6));
        assert_ne!(sum(5), sum(5 + PAGE));
    }
}
