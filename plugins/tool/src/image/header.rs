//! Decodes and checks the plugin header.

use npa_abi::image::{
    IMAGE_MAGIC, Licence, PCI_IDS_MAX, PciId, PluginHeader, REGION_DATA, REGION_TRAP, REGIONS_MAX,
    ROLES_MAX, Region, RingNeed,
};
use npa_abi::pci::WINDOW_SIZE;
use npa_abi::shell_page::QUEUES_MAX;
use npa_abi::{ABI, ABI_MIN, Class, PAGE_SIZE};

use super::{ImageError, PRIVATE_LENGTH_MAX, VECTORS_MAX};

/// Most entries of a ring.
const RING_ENTRIES_MAX: u16 = 4096;

/// Most bytes of ring memory per queue: the largest contiguous range that guests can be expected
/// to have.
const RING_BYTES_MAX: u64 = 4 << 20;

/// Reads little endian fields one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn half(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn ring(&mut self) -> Option<RingNeed> {
        Some(RingNeed {
            per_entry: self.word()?,
            fixed: self.word()?,
            align: self.word()?,
            min_entries: self.half()?,
            max_entries: self.half()?,
        })
    }

    fn pci_id(&mut self) -> Option<PciId> {
        Some(PciId { vendor: self.half()?, device: self.half()? })
    }

    fn region(&mut self) -> Option<Region> {
        Some(Region {
            bar: self.byte()?,
            kind: self.byte()?,
            reserved: self.half()?,
            window_offset: self.word()?,
            offset: self.long()?,
            length: self.long()?,
        })
    }
}

/// Decodes the header at the image's start; `None` without its magic or when the image is
/// shorter.
pub(super) fn decode(image: &[u8]) -> Option<PluginHeader> {
    if !image.starts_with(&IMAGE_MAGIC) {
        return None;
    }
    let mut fields = Fields(image.get(..size_of::<PluginHeader>())?);
    let f = &mut fields;
    let header = PluginHeader {
        magic: f.bytes()?,
        header_size: f.word()?,
        abi_min: f.half()?,
        abi_max: f.half()?,
        class: f.half()?,
        licence: f.half()?,
        role_vectors: [f.half()?, f.half()?],
        name: f.bytes()?,
        version: f.bytes()?,
        image_length: f.word()?,
        entry: f.word()?,
        private_length: f.word()?,
        role_count: f.half()?,
        queues_per_role: f.half()?,
        roles: [f.ring()?, f.ring()?],
        vectors: f.half()?,
        pci_id_count: f.half()?,
        region_count: f.half()?,
        reserved: f.half()?,
        pci_ids: array(|| f.pci_id())?,
        regions: array(|| f.region())?,
        sha256: f.bytes()?,
    };
    f.0.is_empty().then_some(header)
}

fn array<T: Copy + Default, const N: usize>(mut next: impl FnMut() -> Option<T>) -> Option<[T; N]> {
    let mut array = [T::default(); N];
    for slot in &mut array {
        *slot = next()?;
    }
    Some(array)
}

/// A zero-padded text field; `None` when it is not zero-terminated, not UTF-8, or has something
/// behind its end.
pub(super) fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0)?;
    let (text, padding) = field.split_at(end);
    padding.iter().all(|&byte| byte == 0).then_some(())?;
    std::str::from_utf8(text).ok()
}

/// Checks every field against the image's `length` in bytes and the ABI.
pub(super) fn check(header: &PluginHeader, length: u64, findings: &mut Vec<ImageError>) {
    let mut rule = |kept: bool, finding: ImageError| {
        if !kept {
            findings.push(finding);
        }
    };
    rule(
        header.header_size as usize == size_of::<PluginHeader>(),
        ImageError::HeaderSize(header.header_size),
    );
    let (min, max) = (header.abi_min, header.abi_max);
    rule(
        min <= max && min <= ABI && max >= ABI_MIN,
        ImageError::WrongAbi { min, max, host_min: ABI_MIN, host_max: ABI },
    );
    rule(Class::from_code(header.class).is_some(), ImageError::UnknownClass(header.class));
    rule(Licence::from_code(header.licence).is_some(), ImageError::WrongLicence(header.licence));
    rule(text(&header.name).is_some_and(is_name), ImageError::BadName);
    rule(text(&header.version).is_some_and(is_version), ImageError::BadVersion);
    rule(
        u64::from(header.image_length) == length,
        ImageError::LengthMismatch { header: header.image_length, image: length },
    );
    rule(
        header.private_length <= PRIVATE_LENGTH_MAX,
        ImageError::PrivateTooLarge(header.private_length),
    );
    rule(header.reserved == 0, ImageError::ReservedNotZero);
    check_queues(header, &mut rule);
    check_pci_ids(header, &mut rule);
    check_regions(header, findings);
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_version(version: &str) -> bool {
    !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_graphic())
}

