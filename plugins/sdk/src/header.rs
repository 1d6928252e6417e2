//! The image header, made at compile time from what a plugin says of itself.

use npa_abi::image::{
    IMAGE_MAGIC, Licence, PCI_IDS_MAX, PciId, PluginHeader, REGION_DATA, REGIONS_MAX, Region,
    RingNeed,
};
use npa_abi::{ABI, ABI_MIN, Class, PAGE_SIZE};

/// What a plugin says of itself; becomes its image's header.
#[derive(Clone, Copy, Debug)]
pub struct ImageInfo {
    /// Name: `[a-z0-9-]`, 1 to 31 bytes.
    pub name: &'static str,
    /// Version, 1 to 15 bytes.
    pub version: &'static str,
    /// Licence.
    pub licence: Licence,
    /// Devices served, at most 8.
    pub pci_ids: &'static [PciId],
    /// VF regions needed, at most 6.
    pub regions: &'static [Region],
    /// MSI-X vectors used.
    pub vectors: u16,
    /// First vector of each role, see [`PluginHeader::role_vectors`].
    pub role_vectors: [u16; 2],
    /// Ring needs of each role.
    pub roles: [RingNeed; 2],
    /// Most queues per role.
    pub queues_per_role: u16,
}

/// A data region of `count` whole pages: page `page` of BAR `bar`, at page `window_page` of the
/// window.
pub const fn pages(bar: u8, page: u64, count: u64, window_page: u32) -> Region {
    Region {
        bar,
        kind: REGION_DATA,
        reserved: 0,
        window_offset: window_page * PAGE_SIZE as u32,
        offset: page * PAGE_SIZE as u64,
        length: count * PAGE_SIZE as u64,
    }
}

/// The header of a plugin of `class` whose private memory has `private_length` bytes. What does
/// not fit is an error at compile time. Length, entry and hash are zero until the build tool
/// seals the image.
pub(crate) const fn header(class: Class, info: &ImageInfo, private_length: usize) -> PluginHeader {
    assert!(info.pci_ids.len() <= PCI_IDS_MAX, "too many PCI ids");
    assert!(info.regions.len() <= REGIONS_MAX, "too many regions");
    assert!(private_length <= 64 << 10, "too much private memory");
    let mut pci_ids = [PciId { vendor: 0, device: 0 }; PCI_IDS_MAX];
    let mut index = 0;
    while index < info.pci_ids.len() {
        pci_ids[index] = info.pci_ids[index];
        index += 1;
    }
    let mut regions = [pages(0, 0, 0, 0); REGIONS_MAX];
    index = 0;
    while index < REGIONS_MAX {
        if index < info.regions.len() {
            regions[index] = info.regions[index];
        } else {
            regions[index].kind = 0;
        }
        index += 1;
    }
    PluginHeader {
        magic: IMAGE_MAGIC,
        header_size: size_of::<PluginHeader>() as u32,
        abi_min: ABI_MIN,
        abi_max: ABI,
        class: class as u16,
        licence: info.licence as u16,
        role_vectors: info.role_vectors,
        name: text(info.name),
        version: text(info.version),
        image_length: 0,
        entry: 0,
        private_length: private_length as u32,
        role_count: 2,
        queues_per_role: info.queues_per_role,
        roles: info.roles,
        vectors: info.vectors,
        pci_id_count: info.pci_ids.len() as u16,
        region_count: info.regions.len() as u16,
        reserved: 0,
        pci_ids,
        regions,
        sha256: [0; 32],
    }
}

/// A zero-padded, zero-terminated text field.
const fn text<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() < N, "name or version empty or too long");
    let mut field = [0; N];
    let mut index = 0;
    while index < bytes.len() {
        field[index] = bytes[index];
        index += 1;
    }
    field
}
