//! Intel 82576 under Linux's igb driver.
//!
//! Addresses go through `IFLA_VF_MAC`, which rewrites the receive address register at once and
//! needs no VF reset. What a VF may set by its own mailbox (MTU, multicast, VLAN filters) the VMM
//! sets there (`vf_control::igbvf`); such operations are not served here.

use super::family::{Family, FamilyRegion, FamilyVectors, RingRule};
use crate::ops::{DeviceClass, RegionKind};

/// PCI vendor of the PF.
const INTEL: u16 = 0x8086;
/// PCI devices of the 82576's PF flavours (Linux's e1000_hw.h names them).
const PF_DEVICES: [u16; 8] = [0x10c9, 0x150a, 0x1518, 0x10e6, 0x10e7, 0x10e8, 0x1526, 0x150d];
/// Queue pairs of each VF (datasheet 7.10.3.2).
const QUEUE_PAIRS: u16 = 2;
/// Rings begin at a multiple of this many bytes, and are as many long (datasheet 7.1.4.4).
const RING_ALIGNMENT: u32 = 128;
/// Longest ring: 32,768 descriptors of 16 bytes (datasheet 8.10.7, RDLEN is 20 bits).
const RING_MAX: u32 = 512 << 10;
/// Page size of the VF's register regions.
const PAGE: u64 = 4096;

/// What it is called.
pub(super) const NAME: &str = "igb";

/// The family.
pub(super) fn family() -> Family {
    Family {
        driver: "igb".to_owned(),
        pfs: PF_DEVICES.map(|device| (INTEL, device)).to_vec(),
        class: DeviceClass::Net,
        plugin: "igbvf".to_owned(),
        queues: QUEUE_PAIRS,
        regions: vec![
            // Reset and mailbox.
            FamilyRegion {
                bar: 0,
                offset: 0,
                length: PAGE,
                kind: RegionKind::Control,
                window_offset: None,
            },
            // Interrupts, receive, transmit: one page each.
            FamilyRegion {
                bar: 0,
                offset: PAGE,
                length: 3 * PAGE,
                kind: RegionKind::Data,
                window_offset: Some(0),
            },
        ],
        // The plugin knows transmit as its vector 0 and receive as its vector 1.
        vectors: FamilyVectors { total: 3, plugin: vec![0, 1], control: Some(2) },
        rings: RingRule { alignment: RING_ALIGNMENT, longest: RING_MAX },
        vlan: true,
        spoof_check: true,
        trust: true,
        rate: true,
        link_state: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_never_gets_the_control_page() {
        for region in family().regions {
            let holds_mailbox = region.bar == 0 && region.offset < PAGE;
            assert_eq!(region.kind == RegionKind::Control, holds_mailbox);
            assert_eq!(region.kind == RegionKind::Data, region.window_offset.is_some());
        }
    }
}
