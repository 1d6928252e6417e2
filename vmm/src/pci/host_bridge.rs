//! Function 0 of slot 0: the host bridge that guests expect to find. Has no registers.

use super::config_space::{ConfigHeader, ConfigSpace};
use super::device::{HoldError, PciDevice};
use crate::state::{Archive, ArchiveBuilder, StateError};

/// A host bridge with nothing to program; windows and ECAM are described by ACPI.
pub struct HostBridge {
    config: ConfigSpace,
}

impl HostBridge {
    /// The generic PCI Express host bridge (1b36:0008), to which no driver binds.
    pub fn new() -> Self {
        let config = ConfigSpace::new(ConfigHeader {
            vendor: 0x1b36,
            device: 0x0008,
            class: 0x06_0000,
            ..ConfigHeader::default()
        });
        Self { config }
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl PciDevice for HostBridge {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, _offset: u16, _len: usize) {}

    fn bar_read(&mut self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&mut self, _bar: u8, _offset: u64, _data: &[u8]) {}

    fn bar_placed(&mut self, _bar: u8, _base: Option<u64>) {}

    fn identity(&self) -> String {
        "host bridge".to_owned()
    }

    fn suspend(&mut self) -> Result<(), HoldError> {
        Ok(())
    }

    fn resume(&mut self) {}

    fn save(&self, _slot: &str, _state: &mut ArchiveBuilder) -> Result<(), StateError> {
        Ok(())
    }

    fn restore(&mut self, _slot: &str, _state: &mut Archive) -> Result<(), StateError> {
        Ok(())
    }

    fn reset(&mut self) {}
}
