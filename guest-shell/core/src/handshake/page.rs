//! The shell page: one page of guest RAM that the hypervisor reads, with one word that it writes.
#![allow(unsafe_code)] // The page is DMA memory, reached through raw pointers.

use crate::os::{DmaMemory, LandingRange, Os};
use core::ptr::{NonNull, addr_of_mut};
use core::sync::atomic::{AtomicU32, Ordering};
use npa_abi::PAGE_SIZE;
use npa_abi::shell_page::{
    FEATURE_MARKS, LANDING_PAGES_MAX, QUEUES_MAX, QueueDescriptor, REVOKED_OFFSET,
    SHELL_PAGE_MAGIC, ShellPage,
};

/// The shell page. Only the control side writes it (the value cannot be shared between threads);
/// both sides read the revoked word.
#[derive(Debug)]
pub struct SharedPage {
    memory: DmaMemory,
}

// SAFETY: the page is plain memory that belongs to this value; the one word that is read from
// several contexts is atomic, everything else is written by the value's owner only.
unsafe impl Send for SharedPage {}
impl SharedPage {
    /// Allocates the page and fills in the landing part. `None` without memory or with a landing
    /// that is too long.
    pub fn new(os: &impl Os, landing: &LandingRange<'_>) -> Option<Self> {
        if landing.pages.len() > LANDING_PAGES_MAX
            || landing.pages.len().checked_mul(PAGE_SIZE)? != landing.length
        {
            return None;
        }
        let memory = os.dma_alloc(PAGE_SIZE)?;
        let page = memory.base.as_ptr().cast::<ShellPage>();
        // SAFETY: the memory is one zeroed page, page-aligned, and nobody else knows it yet; the
        // fields are written through raw pointers, so no reference covers the host's word.
        unsafe {
            addr_of_mut!((*page).magic).write(SHELL_PAGE_MAGIC);
            addr_of_mut!((*page).size).write(PAGE_SIZE as u32);
            addr_of_mut!((*page).landing_base).write(landing.base.as_ptr() as u64);
            addr_of_mut!((*page).landing_length).write(landing.length as u32);
            addr_of_mut!((*page).features).write(FEATURE_MARKS);
            let mut pages = [0; LANDING_PAGES_MAX];
            for (to, from) in pages.iter_mut().zip(landing.pages) {
                *to = *from;
            }
            addr_of_mut!((*page).landing_pages).write(pages);
        }
        Some(Self { memory })
    }

    /// Guest physical address.
    pub const fn device_address(&self) -> u64 {
        self.memory.device_address
    }

    /// Fills in the queue part; queues beyond [`QUEUES_MAX`] are left out.
    pub fn set_queues(&self, queues: &[QueueDescriptor]) {
        let page = self.memory.base.as_ptr().cast::<ShellPage>();
        let mut all = [QueueDescriptor::default(); QUEUES_MAX];
        for (to, from) in all.iter_mut().zip(queues) {
            *to = *from;
        }
        // SAFETY: the page lives as long as `self`; see `new`.
        unsafe {
            addr_of_mut!((*page).queues).write(all);
            addr_of_mut!((*page).queue_count).write(queues.len().min(QUEUES_MAX) as u32);
        }
    }

    /// The word in which the host tells of a forced revoke.
    pub fn revoked_word(&self) -> RevokedWord {
        // SAFETY: the offset of a field of the page, which is one allocation.
        RevokedWord { word: unsafe { self.memory.base.byte_add(REVOKED_OFFSET) }.cast() }
    }

    /// Frees the page; the host must not use it any more (unregistered or reset).
    pub fn free(self, os: &impl Os) {
        os.dma_free(self.memory);
    }
}

/// The word in which the host tells of a forced revoke, for the data path.
#[derive(Clone, Copy, Debug)]
pub struct RevokedWord {
    word: NonNull<AtomicU32>,
}

// SAFETY: an atomic word; whoever holds this gives it up before the page is freed.
unsafe impl Send for RevokedWord {}
// SAFETY: as above.
unsafe impl Sync for RevokedWord {}

impl RevokedWord {
    /// The generation that was revoked, or 0. A memory read.
    pub fn read(&self) -> u32 {
        // SAFETY: the page outlives the data path's use of it: the control side installs a VF path
        // with this word only while registered, and removes it before it frees the page.
        unsafe { self.word.as_ref() }.load(Ordering::Acquire)
    }
}
