//! Where the transport's structures lie, and the capabilities that say so (VIRTIO 1.2, section
//! 4.1.4). One BAR for the virtio structures, one for MSI-X; a third is left to an extension.

use crate::pci::{BarKind, ConfigHeader, ConfigSpace, capability};
use crate::virtio::device::DeviceType;

/// BAR of the virtio structures, 64-bit.
pub(super) const STRUCTURES_BAR: u8 = 0;
/// BAR of the MSI-X table and pending bits.
pub(super) const MSIX_BAR: u8 = 2;

pub(super) const STRUCTURES_SIZE: u64 = 0x4000;
/// Room for 128 vectors and their pending bits.
pub(super) const MSIX_SIZE: u64 = 0x1000;
pub(super) const MSIX_TABLE: u32 = 0;
pub(super) const MSIX_PENDING: u32 = 0x800;

// The structures are a page apart each, as the specification recommends for doorbells.
pub(super) const COMMON: u64 = 0x0000;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const NOTIFY: u64 = 0x3000;

pub(super) const COMMON_LEN: u64 = 0x40;
pub(super) const DEVICE_LEN: u64 = 0x1000;
/// Bytes between the doorbells of two queues.
pub(super) const NOTIFY_STRIDE: u64 = 4;

/// Most queues of a device: what the doorbell page holds.
pub(super) const MAX_QUEUES: usize = 1024;

/// Vendor of virtio devices; modern device ids follow 0x1040 by device type.
const VENDOR: u16 = 0x1af4;
const MODERN_DEVICE_ID: u16 = 0x1040;
/// Revisions from 1 on are not transitional.
const REVISION: u8 = 1;

// cfg_type (VIRTIO 1.2, section 4.1.4)
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;

/// Offsets of the fields in the configuration access capability, from the capability's start.
pub(super) mod access {
    /// BAR number, 1 byte.
    pub(in super::super) const BAR: u16 = 4;
    /// Offset in the BAR, 4 bytes.
    pub(in super::super) const OFFSET: u16 = 8;
    /// Length of the access, 4 bytes.
    pub(in super::super) const LENGTH: u16 = 12;
    /// The data, 4 bytes.
    pub(in super::super) const DATA: u16 = 16;
}

/// Identity and class code of a function for `device`.
pub(super) fn header(device: DeviceType) -> ConfigHeader {
    let class = match device {
        DeviceType::Net => 0x02_0000,
        DeviceType::Block => 0x01_0000,
        DeviceType::Rng => 0xff_0000,
        DeviceType::Crypto => 0x10_8000,
    };
    let id = MODERN_DEVICE_ID + device as u16;
    ConfigHeader {
        vendor: VENDOR,
        device: id,
        revision: REVISION,
        class,
        subsystem_vendor: VENDOR,
        subsystem: id,
    }
}

/// Adds the BARs and capabilities of the virtio structures; returns the offset of the
/// configuration access capability.
pub(super) fn add_structures(config: &mut ConfigSpace, queues: usize) -> u16 {
    config.add_bar(STRUCTURES_BAR, BarKind::Memory64 { prefetchable: false }, STRUCTURES_SIZE);
    config.add_bar(MSIX_BAR, BarKind::Memory32 { prefetchable: false }, MSIX_SIZE);
    let mut add = |cfg_type, offset: u64, len: u64, tail: &[u8], writable: &[u8]| {
        let cap_len = 16 + tail.len();
        // cap_len, cfg_type, bar, id, padding[2], offset, length
        let mut body = vec![cap_len as u8, cfg_type, STRUCTURES_BAR, 0, 0, 0];
        body.extend_from_slice(&(offset as u32).to_le_bytes());
        body.extend_from_slice(&(len as u32).to_le_bytes());
        body.extend_from_slice(tail);
        config.add_capability(capability::VENDOR, &body, writable)
    };
    add(CFG_COMMON, COMMON, COMMON_LEN, &[], &[]);
    let doorbells = queues as u64 * NOTIFY_STRIDE;
    add(CFG_NOTIFY, NOTIFY, doorbells, &(NOTIFY_STRIDE as u32).to_le_bytes(), &[]);
    add(CFG_ISR, ISR, 1, &[], &[]);
    add(CFG_DEVICE, DEVICE, DEVICE_LEN, &[], &[]);
    // In the access capability the guest chooses BAR, offset, length and data.
    let mut writable = [0; 18];
    writable[2] = 0xff;
    writable[6..].fill(0xff);
    add(CFG_PCI, 0, 0, &[0; 4], &writable)
}
