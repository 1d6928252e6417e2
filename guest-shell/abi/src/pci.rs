//! How a guest finds the NPA BAR: a vendor-specific virtio PCI capability.

/// PCI capability id of a vendor-specific capability (PCI Local Bus 3.0, appendix H).
pub const CAP_ID_VENDOR: u8 = 0x09;

/// `cfg_type` of a vendor capability (virtio 1.2, 4.1.4 `VIRTIO_PCI_CAP_VENDOR_CFG`).
pub const VIRTIO_PCI_CAP_VENDOR_CFG: u8 = 9;

/// `vendor_id` written in our vendor capability: the virtio vendor, which also owns the device.
pub const CAP_VENDOR_ID: u16 = 0x1af4;

/// Marks the vendor capability as ours: "NPA1", little endian.
pub const CAP_MAGIC: u32 = u32::from_le_bytes(*b"NPA1");

/// The BAR that holds the register page and the VF window.
pub const NPA_BAR: u8 = 4;

/// Size of the NPA BAR in bytes (64-bit, prefetchable).
pub const NPA_BAR_SIZE: u64 = 512 << 10;

/// Offset of the register page in the NPA BAR.
pub const REGISTER_PAGE_OFFSET: u64 = 0;

/// Offset of the VF window in the NPA BAR. What lies between the register page and the window
/// reads as ones and ignores writes.
pub const WINDOW_OFFSET: u64 = 256 << 10;

/// Size of the VF window in bytes.
pub const WINDOW_SIZE: u64 = 256 << 10;

/// What every byte of the window reads as while no VF is behind it (the dead page).
pub const DEAD_BYTE: u8 = 0xff;

/// The vendor capability as it stands in configuration space (virtio 1.2, 4.1.4.8, followed by
/// our own fields).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NpaCapability {
    /// [`CAP_ID_VENDOR`].
    pub cap_vndr: u8,
    /// Offset of the next capability; 0 ends the list.
    pub cap_next: u8,
    /// Length of this structure in bytes.
    pub cap_len: u8,
    /// [`VIRTIO_PCI_CAP_VENDOR_CFG`].
    pub cfg_type: u8,
    /// [`CAP_VENDOR_ID`].
    pub vendor_id: u16,
    /// Number of the BAR that holds the registers and the window: [`NPA_BAR`].
    pub bar: u8,
    /// Zero.
    pub reserved: u8,
    /// [`CAP_MAGIC`].
    pub magic: u32,
    /// Offset of the register page in the BAR, in bytes.
    pub registers: u32,
    /// Offset of the VF window in the BAR, in bytes.
    pub window: u32,
    /// Length of the VF window, in bytes.
    pub window_length: u32,
}
