//! The landing: the range of the shell's own code that a plugin is written to, and the rest of
//! the shell page. Everything that the guest says here is copied once, checked, and never read
//! again; nothing outside guest RAM is ever touched.

use std::mem::offset_of;

use npa_abi::PAGE_SIZE;
use npa_abi::shell_page::{
    LANDING_FILL, LANDING_PAGES_MAX, QUEUES_MAX, QueueDescriptor, REVOKED_OFFSET, SHELL_PAGE_MAGIC,
    ShellPage,
};
use sha2::{Digest, Sha256};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::vm::GuestRam;

const PAGE: u64 = PAGE_SIZE as u64;

/// Why a shell page was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShellPageError {
    /// The page itself.
    #[error("the shell page at {0:#x} is not a page of guest RAM")]
    NotRam(u64),
    /// Magic or size.
    #[error("the shell page has a wrong magic or size")]
    Header,
    /// The landing's base or length.
    #[error("the landing at {base:#x} is {length} bytes; {wanted} bytes, page-aligned, are needed")]
    LandingShape {
        /// Guest virtual base.
        base: u64,
        /// Length that the guest gave, in bytes.
        length: u32,
        /// Length wanted, in bytes.
        wanted: u32,
    },
    /// One of the landing's pages.
    #[error("landing page {index} at {address:#x} is not a page of guest RAM")]
    LandingPage {
        /// Which.
        index: usize,
        /// Guest physical address.
        address: u64,
    },
    /// A page is named twice, or is the shell page.
    #[error("landing page {index} at {address:#x} is used twice")]
    Overlap {
        /// Which.
        index: usize,
        /// Guest physical address.
        address: u64,
    },
    /// The landing holds something else.
    #[error("landing page {index} does not hold its fill pattern")]
    Fill {
        /// Which.
        index: usize,
    },
    /// Queue descriptors.
    #[error("queue {index} is missing, misshapen or outside guest RAM")]
    Queue {
        /// Which.
        index: usize,
    },
}

impl ShellPageError {
    /// Whether it is the landing, not the page, that is wrong.
    pub fn is_landing(&self) -> bool {
        matches!(
            self,
            Self::LandingShape { .. }
                | Self::LandingPage { .. }
                | Self::Overlap { .. }
                | Self::Fill { .. }
        )
    }
}

/// A landing that was checked, and what of ours may be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landing {
    /// Guest virtual address of its first byte: the base to relocate to.
    base: u64,
    /// Guest physical addresses of its pages, in order.
    pages: Vec<u64>,
}

/// The digest of what was last written to a landing, by which its owner is recognised when it
/// registers again without having been loaded anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residue {
    pages: Vec<u64>,
    sha256: [u8; 32],
}

/// A checked registration: where the shell page is, and its landing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    page: u64,
    landing: Landing,
    features: u64,
}

impl Residue {
    /// What was written to `pages`, by its digest.
    pub(super) fn new(pages: Vec<u64>, sha256: [u8; 32]) -> Self {
        Self { pages, sha256 }
    }

    pub(super) fn pages(&self) -> &[u64] {
        &self.pages
    }

    pub(super) fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

pub(super) fn is_ram_page(ram: &GuestRam, address: u64) -> bool {
    address.is_multiple_of(PAGE) && ram.check_range(GuestAddress(address), PAGE_SIZE)
}

fn read<T: vm_memory::ByteValued>(ram: &GuestRam, page: u64, field: usize) -> Option<T> {
    ram.read_obj(GuestAddress(page.checked_add(field as u64)?)).ok()
}

impl Registration {
    /// A registration that was checked elsewhere, and whose pages the caller has checked again.
    pub(super) fn new(page: u64, landing: Landing, features: u64) -> Self {
        Self { page, landing, features }
    }

    /// What the shell does beyond what every shell does, as it says.
    pub(super) fn features(&self) -> u64 {
        self.features
    }

    /// Guest physical address of the shell page.
    pub(super) fn page(&self) -> u64 {
        self.page
    }

    /// Reads and checks the landing part of the shell page at `page`: `landing_length` bytes are
    /// wanted, filled with [`LANDING_FILL`] or holding what `residue` says.
    ///
    /// # Errors
    /// [`ShellPageError`] names the first thing that is wrong.
    pub fn read(
        ram: &GuestRam,
        page: u64,
        landing_length: u32,
        residue: Option<&Residue>,
    ) -> Result<Self, ShellPageError> {
        if !is_ram_page(ram, page) {
            return Err(ShellPageError::NotRam(page));
        }
        let not_ram = ShellPageError::NotRam(page);
        let word = |field| read::<u32>(ram, page, field).ok_or(not_ram);
        if word(offset_of!(ShellPage, magic))? != SHELL_PAGE_MAGIC
            || word(offset_of!(ShellPage, size))? as usize != size_of::<ShellPage>()
        {
            return Err(ShellPageError::Header);
        }
        let base: u64 = read(ram, page, offset_of!(ShellPage, landing_base)).ok_or(not_ram)?;
        let length = word(offset_of!(ShellPage, landing_length))?;
        let whole = base.is_multiple_of(PAGE) && base.checked_add(length.into()).is_some();
        if length != landing_length || !whole || length as usize > LANDING_PAGES_MAX * PAGE_SIZE {
            return Err(ShellPageError::LandingShape { base, length, wanted: landing_length });
        }
        let mut pages = Vec::with_capacity(length as usize / PAGE_SIZE);
        for index in 0..length as usize / PAGE_SIZE {
            let field = offset_of!(ShellPage, landing_pages) + index * size_of::<u64>();
            let address: u64 = read(ram, page, field).ok_or(not_ram)?;
            if !is_ram_page(ram, address) {
                return Err(ShellPageError::LandingPage { index, address });
            }
            if address == page || pages.contains(&address) {
                return Err(ShellPageError::Overlap { index, address });
            }
            pages.push(address);
        }
        let landing = Landing { base, pages };
        landing.check_content(ram, residue)?;
        let features = read(ram, page, offset_of!(ShellPage, features)).ok_or(not_ram)?;
        Ok(Self { page, landing, features })
    }