fn check_queues(header: &PluginHeader, rule: &mut impl FnMut(bool, ImageError)) {
    let (roles, queues) = (header.role_count, header.queues_per_role);
    let fits = match Class::from_code(header.class) {
        Some(Class::Net) => roles == 2,
        Some(Class::Crypto) | None => (1..=ROLES_MAX as u16).contains(&roles),
    };
    let total = usize::from(roles) * usize::from(queues);
    let counted = fits && queues > 0 && total <= QUEUES_MAX;
    rule(counted, ImageError::BadQueues { roles, queues });
    for (index, ring) in header.roles.iter().enumerate().take(usize::from(roles)) {
        rule(is_ring(ring), ImageError::BadRing(index as u16));
    }
    let last = header
        .role_vectors
        .iter()
        .take(usize::from(roles))
        .map(|&first| u32::from(first) + (u32::from(queues).max(1) - 1) * u32::from(roles))
        .max();
    rule(
        header.vectors <= VECTORS_MAX && last.is_none_or(|last| last < header.vectors.into()),
        ImageError::BadVectors(header.vectors),
    );
}

fn is_ring(ring: &RingNeed) -> bool {
    ring.min_entries.is_power_of_two()
        && ring.max_entries.is_power_of_two()
        && ring.min_entries <= ring.max_entries
        && ring.max_entries <= RING_ENTRIES_MAX
        && ring.align.is_power_of_two()
        && ring.align as usize <= PAGE_SIZE
        && ring.bytes(ring.max_entries.into()) <= RING_BYTES_MAX
}

fn check_pci_ids(header: &PluginHeader, rule: &mut impl FnMut(bool, ImageError)) {
    let count = usize::from(header.pci_id_count);
    let real = |id: &PciId| !matches!(id.vendor, 0 | 0xffff);
    let kept = (1..=PCI_IDS_MAX).contains(&count)
        && header.pci_ids.iter().take(count).all(real)
        && header.pci_ids.iter().skip(count).all(|id| *id == PciId::default());
    rule(kept, ImageError::BadPciIds);
}

fn check_regions(header: &PluginHeader, findings: &mut Vec<ImageError>) {
    let count = usize::from(header.region_count);
    if count > REGIONS_MAX {
        findings.push(ImageError::TooManyRegions(header.region_count));
    }
    let used = &header.regions[..count.min(REGIONS_MAX)];
    for (index, region) in used.iter().enumerate() {
        if !is_region(region) {
            findings.push(ImageError::BadRegion(index as u16));
        }
        for (other, earlier) in used[..index].iter().enumerate() {
            if overlap(region, earlier) {
                findings.push(ImageError::RegionsOverlap(other as u16, index as u16));
            }
        }
    }
    if header.regions.iter().skip(count).any(|region| *region != Region::default()) {
        findings.push(ImageError::ReservedNotZero);
    }
}

fn is_region(region: &Region) -> bool {
    let page = PAGE_SIZE as u64;
    let aligned = |value: u64| value.is_multiple_of(page);
    region.bar <= 5
        && matches!(region.kind, REGION_DATA | REGION_TRAP)
        && region.reserved == 0
        && aligned(region.window_offset.into())
        && aligned(region.offset)
        && aligned(region.length)
        && region.length > 0
        && region.offset.checked_add(region.length).is_some()
        && region.length <= WINDOW_SIZE
        && u64::from(region.window_offset) + region.length <= WINDOW_SIZE
}

fn overlap(a: &Region, b: &Region) -> bool {
    let end = |region: &Region| u64::from(region.window_offset).saturating_add(region.length);
    u64::from(a.window_offset) < end(b) && u64::from(b.window_offset) < end(a)
}
