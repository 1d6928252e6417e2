//! What the switch needs of the world: a pool of VFs, a VF once it is open, and plugins. Traits,
//! so that all of it can be tested without a device, a daemon, or KVM.

use std::ops::ControlFlow;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use npa_abi::image::PluginHeader;
use npa_abi::register::DEVICE_INFO_WORDS;
use npa_abi::shell_page::QueueDescriptor;
use pf_control::client::ClientError;
use pf_control::ops::{Acquired, LeaseId};
use pf_control::vf_control::{Offloads, VfConfig, VfEvent, VfStats};
use vmm_sys_util::eventfd::EventFd;

use super::inject::InjectError;
use crate::vfio::VfError;

/// A VF that the pool gave us.
#[derive(Clone, Debug)]
pub struct VfGrant {
    /// What and where it is.
    pub acquired: Acquired,
    /// How its control page is to be set up.
    pub config: VfConfig,
    /// What the plugin is told of it.
    pub device_info: [u32; DEVICE_INFO_WORDS],
}

/// Where VFs come from and go back to. Calls may block up to a bound of the implementation's.
pub trait VfPool: Send + Sync {
    /// Takes a VF under its placeholder address; with `wait` the device waits in the pool's queue if
    /// none is free, and is to ask again.
    ///
    /// # Errors
    /// No VF is free or fit, or the daemon is away.
    fn acquire(&self, wait: bool) -> Result<VfGrant, ClientError>;

    /// The open IOMMU group of the lease's VF.
    ///
    /// # Errors
    /// Somebody has it open, or the daemon is away.
    fn open(&self, lease: LeaseId) -> Result<OwnedFd, ClientError>;

    /// Whether the daemon answers and knows the lease, so that the VF could be given back.
    ///
    /// # Errors
    /// It does not.
    fn check(&self, lease: LeaseId) -> Result<(), ClientError>;

    /// Readies the VF for these rings.
    ///
    /// # Errors
    /// Refused, or the daemon is away.
    fn init(&self, lease: LeaseId, queues: &[QueueDescriptor]) -> Result<(), ClientError>;

    /// Moves address and forwarding to the VF.
    ///
    /// # Errors
    /// Refused, or the daemon is away.
    fn activate(&self, lease: LeaseId) -> Result<(), ClientError>;

    /// Moves address and forwarding back to the emulated path.
    ///
    /// # Errors
    /// Refused, or the daemon is away.
    fn quiesce(&self, lease: LeaseId) -> Result<(), ClientError>;

    /// Gives a closed VF back, from whatever state.
    ///
    /// # Errors
    /// The daemon is away, or could not free the VF.
    fn release(&self, lease: LeaseId) -> Result<(), ClientError>;

    /// Tells `heard` what changes in the pool, until it breaks off or the daemon ends. What is so at
    /// the beginning is told too. Blocks, for some seconds without news at most.
    ///
    /// # Errors
    /// The daemon is away, or has ended.
    fn follow(&self, heard: &mut dyn FnMut(PoolNews) -> ControlFlow<()>)
    -> Result<(), ClientError>;
}

/// What a pool tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolNews {
    /// Whether whoever holds this lease is to give it back.
    WantedBack(LeaseId, bool),
    /// A VF can be had.
    Free,
    /// Nothing, for a while.
    Silence,
}

/// A piece of a VF's BAR, as it can be mapped.
#[derive(Clone, Copy, Debug)]
pub struct DeviceMemory<'a> {
    /// What to map.
    pub file: BorrowedFd<'a>,
    /// From which offset, in bytes, page-aligned.
    pub offset: u64,
}

/// Opens VFs.
pub trait VfOpener: Send {
    /// Opens the VF, whose open IOMMU group `group` is, for this VM and lets it reach guest RAM.
    ///
    /// # Errors
    /// [`VfError`] says what to do.
    fn open(&mut self, grant: &VfGrant, group: OwnedFd) -> Result<Box<dyn Vf>, VfError>;
}

/// An open VF. Dropping it closes it, which stops its DMA.
pub trait Vf: Send {
    /// Brings it up through its control page.
    ///
    /// # Errors
    /// [`VfError`].
    fn init(&mut self, config: &VfConfig) -> Result<(), VfError>;

    /// Adds what only the VF can tell its plugin to the vendor's words of `words`.
    fn describe(&self, words: &mut [u32; DEVICE_INFO_WORDS]);

    /// What it does for frames that are sent.
    fn offloads(&self) -> Offloads;

    /// Most entries that its rings can have: receive, transmit.
    fn ring_limits(&self) -> [u16; 2];

    /// Tells it where its queues are, receive and transmit by turns.
    ///
    /// # Errors
    /// [`VfError`].
    fn start(&mut self, queues: &[QueueDescriptor]) -> Result<(), VfError>;

    /// Lets frames reach it.
    ///
    /// # Errors
    /// [`VfError`].
    fn admit(&mut self) -> Result<(), VfError>;

    /// Lets no more frames reach it.
    ///
    /// # Errors
    /// [`VfError`].
    fn dismiss(&mut self) -> Result<(), VfError>;

    /// `length` bytes from `offset` of BAR `bar`, all of them data pages.
    ///
    /// # Errors
    /// [`VfError::Region`] for what must not or cannot be mapped.
    fn data(&self, bar: u8, offset: u64, length: u64) -> Result<DeviceMemory<'_>, VfError>;

    /// Connects vectors of the VF (by their number in its table) to eventfds.
    ///
    /// # Errors
    /// [`VfError`].
    fn wire(&mut self, vectors: &[(u16, &EventFd)]) -> Result<(), VfError>;

    /// Undoes [`Vf::wire`]; the control vector stays.
    ///
    /// # Errors
    /// [`VfError`].
    fn unwire(&mut self) -> Result<(), VfError>;

    /// Stops DMA and interrupts at once. Never waits.
    fn stop(&mut self);

    /// Descriptors that become readable when there may be an event.
    fn signals(&self) -> Vec<RawFd>;

    /// What the VF counted since it was last brought up; `None` when it does not answer.
    fn stats(&self) -> Option<VfStats>;

    /// The next thing that happened to the VF without our doing.
    fn poll_event(&mut self) -> Option<VfEvent>;
}

/// Where plugins come from.
pub trait PluginStore: Send {
    /// Finds the plugin `name` and verifies it.
    ///
    /// # Errors
    /// [`InjectError`] says what is wrong with it.
    fn load(&self, name: &str) -> Result<Box<dyn Plugin>, InjectError>;
}

/// A verified plugin.
pub trait Plugin: Send {
    /// Its header.
    fn header(&self) -> &PluginHeader;

    /// Its name.
    fn name(&self) -> &str;

    /// Its version.
    fn version(&self) -> &str;

    /// The image, relocated to guest virtual address `base`; whole pages.
    fn relocate(&self, base: u64) -> Vec<u8>;
}
