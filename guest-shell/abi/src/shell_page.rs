//! One page of guest RAM that the shell shares with the hypervisor.

use core::sync::atomic::AtomicU32;

/// Value of [`ShellPage::magic`]: "SHPG", little endian.
pub const SHELL_PAGE_MAGIC: u32 = u32::from_le_bytes(*b"SHPG");

/// Most pages that a landing may have (256 KiB).
pub const LANDING_PAGES_MAX: usize = 64;

/// Landing length, in bytes, that a host asks for unless told otherwise.
pub const LANDING_LENGTH_DEFAULT: u32 = 64 << 10;

/// What fills a landing while no image is in it: `int3`.
pub const LANDING_FILL: u8 = 0xcc;

/// The shell writes, without changing it, to each page that a VF wrote: to a received frame's when
/// it takes the frame, to all that the VF knew when it was quiesced. So a log of what the guest's
/// CPUs write is complete once a VF was quiesced. Not so after a forced revoke or a VF's reset.
pub const FEATURE_MARKS: u64 = 1 << 0;

/// Most queues that one device may have.
pub const QUEUES_MAX: usize = 16;

/// Memory of one queue's ring, as the host must know it to program withheld registers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDescriptor {
    /// Guest physical address (device address) of the ring memory.
    pub base: u64,
    /// Length of the ring memory in bytes.
    pub length: u32,
    /// Number of ring entries, a power of two.
    pub entries: u32,
}

/// The page's layout. It is page-aligned and exactly one page long. The guest writes everything
/// but [`ShellPage::revoked`]; the landing part before `Register`, the queue part before `Ready`.
#[repr(C, align(4096))]
pub struct ShellPage {
    /// [`SHELL_PAGE_MAGIC`].
    pub magic: u32,
    /// Size of this structure in bytes: 4096.
    pub size: u32,
    /// Guest virtual address of the landing's first byte, page-aligned: the base to relocate to.
    pub landing_base: u64,
    /// Length of the landing in bytes, a multiple of the page size.
    pub landing_length: u32,
    /// Number of valid entries in [`ShellPage::queues`].
    pub queue_count: u32,
    /// What the shell does beyond what every shell does: [`FEATURE_MARKS`] or 0; the rest is zero.
    /// Written before `Register`.
    pub features: u64,
    /// Zero.
    pub reserved0: [u64; 4],
    /// The queues' memory, by queue index (see [`crate::plugin::Instance::queues`]).
    pub queues: [QueueDescriptor; QUEUES_MAX],
    /// Written by the host: the generation whose VF was revoked by force, or 0. The shell reads it
    /// once per burst. When it is written the VF has already been stopped: its DMA reaches no
    /// memory of the guest any more.
    pub revoked: AtomicU32,
    /// Zero.
    pub reserved1: [u32; 47],
    /// Guest physical addresses of the landing's pages, in order; page-aligned, no two equal.
    pub landing_pages: [u64; LANDING_PAGES_MAX],
    /// Zero.
    pub reserved2: [u64; 376],
}

/// Offset of [`ShellPage::revoked`] in the page, in bytes.
pub const REVOKED_OFFSET: usize = core::mem::offset_of!(ShellPage, revoked);

const _: () = assert!(size_of::<ShellPage>() == crate::PAGE_SIZE);
