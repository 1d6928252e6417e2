//! Parses a plugin image, checks it by every rule, and relocates it. Works on bytes alone; all
//! input is taken as hostile: nothing here panics or loops without bound on any bytes.

mod elf;
mod error;
mod header;
pub mod lint;
mod symbols;

pub use error::ImageError;
pub use symbols::{Symbol, Symbols};

use npa_abi::PAGE_SIZE;
use npa_abi::image::{PluginHeader, SHA256_OFFSET};
use npa_abi::shell_page::{LANDING_LENGTH_DEFAULT, LANDING_PAGES_MAX};
use sha2::{Digest, Sha256};

/// Most bytes of an image file, debug information included, that are looked at.
pub const FILE_LENGTH_MAX: usize = 64 << 20;

/// What the host allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of the landing that the image must fit in, in bytes.
    pub landing: u64,
}

impl Limits {
    /// No landing is ever larger, in bytes.
    pub const LANDING_MAX: u64 = (LANDING_PAGES_MAX * PAGE_SIZE) as u64;
}

impl Default for Limits {
    fn default() -> Self {
        Self { landing: LANDING_LENGTH_DEFAULT as u64 }
    }
}

/// Who vouches for an image. Images carry no signature in this version of the format; a later
/// one adds variants here, and policy decides by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Signature {
    /// Nobody.
    #[default]
    Unsigned,
}

/// An `R_X86_64_RELATIVE` relocation: the 64-bit word at `offset` becomes base + `addend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Offset of the word in the image, in bytes.
    pub offset: u64,
    /// What is added to the base: an offset in the image.
    pub addend: u64,
}

/// An image that keeps every rule.
#[derive(Clone, Debug)]
pub struct Image {
    header: PluginHeader,
    bytes: Vec<u8>,
    relocations: Vec<Relocation>,
    symbols: Symbols,
    signature: Signature,
}

impl Image {
    /// Parses and checks an image file for the default landing.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(file: &[u8]) -> Result<Self, ImageError> {
        Self::parse_within(file, &Limits::default())
    }

    /// Parses and checks an image file.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse_within(file: &[u8], limits: &Limits) -> Result<Self, ImageError> {
        let (image, findings) = examine(file, limits);
        match (image, findings.into_iter().next()) {
            (Some(image), None) => Ok(image),
            (_, Some(finding)) => Err(finding),
            (None, None) => Err(ImageError::NotElf("nothing could be read".to_owned())),
        }
    }

    /// The header.
    pub fn header(&self) -> &PluginHeader {
        &self.header
    }

    /// The unrelocated image: whole pages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What [`Image::relocate`] changes.
    pub fn relocations(&self) -> &[Relocation] {
        &self.relocations
    }

    /// The symbols, for debuggers and crash reports.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Who vouches for the image.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        header::text(&self.header.name).unwrap_or_default()
    }

    /// The plugin's version.
    pub fn version(&self) -> &str {
        header::text(&self.header.version).unwrap_or_default()
    }

    /// The image as it must stand in the landing whose first byte has guest virtual address
    /// `base`: whole pages.
    pub fn relocate(&self, base: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for relocation in &self.relocations {
            let start = relocation.offset as usize;
            if let Some(word) = bytes.get_mut(start..start + size_of::<u64>()) {
                word.copy_from_slice(&base.wrapping_add(relocation.addend).to_le_bytes());
            }
        }
        bytes
    }

    /// The function or object that `offset` lies in, with the distance from its start.
    pub fn symbol_at(&self, offset: u64) -> Option<(&Symbol, u64)> {
        self.symbols.at(offset)
    }
}

/// Looks at everything and answers every rule that is broken; the image, as far as it can be
/// made out, comes with it so that it can be shown.
pub fn examine(file: &[u8], limits: &Limits) -> (Option<Image>, Vec<ImageError>) {
    let mut findings = Vec::new();
    let Some(contents) = elf::read(file, limits, &mut findings) else {
        return (None, findings);
    };
    let Some(header) = header::decode(&contents.bytes) else {
        findings.push(ImageError::BadMagic);
        return (None, findings);
    };
    header::check(&header, contents.bytes.len() as u64, &mut findings);
    check_entry(&header, &contents, &mut findings);
    if image_sha256(&contents.bytes) != header.sha256 {
        findings.push(ImageError::WrongHash);
    }
    lint::check(&contents.bytes, &contents.code, &contents.symbols, &mut findings);
    let elf::Contents { bytes, relocations, symbols, .. } = contents;
    let signature = Signature::Unsigned;
    (Some(Image { header, bytes, relocations, symbols, signature }), findings)
}

/// `endbr64` (Intel SDM, volume 2).
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

fn check_entry(header: &PluginHeader, contents: &elf::Contents, findings: &mut Vec<ImageError>) {
    let entry = header.entry as u64;
    if !contents.code.iter().any(|range| range.contains(&entry)) {
        findings.push(ImageError::EntryOutside(header.entry));
        return;
    }
    let first = contents.bytes.get(entry as usize..).unwrap_or_default();
    if !first.starts_with(&ENDBR64) {
        findings.push(ImageError::EntryNotEndbr(header.entry));
    }
}

/// SHA-256 of an unrelocated image with its own field zeroed: the value of
/// [`PluginHeader::sha256`].
pub fn image_sha256(image: &[u8]) -> [u8; 32] {
    let split = SHA256_OFFSET.min(image.len());
    let after = (SHA256_OFFSET + 32).min(image.len());
    let mut hash = Sha256::new();
    hash.update(&image[..split]);
    hash.update(&[0u8; 32][..after - split]);
    hash.update(&image[after..]);
    hash.finalize().into()
}

/// SHA-256 of the bytes as they stand in the landing, for the host's image hash registers.
pub fn landed_sha256(relocated: &[u8]) -> [u8; 32] {
    Sha256::digest(relocated).into()
}

/// Most MSI-X vectors that a plugin may use.
pub const VECTORS_MAX: u16 = 32;

/// Most bytes of private memory per instance.
pub const PRIVATE_LENGTH_MAX: u32 = 64 << 10;