    /// The landing.
    pub fn landing(&self) -> &Landing {
        &self.landing
    }

    /// Reads the queue part of the shell page: exactly `count` queues, whose memory lies in RAM
    /// and passes `fits` (queue index, descriptor).
    ///
    /// # Errors
    /// [`ShellPageError::Queue`] or [`ShellPageError::NotRam`].
    pub fn read_queues(
        &self,
        ram: &GuestRam,
        count: std::ops::RangeInclusive<usize>,
        fits: impl Fn(usize, &QueueDescriptor) -> bool,
    ) -> Result<Vec<QueueDescriptor>, ShellPageError> {
        let not_ram = ShellPageError::NotRam(self.page);
        let given: u32 = read(ram, self.page, offset_of!(ShellPage, queue_count)).ok_or(not_ram)?;
        let given = given as usize;
        if !count.contains(&given) || given > QUEUES_MAX {
            return Err(ShellPageError::Queue { index: given });
        }
        (0..given)
            .map(|index| {
                let at = offset_of!(ShellPage, queues) + index * size_of::<QueueDescriptor>();
                let queue = QueueDescriptor {
                    base: read(ram, self.page, at + offset_of!(QueueDescriptor, base))
                        .ok_or(not_ram)?,
                    length: read(ram, self.page, at + offset_of!(QueueDescriptor, length))
                        .ok_or(not_ram)?,
                    entries: read(ram, self.page, at + offset_of!(QueueDescriptor, entries))
                        .ok_or(not_ram)?,
                };
                let in_ram = ram.check_range(GuestAddress(queue.base), queue.length as usize)
                    && queue.length > 0;
                let valid = in_ram && queue.entries.is_power_of_two() && fits(index, &queue);
                valid.then_some(queue).ok_or(ShellPageError::Queue { index })
            })
            .collect()
    }

    /// Writes the revoked word.
    pub fn set_revoked(&self, ram: &GuestRam, generation: u32) -> Result<(), ShellPageError> {
        ram.store(
            generation,
            GuestAddress(self.page + REVOKED_OFFSET as u64),
            std::sync::atomic::Ordering::Release,
        )
        .map_err(|_| ShellPageError::NotRam(self.page))
    }
}

impl Landing {
    pub(super) fn new(base: u64, pages: Vec<u64>) -> Self {
        Self { base, pages }
    }

    /// Guest physical addresses of its pages, in order.
    pub(super) fn pages(&self) -> &[u64] {
        &self.pages
    }

    /// The base to relocate to.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes.
    pub fn length(&self) -> usize {
        self.pages.len() * PAGE_SIZE
    }

    fn check_content(
        &self,
        ram: &GuestRam,
        residue: Option<&Residue>,
    ) -> Result<(), ShellPageError> {
        let mut digest = Sha256::new();
        let mut odd = None;
        let mut content = [0; PAGE_SIZE];
        for (index, &address) in self.pages.iter().enumerate() {
            ram.read_slice(&mut content, GuestAddress(address))
                .map_err(|_| ShellPageError::LandingPage { index, address })?;
            if odd.is_none() && content.iter().any(|&byte| byte != LANDING_FILL) {
                odd = Some(ShellPageError::Fill { index });
            }
            digest.update(content);
        }
        let sha256: [u8; 32] = digest.finalize().into();
        match odd {
            Some(error)
                if residue.is_none_or(|left| left.pages != self.pages || left.sha256 != sha256) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Writes `image` from the landing's start and fills the rest, and answers what the landing
    /// then holds.
    ///
    /// # Errors
    /// [`ShellPageError::LandingShape`] when the image does not fit.
    pub fn write(&self, ram: &GuestRam, image: &[u8]) -> Result<Residue, ShellPageError> {
        if image.len() > self.length() {
            return Err(ShellPageError::LandingShape {
                base: self.base,
                length: self.length() as u32,
                wanted: image.len() as u32,
            });
        }
        let mut digest = Sha256::new();
        let mut chunks = image.chunks(PAGE_SIZE);
        for (index, &address) in self.pages.iter().enumerate() {
            let mut content = [LANDING_FILL; PAGE_SIZE];
            let chunk = chunks.next().unwrap_or_default();
            content[..chunk.len()].copy_from_slice(chunk);
            digest.update(content);
            ram.write_slice(&content, GuestAddress(address))
                .map_err(|_| ShellPageError::LandingPage { index, address })?;
        }
        Ok(Residue { pages: self.pages.clone(), sha256: digest.finalize().into() })
    }

    /// Fills the whole landing.
    pub fn restore(&self, ram: &GuestRam) -> Result<(), ShellPageError> {
        self.write(ram, &[]).map(drop)
    }
}

#[cfg(test)]
#[path = "landing_test.rs"]
mod tests;
