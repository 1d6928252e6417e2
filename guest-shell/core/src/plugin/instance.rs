//! A plugin instance and the memory that belongs to it.
#![allow(unsafe_code)] // The instance is a C structure full of pointers, shared with the plugin.

use crate::memory::{Table, mark_pages};
use crate::os::{DmaMemory, Os};
use core::ffi::c_void;
use core::ptr::NonNull;
use npa_abi::ABI;
use npa_abi::image::{ROLES_MAX, RingNeed};
use npa_abi::plugin::{Instance, QueueMemory, ShellApi};
use npa_abi::register::DEVICE_INFO_WORDS;
use npa_abi::shell_page::{QUEUES_MAX, QueueDescriptor};

/// Memory that an instance needs.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Bytes of private memory.
    pub private_length: u32,
    /// Number of queues.
    pub queue_count: u16,
    /// Number of roles.
    pub role_count: u16,
    /// Ring needs by role.
    pub roles: [RingNeed; ROLES_MAX],
    /// Ring entries by role.
    pub entries: [u32; ROLES_MAX],
}

/// What the instance's device is and where.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The window.
    pub window: NonNull<u8>,
    /// Its length in bytes.
    pub window_length: u64,
    /// Bytes in each receive buffer, or zero.
    pub buffer_length: u32,
    /// Vectors wired.
    pub vector_count: u32,
    /// What the plugin is told of the device.
    pub device_info: [u32; DEVICE_INFO_WORDS],
}

/// An instance with its queues and private memory. Whoever holds it decides when the plugin runs:
/// only inside a call does the plugin touch the instance, and only then is `context` not null.
pub struct InstanceMemory {
    instance: NonNull<Instance>,
    private: Option<Table<u8>>,
    queues: [Option<DmaMemory>; QUEUES_MAX],
    entries: [u32; QUEUES_MAX],
}

// SAFETY: the memory behind the pointers belongs to this value alone.
unsafe impl Send for InstanceMemory {}

impl InstanceMemory {
    /// Allocates and fills in an instance whose callbacks are `api`. `None` without memory, with
    /// more than [`QUEUES_MAX`] queues or without roles.
    pub fn new<O: Os>(
        os: &O,
        layout: &Layout,
        place: &Place,
        api: &'static ShellApi,
    ) -> Option<Self> {
        if usize::from(layout.queue_count) > QUEUES_MAX || layout.role_count == 0 {
            return None;
        }
        let instance = os.memory_alloc(size_of::<Instance>())?.cast::<Instance>();
        let mut memory =
            Self { instance, private: None, queues: [None; QUEUES_MAX], entries: [0; QUEUES_MAX] };
        if memory.allocate(os, layout).is_none() {
            memory.free(os);
            return None;
        }
        let none =
            QueueMemory { base: core::ptr::null_mut(), device_address: 0, length: 0, entries: 0 };
        let mut queues = [none; QUEUES_MAX];
        for ((to, from), entries) in queues.iter_mut().zip(&memory.queues).zip(&memory.entries) {
            if let Some(ring) = from {
                *to = QueueMemory {
                    base: ring.base.as_ptr(),
                    device_address: ring.device_address,
                    length: ring.length as u32,
                    entries: *entries,
                };
            }
        }
        let private = memory
            .private
            .as_ref()
            .map_or(core::ptr::null_mut(), |private| private.address(0).cast::<c_void>());
        let value = Instance {
            size: size_of::<Instance>() as u32,
            abi: ABI,
            queue_count: layout.queue_count,
            shell: api,
            context: core::ptr::null_mut(),
            window: place.window.as_ptr(),
            window_length: place.window_length,
            private,
            private_length: layout.private_length,
            buffer_length: place.buffer_length,
            vector_count: place.vector_count,
            reserved: 0,
            device_info: place.device_info,
            queues,
        };
        // SAFETY: freshly allocated for an `Instance`, aligned to 64 bytes.
        unsafe { memory.instance.write(value) };
        Some(memory)
    }

    fn allocate(&mut self, os: &impl Os, layout: &Layout) -> Option<()> {
        if layout.private_length != 0 {
            self.private = Some(Table::new(os, layout.private_length as usize)?);
        }
        let roles = layout.roles.iter().zip(&layout.entries).take(layout.role_count.into());
        let count = usize::from(layout.queue_count);
        let places = self.queues.iter_mut().zip(&mut self.entries).take(count);
        for ((queue, entries), (role, wanted)) in places.zip(roles.cycle()) {
            *queue = Some(os.dma_alloc(usize::try_from(role.bytes(*wanted)).ok()?)?);
            *entries = *wanted;
        }
        Some(())
    }

    /// The queues' memory, for the host.
    pub fn descriptors(&self) -> [QueueDescriptor; QUEUES_MAX] {
        let mut all = [QueueDescriptor::default(); QUEUES_MAX];
        for ((to, from), entries) in all.iter_mut().zip(&self.queues).zip(&self.entries) {
            if let Some(ring) = from {
                *to = QueueDescriptor {
                    base: ring.device_address,
                    length: ring.length as u32,
                    entries: *entries,
                };
            }
        }
        all
    }

    /// Marks the queues' memory ([`mark_pages`]), which no device uses any more.
    pub fn mark(&mut self) {
        for ring in self.queues.iter().flatten() {
            // SAFETY: this value owns the memory, no call of the plugin is under way, and by the
            // caller's word no device writes there.
            unsafe { mark_pages(ring.base, ring.length) };
        }
    }

    /// Runs `call` on the instance with `context` as the callbacks' first argument.
    pub fn call<C, R>(&mut self, context: &mut C, call: impl FnOnce(*mut Instance) -> R) -> R {
        let instance = self.instance.as_ptr();
        // SAFETY: the instance is live, and `&mut self` means that no call is under way.
        unsafe { (*instance).context = core::ptr::from_mut(context).cast() };
        let result = call(instance);
        // SAFETY: as above; the call is over.
        unsafe { (*instance).context = core::ptr::null_mut() };
        result
    }

    /// Frees all memory. No device may write there any more.
    pub fn free(self, os: &impl Os) {
        for queue in self.queues.into_iter().flatten() {
            os.dma_free(queue);
        }
        if let Some(private) = self.private {
            private.free(os);
        }
        os.memory_free(self.instance.cast(), size_of::<Instance>());
    }
}
