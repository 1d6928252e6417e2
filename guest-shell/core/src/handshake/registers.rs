//! Access to the NPA register page.

use crate::os::{Os, Width};
use crate::pci::find_capability;
use npa_abi::pci::{
    CAP_ID_VENDOR, CAP_MAGIC, CAP_VENDOR_ID, NpaCapability, VIRTIO_PCI_CAP_VENDOR_CFG,
};
use npa_abi::register;

/// Where the registers and the VF window are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    bar: u8,
    base: u64,
    window: u64,
    window_length: u64,
}

impl Registers {
    /// Finds the NPA capability and checks the register page's magic; `None` on a device without.
    pub fn find(os: &impl Os) -> Option<Self> {
        const WORDS: usize = size_of::<NpaCapability>() / 4;
        let found = find_capability(os, CAP_ID_VENDOR, |words: &[u32; WORDS]| {
            let [head, owner, magic, registers, window, window_length] = *words;
            let long_enough = (head >> 16) as u8 as usize >= size_of::<NpaCapability>();
            let ours = (head >> 24) as u8 == VIRTIO_PCI_CAP_VENDOR_CFG
                && owner as u16 == CAP_VENDOR_ID
                && magic == CAP_MAGIC;
            (long_enough && ours).then(|| Self {
                bar: (owner >> 16) as u8,
                base: u64::from(registers),
                window: u64::from(window),
                window_length: u64::from(window_length),
            })
        })?;
        (found.read(os, register::MAGIC) == register::MAGIC_VALUE).then_some(found)
    }

    /// Reads the register at `offset`, one of [`npa_abi::register`].
    pub fn read(&self, os: &impl Os, offset: u32) -> u32 {
        os.mmio_read(self.bar, self.base.saturating_add(u64::from(offset)), Width::Double)
    }

    /// Writes the register at `offset`.
    pub fn write(&self, os: &impl Os, offset: u32, value: u32) {
        os.mmio_write(self.bar, self.base.saturating_add(u64::from(offset)), Width::Double, value);
    }

    /// BAR, offset and length in bytes of the VF window.
    pub const fn window(&self) -> (u8, u64, u64) {
        (self.bar, self.window, self.window_length)
    }
}
