//! Finds PCI configuration space: root pointer, XSDT, MCFG (ACPI 6.4, 5.2.5-5.2.8; PCI Firmware
//! Specification 3.2, 4.1.2).

use super::memory::load;

/// Bytes of a table header.
const HEADER: u64 = 36;

/// Address of bus 0's configuration space, from the root pointer at `root`.
pub(super) fn ecam(root: u64) -> Option<u64> {
    if root == 0 || load::<[u8; 8]>(root) != *b"RSD PTR " {
        return None;
    }
    let xsdt: u64 = load(root + 24);
    if load::<[u8; 4]>(xsdt) != *b"XSDT" {
        return None;
    }
    let length = u64::from(load::<u32>(xsdt + 4));
    for entry in (HEADER..length).step_by(8) {
        let table: u64 = load(xsdt + entry);
        if load::<[u8; 4]>(table) == *b"MCFG" {
            return Some(load(table + HEADER + 8));
        }
    }
    None
}
