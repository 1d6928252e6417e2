//! Where a virtio PCI device's structures are (virtio 1.2, 4.1.4).

use crate::os::{Os, Width};
use crate::pci::find_capability;
use npa_abi::pci::CAP_ID_VENDOR;

const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const DEVICE: u8 = 4;

/// A structure in a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// BAR number.
    pub bar: u8,
    /// Offset in the BAR, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Area {
    /// Reads at `offset`; ones outside of the structure.
    pub fn read(&self, os: &impl Os, offset: u64, width: Width) -> u32 {
        if offset >= self.length {
            return u32::MAX;
        }
        os.mmio_read(self.bar, self.offset.saturating_add(offset), width)
    }

    /// Writes at `offset`; nothing outside of the structure.
    pub fn write(&self, os: &impl Os, offset: u64, width: Width, value: u32) {
        if offset < self.length {
            os.mmio_write(self.bar, self.offset.saturating_add(offset), width, value);
        }
    }
}

/// The structures that the shell uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locations {
    /// Common configuration.
    pub common: Area,
    /// Doorbells.
    pub notify: Area,
    /// Bytes between doorbells, per unit of a queue's notify offset.
    pub notify_multiplier: u32,
    /// Device-specific configuration.
    pub device: Area,
}

impl Locations {
    /// Finds the structures; `None` on a device that is not a modern virtio one.
    pub fn find(os: &impl Os) -> Option<Self> {
        let (common, _) = structure(os, COMMON)?;
        let (notify, notify_multiplier) = structure(os, NOTIFY)?;
        let (device, _) = structure(os, DEVICE)?;
        Some(Self { common, notify, notify_multiplier, device })
    }
}

/// The first structure of `kind`, and the dword behind its capability.
fn structure(os: &impl Os, kind: u8) -> Option<(Area, u32)> {
    find_capability(os, CAP_ID_VENDOR, |words: &[u32; 5]| {
        let [head, place, offset, length, extra] = *words;
        ((head >> 24) as u8 == kind).then(|| {
            let area =
                Area { bar: place as u8, offset: u64::from(offset), length: u64::from(length) };
            (area, extra)
        })
    })
}
