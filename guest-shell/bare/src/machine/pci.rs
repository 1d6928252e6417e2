//! Finds the NIC on PCI bus 0 and gives access to its configuration space and BARs.

use super::acpi;
use super::memory::{Memory, load, store};
use super::paging;
use super::start::Boot;

/// Vendor and device id of a modern virtio network device (virtio 1.2, 5.1).
const VIRTIO_NET: u32 = 0x1041_1af4;

const COMMAND: u64 = 0x04;
/// Memory space and bus master.
const ENABLE: u32 = 0b110;
const BARS: u64 = 0x10;
const BAR_COUNT: usize = 6;

/// A PCI function whose memory BARs are mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    config: u64,
    /// Address and length of each memory BAR; length 0 for none.
    bars: [(u64, u64); BAR_COUNT],
}

impl Function {
    /// Finds the first virtio NIC, enables it and maps its BARs.
    pub(crate) fn find_nic(boot: &Boot, memory: &mut Memory) -> Option<Self> {
        let ecam = acpi::ecam(boot.acpi_root())?;
        let config = (0..32).map(|slot| ecam + (slot << 15)).find(|config| {
            // Configuration space takes aligned 32-bit accesses.
            load::<u32>(*config) == VIRTIO_NET
        })?;
        let mut function = Self { config, bars: [(0, 0); BAR_COUNT] };
        function.size_bars();
        for (base, length) in function.bars {
            if length != 0 && !paging::map(memory, base, length) {
                return None;
            }
        }
        let command: u32 = load(config + COMMAND);
        store(config + COMMAND, command & 0xffff | ENABLE);
        Some(function)
    }

    /// Learns address and length of each memory BAR (PCI Local Bus 3.0, 6.2.5.1). Decoding is off
    /// meanwhile.
    fn size_bars(&mut self) {
        let command: u32 = load(self.config + COMMAND);
        store(self.config + COMMAND, command & 0xffff & !ENABLE);
        let mut index = 0;
        while index < BAR_COUNT {
            let at = self.config + BARS + 4 * index as u64;
            let low: u32 = load(at);
            let wide = low & 0b111 == 0b100;
            if low & 1 == 0 {
                let high: u32 = if wide { load(at + 4) } else { 0 };
                store(at, u32::MAX);
                let mut size = u64::from(load::<u32>(at) & !0xf) | 0xffff_ffff << 32;
                store(at, low);
                if wide {
                    store(at + 4, u32::MAX);
                    size = size & 0xffff_ffff | u64::from(load::<u32>(at + 4)) << 32;
                    store(at + 4, high);
                }
                let base = u64::from(low & !0xf) | u64::from(high) << 32;
                if let Some(bar) = self.bars.get_mut(index)
                    && size & 0xffff_ffff != 0
                {
                    *bar = (base, size.wrapping_neg());
                }
            }
            index += if wide { 2 } else { 1 };
        }
    }

    /// Reads a dword of configuration space.
    pub(crate) fn config_read(&self, offset: u16) -> u32 {
        load(self.config + u64::from(offset & 0xffc))
    }

    /// Address of `length` bytes at `offset` of a BAR, if they are there.
    pub(crate) fn bar(&self, index: u8, offset: u64, length: u64) -> Option<u64> {
        let (base, size) = *self.bars.get(usize::from(index))?;
        let end = offset.checked_add(length)?;
        (end <= size).then(|| base + offset)
    }
}
