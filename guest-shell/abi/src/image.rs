//! The header at offset 0 of a plugin image.
//!
//! The image is the ELF's one loadable range, linked at address 0 and padded to whole pages.
//! [`PluginHeader::sha256`] is the SHA-256 of these bytes with that field zeroed, before
//! relocation.

/// Value of [`PluginHeader::magic`].
pub const IMAGE_MAGIC: [u8; 8] = *b"NPAPLUG\x01";

/// Name of the ELF section that holds the header, and of the symbol at its start.
pub const HEADER_SECTION: &str = ".npa_header";

/// Name of the entry function's symbol.
pub const ENTRY_SYMBOL: &str = "npa_plugin_main";

/// Most VF regions that a plugin may ask for.
pub const REGIONS_MAX: usize = 6;

/// Most PCI ids that one image may serve.
pub const PCI_IDS_MAX: usize = 8;

/// Most queue roles of a class (receive and transmit, say).
pub const ROLES_MAX: usize = 2;

/// Licences under which a plugin may be injected into a Linux guest, all compatible with GPL-2.0.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Licence {
    /// GPL-2.0-only.
    Gpl2 = 1,
    /// GPL-2.0-or-later.
    Gpl2OrLater = 2,
    /// GPL-2.0-only OR MIT.
    Gpl2OrMit = 3,
    /// GPL-2.0-only OR BSD-2-Clause or BSD-3-Clause.
    Gpl2OrBsd = 4,
}

impl Licence {
    /// Decodes a licence code; `None` for one that is not acceptable.
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Gpl2),
            2 => Some(Self::Gpl2OrLater),
            3 => Some(Self::Gpl2OrMit),
            4 => Some(Self::Gpl2OrBsd),
            _ => None,
        }
    }
}

/// A device that an image serves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PciId {
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
}

/// Region is mapped into the guest's window.
pub const REGION_DATA: u8 = 1;
/// Region is trapped: the hypervisor emulates each access.
pub const REGION_TRAP: u8 = 2;

/// A range of a VF BAR that the plugin needs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// BAR number, 0-5.
    pub bar: u8,
    /// [`REGION_DATA`] or [`REGION_TRAP`].
    pub kind: u8,
    /// Zero.
    pub reserved: u16,
    /// Where the region begins in the window, in bytes, page-aligned.
    pub window_offset: u32,
    /// Offset in the BAR, in bytes, page-aligned.
    pub offset: u64,
    /// Length in bytes, a multiple of the page size.
    pub length: u64,
}

/// Ring memory that a queue of one role needs: `fixed + entries * per_entry` bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingNeed {
    /// Bytes per ring entry.
    pub per_entry: u32,
    /// Bytes beside the entries.
    pub fixed: u32,
    /// Alignment of the ring memory in bytes, a power of two, at most the page size.
    pub align: u32,
    /// Fewest entries, a power of two.
    pub min_entries: u16,
    /// Most entries, a power of two, at most 4096.
    pub max_entries: u16,
}

impl RingNeed {
    /// Bytes of ring memory for `entries` entries.
    pub const fn bytes(&self, entries: u32) -> u64 {
        self.fixed as u64 + self.per_entry as u64 * entries as u64
    }
}

/// The header. All text fields are UTF-8, zero-padded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginHeader {
    /// [`IMAGE_MAGIC`].
    pub magic: [u8; 8],
    /// Size of this structure in bytes.
    pub header_size: u32,
    /// Oldest ABI version that the plugin speaks.
    pub abi_min: u16,
    /// Newest ABI version that the plugin speaks.
    pub abi_max: u16,
    /// A [`crate::Class`] code.
    pub class: u16,
    /// A [`Licence`] code.
    pub licence: u16,
    /// First MSI-X vector of each role, among the plugin's `vectors`: the interrupt of queue `q`
    /// comes on `role_vectors[q % role_count] + (q / role_count) * role_count`. Two roles may
    /// share a vector.
    pub role_vectors: [u16; ROLES_MAX],
    /// Plugin name: `[a-z0-9-]`, 1 to 31 bytes.
    pub name: [u8; 32],
    /// Version as text, 1 to 15 bytes.
    pub version: [u8; 16],
    /// Length of the image in bytes, this header included; a multiple of the page size.
    pub image_length: u32,
    /// Offset of the entry function in the image, in bytes; it begins with `endbr64`.
    pub entry: u32,
    /// Bytes of private memory per instance, zeroed and 64-byte aligned; at most 64 KiB.
    pub private_length: u32,
    /// Number of valid entries in `roles`; queue `q` of an instance has role `q % role_count`.
    pub role_count: u16,
    /// Most queues per role that the plugin can drive.
    pub queues_per_role: u16,
    /// Ring needs, by role. Net: 0 receive, 1 transmit.
    pub roles: [RingNeed; ROLES_MAX],
    /// MSI-X vectors that the plugin uses.
    pub vectors: u16,
    /// Number of valid entries in `pci_ids`.
    pub pci_id_count: u16,
    /// Number of valid entries in `regions`.
    pub region_count: u16,
    /// Zero.
    pub reserved: u16,
    /// Devices served.
    pub pci_ids: [PciId; PCI_IDS_MAX],
    /// VF regions needed.
    pub regions: [Region; REGIONS_MAX],
    /// SHA-256 of the unrelocated image with this field zeroed; written by the build tool.
    pub sha256: [u8; 32],
}

/// Offset of [`PluginHeader::sha256`] in the image, in bytes.
pub const SHA256_OFFSET: usize = core::mem::offset_of!(PluginHeader, sha256);

const _: () = assert!(size_of::<PluginHeader>() == 336);
