//! Checks of a landed image, made after the hypervisor's own and before the first call.

use npa_abi::image::{IMAGE_MAGIC, Licence, PluginHeader, ROLES_MAX, RingNeed};
use npa_abi::protocol::GuestError;
use npa_abi::shell_page::QUEUES_MAX;
use npa_abi::{ABI, Class, PAGE_SIZE};
use sha2::{Digest, Sha256};

/// What the registers say of the image.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The device's class.
    pub class: Class,
    /// SHA-256 of the landed bytes.
    pub sha256: [u8; 32],
}

/// What the shell needs of a checked image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Plugin name, zero-padded UTF-8.
    pub name: [u8; 32],
    /// Version, zero-padded UTF-8.
    pub version: [u8; 16],
    /// Offset of the entry function in the image, in bytes.
    pub entry: u32,
    /// Length of the image in bytes.
    pub length: u32,
    /// Bytes of private memory per instance.
    pub private_length: u32,
    /// Number of queue roles.
    pub role_count: u16,
    /// Ring needs by role.
    pub roles: [RingNeed; ROLES_MAX],
    /// MSI-X vectors that the plugin uses.
    pub vectors: u16,
}

/// `endbr64`, with which every function that may be called indirectly begins.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Most private memory of an instance, in bytes.
const PRIVATE_MAX: u32 = 64 << 10;

/// Most entries of a ring.
const ENTRIES_MAX: u16 = 4096;

/// Checks the landed `bytes`.
///
/// # Errors
/// The [`GuestError`] that tells the host what is wrong.
pub fn check(bytes: &[u8], expected: &Expected) -> Result<Image, GuestError> {
    let field = Fields { bytes };
    if field.bytes(core::mem::offset_of!(PluginHeader, magic))? != IMAGE_MAGIC
        || (field.u32(core::mem::offset_of!(PluginHeader, header_size))? as usize)
            < size_of::<PluginHeader>()
        || field.u16(core::mem::offset_of!(PluginHeader, class))? != expected.class as u16
    {
        return Err(GuestError::BadImage);
    }
    let (abi_min, abi_max) = (
        field.u16(core::mem::offset_of!(PluginHeader, abi_min))?,
        field.u16(core::mem::offset_of!(PluginHeader, abi_max))?,
    );
    if !(abi_min..=abi_max).contains(&ABI) {
        return Err(GuestError::WrongAbi);
    }
    let licence = field.u16(core::mem::offset_of!(PluginHeader, licence))?;
    if Licence::from_code(licence).is_none() {
        return Err(GuestError::WrongLicence);
    }
    let image = read_image(&field)?;
    if image.length as usize != bytes.len() || !well_formed(&image) {
        return Err(GuestError::BadImage);
    }
    if Sha256::digest(bytes).as_slice() != expected.sha256 {
        return Err(GuestError::WrongHash);
    }
    if field.bytes(image.entry as usize)? != ENDBR64 {
        return Err(GuestError::BadImage);
    }
    Ok(image)
}

fn read_image(field: &Fields<'_>) -> Result<Image, GuestError> {
    let mut roles = [RingNeed::default(); ROLES_MAX];
    let offsets = (core::mem::offset_of!(PluginHeader, roles)..).step_by(size_of::<RingNeed>());
    for (role, at) in roles.iter_mut().zip(offsets) {
        *role = RingNeed {
            per_entry: field.u32(at + core::mem::offset_of!(RingNeed, per_entry))?,
            fixed: field.u32(at + core::mem::offset_of!(RingNeed, fixed))?,
            align: field.u32(at + core::mem::offset_of!(RingNeed, align))?,
            min_entries: field.u16(at + core::mem::offset_of!(RingNeed, min_entries))?,
            max_entries: field.u16(at + core::mem::offset_of!(RingNeed, max_entries))?,
        };
    }
    Ok(Image {
        name: field.bytes(core::mem::offset_of!(PluginHeader, name))?,
        version: field.bytes(core::mem::offset_of!(PluginHeader, version))?,
        entry: field.u32(core::mem::offset_of!(PluginHeader, entry))?,
        length: field.u32(core::mem::offset_of!(PluginHeader, image_length))?,
        private_length: field.u32(core::mem::offset_of!(PluginHeader, private_length))?,
        role_count: field.u16(core::mem::offset_of!(PluginHeader, role_count))?,
        roles,
        vectors: field.u16(core::mem::offset_of!(PluginHeader, vectors))?,
    })
}

fn well_formed(image: &Image) -> bool {
    let role_count = image.role_count as usize;
    (image.length as usize).is_multiple_of(PAGE_SIZE)
        && image.entry as usize >= size_of::<PluginHeader>()
        && image.entry < image.length
        && image.private_length <= PRIVATE_MAX
        && (1..=ROLES_MAX).contains(&role_count)
        && role_count <= QUEUES_MAX
        && image.roles.iter().take(role_count).all(|role| {
            role.align.is_power_of_two()
                && role.align as usize <= PAGE_SIZE
                && role.min_entries.is_power_of_two()
                && role.max_entries.is_power_of_two()
                && role.min_entries <= role.max_entries
                && role.max_entries <= ENTRIES_MAX
                && role.bytes(u32::from(role.max_entries)) <= u64::from(u32::MAX)
        })
}

/// Little-endian fields of a header that may be cut short anywhere.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], GuestError> {
        self.bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .copied()
            .ok_or(GuestError::BadImage)
    }

    fn u16(&self, at: usize) -> Result<u16, GuestError> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, GuestError> {
        self.bytes(at).map(u32::from_le_bytes)
    }
}
