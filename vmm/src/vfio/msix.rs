//! Where a function keeps its MSI-X table, so that these pages are never given to a guest.

use std::ops::Range;

use npa_abi::PAGE_SIZE;

/// Status register: a capability list is there (PCI 3.0, 6.2.3).
const STATUS: u16 = 0x06;
const STATUS_CAPABILITIES: u32 = 1 << 4;
/// Where the list begins (6.7).
const CAPABILITIES: u16 = 0x34;
/// MSI-X (PCI 3.0, 6.8.2): message control, table and PBA, 16 bytes per table entry.
const MSIX: u32 = 0x11;
const CONTROL: u16 = 2;
const TABLE: u16 = 4;
const PENDING: u16 = 8;
const ENTRY: u64 = 16;
/// Most capabilities that fit below 0x100.
const CAPABILITIES_MAX: usize = 48;

/// The pages, as BAR and byte range, that hold the MSI-X table or the pending bits of the
/// function whose configuration space `read(offset, bytes)` reads.
pub(super) fn msix_pages(read: impl Fn(u16, usize) -> u32) -> Vec<(u8, Range<u64>)> {
    let Some(at) = find(&read) else { return Vec::new() };
    let entries = u64::from(read(at + CONTROL, 2) & 0x7ff) + 1;
    let pages = |field: u16, length: u64| {
        let word = read(at + field, 4);
        let start = u64::from(word & !7);
        let page = PAGE_SIZE as u64;
        ((word & 7) as u8, start / page * page..(start + length).next_multiple_of(page))
    };
    vec![pages(TABLE, entries * ENTRY), pages(PENDING, entries.div_ceil(64) * 8)]
}

fn find(read: impl Fn(u16, usize) -> u32) -> Option<u16> {
    if read(STATUS, 2) & STATUS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = (read(CAPABILITIES, 1) & 0xfc) as u16;
    for _ in 0..CAPABILITIES_MAX {
        if at < 0x40 {
            return None;
        }
        if read(at, 1) == MSIX {
            return Some(at);
        }
        at = (read(at + 1, 1) & 0xfc) as u16;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &[u8]) -> impl Fn(u16, usize) -> u32 + '_ {
        |at, len| {
            let mut bytes = [0; 4];
            bytes[..len].copy_from_slice(&config[usize::from(at)..usize::from(at) + len]);
            u32::from_le_bytes(bytes)
        }
    }

    fn config() -> [u8; 256] {
        let mut config = [0; 256];
        config[6] = 0x10;
        config[0x34] = 0x40;
        config[0x40..0x42].copy_from_slice(&[0x10, 0x70]);
        config[0x70..0x72].copy_from_slice(&[0x11, 0]);
        config[0x72] = 2;
        config[0x74] = 3;
        config[0x78..0x7a].copy_from_slice(&[3, 0x20]);
        config
    }

    #[test]
    fn an_82576_vf_has_its_table_in_bar_3() {
        assert_eq!(msix_pages(read(&config())), [(3, 0..0x1000), (3, 0x2000..0x3000)]);
    }

    #[test]
    fn functions_without_msix_and_loops_end() {
        assert!(msix_pages(read(&[0; 256])).is_empty());
        let mut config = config();
        config[0x70..0x72].copy_from_slice(&[0x05, 0x40]);
        assert!(msix_pages(read(&config)).is_empty());
        assert!(msix_pages(|_, len| u32::MAX >> (32 - 8 * len)).len() < 3);
    }
}
