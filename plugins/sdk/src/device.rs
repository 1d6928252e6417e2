//! One device as its plugin sees it.

#![allow(unsafe_code)] // Reads what the shell points to.

use core::ptr::addr_of;

use npa_abi::plugin::{Instance, ShellApi};
use npa_abi::register::DEVICE_INFO_WORDS;
use npa_abi::shell_page::QUEUES_MAX;

use crate::{Memory, Window};

/// The device that an op is about.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    instance: &'a *mut Instance,
}

impl<'a> Device<'a> {
    /// Wraps the first argument of an op.
    ///
    /// # Safety
    /// `*instance` points to an instance that is valid, with all that it points to, while the
    /// result is used, and whose fields but `device_info` do not change meanwhile.
    pub(crate) unsafe fn new(instance: &'a *mut Instance) -> Self {
        Self { instance }
    }

    /// The VF window.
    pub fn window(&self) -> Window {
        let instance = *self.instance;
        // SAFETY: the instance is valid, and so is its window, by `new`'s contract.
        unsafe { Window::new((*instance).window, (*instance).window_length as usize) }
    }

    /// The memory of queue `queue`, if the instance has that queue.
    pub fn queue(&self, queue: u32) -> Option<Memory> {
        let index = queue as usize;
        if index >= QUEUES_MAX || queue >= self.queue_count() {
            return None;
        }
        let instance = *self.instance;
        // SAFETY: the index is inside the array; the memory is valid by `new`'s contract.
        unsafe {
            let first = addr_of!((*instance).queues).cast::<npa_abi::plugin::QueueMemory>();
            Memory::new(&first.add(index).read())
        }
    }

    /// Number of queues.
    pub fn queue_count(&self) -> u32 {
        // SAFETY: the instance is valid by `new`'s contract.
        unsafe { (**self.instance).queue_count }.into()
    }

    /// Bytes in each receive buffer.
    pub fn buffer_length(&self) -> u32 {
        // SAFETY: the instance is valid by `new`'s contract.
        unsafe { (**self.instance).buffer_length }
    }

    /// Vectors that the shell wired.
    pub fn vector_count(&self) -> u32 {
        // SAFETY: the instance is valid by `new`'s contract.
        unsafe { (**self.instance).vector_count }
    }

    /// Word `index` of what the hypervisor tells of the VF, modulo the number of words. May
    /// change from call to call.
    pub fn info(&self, index: usize) -> u32 {
        let instance = *self.instance;
        // SAFETY: the index is inside the array; the instance is valid by `new`'s contract.
        unsafe {
            let first = addr_of!((*instance).device_info).cast::<u32>();
            first.add(index % DEVICE_INFO_WORDS).read_volatile()
        }
    }

    /// Net: the interface's MAC address, as words 0 and 1 of the information hold it.
    pub fn mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.info(0).to_le_bytes();
        let [e, f, ..] = self.info(1).to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Net: the MTU in bytes.
    pub fn mtu(&self) -> u16 {
        (self.info(1) >> 16) as u16
    }

    /// Private memory and its length in bytes.
    pub(crate) fn private(&self) -> (*mut u8, usize) {
        let instance = *self.instance;
        // SAFETY: the instance is valid by `new`'s contract.
        unsafe { ((*instance).private.cast::<u8>(), (*instance).private_length as usize) }
    }

    /// The shell's callbacks and their first argument.
    pub(crate) fn shell(&self) -> (&'a ShellApi, *mut core::ffi::c_void) {
        let instance = *self.instance;
        // SAFETY: the callbacks live as long as the instance, by `new`'s contract.
        unsafe { (&*(*instance).shell, (*instance).context) }
    }

    /// Writes `text` to the guest's log.
    pub fn log(&self, level: u32, text: &str) {
        let (shell, context) = self.shell();
        // SAFETY: the text is valid for the call; the context is the shell's own.
        unsafe { (shell.log)(context, level, text.as_ptr(), text.len()) }
    }
}
