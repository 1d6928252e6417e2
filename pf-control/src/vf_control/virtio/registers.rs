//! Registers of the common configuration (virtio 1.2, 4.1.4.3), by their offsets, and their bits.

pub(super) const DEVICE_FEATURE_SELECT: u32 = 0x00;
pub(super) const DEVICE_FEATURE: u32 = 0x04;
pub(super) const DRIVER_FEATURE_SELECT: u32 = 0x08;
pub(super) const DRIVER_FEATURE: u32 = 0x0c;
pub(super) const CONFIG_VECTOR: u32 = 0x10;
pub(super) const DEVICE_STATUS: u32 = 0x14;
pub(super) const QUEUE_SELECT: u32 = 0x16;
pub(super) const QUEUE_SIZE: u32 = 0x18;
pub(super) const QUEUE_VECTOR: u32 = 0x1a;
pub(super) const QUEUE_ENABLE: u32 = 0x1c;
pub(super) const QUEUE_NOTIFY_OFF: u32 = 0x1e;
pub(super) const QUEUE_DESC: u32 = 0x20;
pub(super) const QUEUE_DRIVER: u32 = 0x28;
pub(super) const QUEUE_DEVICE: u32 = 0x30;

/// Bits of the device status (2.1).
pub(super) const ACKNOWLEDGE: u8 = 1;
pub(super) const DRIVER: u8 = 2;
pub(super) const DRIVER_OK: u8 = 4;
pub(super) const FEATURES_OK: u8 = 8;
pub(super) const NEEDS_RESET: u8 = 64;

/// No vector (4.1.5.1.2.1).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// The function goes through the IOMMU (6, `VIRTIO_F_ACCESS_PLATFORM`).
pub(super) const ACCESS_PLATFORM: u64 = 1 << 33;
/// It and the driver order memory as devices need it (6, `VIRTIO_F_ORDER_PLATFORM`).
pub(super) const ORDER_PLATFORM: u64 = 1 << 36;
/// It has an address, and tells of its link (5.1.3).
pub(super) const NET_MAC: u64 = 1 << 5;
pub(super) const NET_STATUS: u64 = 1 << 16;

/// Device configuration (5.1.4): address, and status with its link bit.
pub(super) const MAC: u32 = 0;
pub(super) const STATUS: u32 = 6;
pub(super) const LINK_UP: u16 = 1;
