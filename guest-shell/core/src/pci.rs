//! Walks the PCI capability list. Reads configuration space only, never writes it.

use crate::os::Os;

/// Offset of the status register's dword; the capability-list flag is bit 4 of the upper half
/// (PCI Local Bus 3.0, 6.2.3).
const COMMAND_STATUS: u16 = 0x04;
const STATUS_CAPABILITIES: u32 = 1 << (16 + 4);
/// Offset of the dword that begins with the capabilities pointer.
const CAPABILITIES_POINTER: u16 = 0x34;
/// Configuration space below 256 bytes holds at most this many capabilities of 4 bytes.
const CAPABILITIES_MAX: usize = 48;

/// Up to `N` dwords of a capability, from its first byte on.
pub type Words<const N: usize> = [u32; N];

/// Calls `visit` with the first `N` dwords of each capability with id `id`, in list order, until
/// it answers with something.
pub fn find_capability<O: Os, T, const N: usize>(
    os: &O,
    id: u8,
    mut visit: impl FnMut(&Words<N>) -> Option<T>,
) -> Option<T> {
    let status = os.config_read(COMMAND_STATUS);
    if status & STATUS_CAPABILITIES == 0 || status == u32::MAX {
        return None;
    }
    let mut offset = (os.config_read(CAPABILITIES_POINTER) & 0xfc) as u16;
    for _ in 0..CAPABILITIES_MAX {
        if offset < 0x40 {
            return None;
        }
        let first = os.config_read(offset);
        if (first & 0xff) as u8 == id {
            let mut words = [0; N];
            for (word, at) in words.iter_mut().zip((offset..0x100).step_by(4)) {
                *word = os.config_read(at);
            }
            if let Some(found) = visit(&words) {
                return Some(found);
            }
        }
        offset = ((first >> 8) & 0xfc) as u16;
    }
    None
}
