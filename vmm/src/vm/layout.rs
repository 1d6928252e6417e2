//! The guest's physical address map. Pure arithmetic; maps nothing.

/// End of RAM below 4 GiB; the 32-bit MMIO window starts here.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// Where RAM goes on.
pub const HIGH_RAM_START: u64 = 1 << 32;
/// 32-bit BARs live between [`LOW_RAM_END`] and here.
pub const MMIO32_END: u64 = 0xe000_0000;
/// Configuration space of bus 0: 256 functions of 4 KiB.
pub const ECAM_START: u64 = 0xe000_0000;
/// Bytes of [`ECAM_START`].
pub const ECAM_LEN: u64 = 1 << 20;
/// The in-kernel I/O APIC.
pub const IOAPIC: u64 = 0xfec0_0000;
/// The in-kernel local APICs.
pub const LAPIC: u64 = 0xfee0_0000;
/// One page for KVM's identity map, which Intel CPUs need in real mode, followed by three for
/// its task state segment.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// See [`KVM_IDENTITY_MAP`].
pub const KVM_TSS: u64 = 0xfffb_d000;

/// More physical address bits than these are not used: guests with 4-level page tables can map
/// no more.
const MAX_BITS: u8 = 46;
/// The least that fits RAM and a 64-bit window of useful size.
const MIN_BITS: u8 = 34;
/// Granule of guest RAM.
const MIB: u64 = 1 << 20;

/// An address map that cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// RAM would reach into the 64-bit MMIO window.
    #[error(
        "{memory_mib} MiB of memory do not fit this cpu's {bits} physical address bits; \
         use at most {max_mib} MiB"
    )]
    TooMuchMemory {
        /// What was asked for.
        memory_mib: u64,
        /// Guest physical address bits.
        bits: u8,
        /// What fits.
        max_mib: u64,
    },
    /// Too little RAM to load a kernel.
    #[error("{memory_mib} MiB of memory are too little; use at least {MIN_MIB} MiB")]
    TooLittleMemory {
        /// What was asked for.
        memory_mib: u64,
    },
    /// The CPU has too few physical address bits.
    #[error("this cpu has only {bits} physical address bits; at least {MIN_BITS} are needed")]
    TooFewBits {
        /// Guest physical address bits.
        bits: u8,
    },
}

/// RAM for the boot structures and a little code.
const MIN_MIB: u64 = 2;

/// A range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

impl Range {
    /// First address behind the range.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Whether `len` bytes from `at` lie inside.
    pub fn contains(&self, at: u64, len: u64) -> bool {
        at >= self.start && len <= self.len && at - self.start <= self.len - len
    }
}

/// The address map of one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// RAM, one or two ranges in ascending order.
    pub ram: Vec<Range>,
    /// 32-bit BARs.
    pub mmio32: Range,
    /// 64-bit BARs.
    pub mmio64: Range,
    /// Configuration space.
    pub ecam: Range,
}

impl Layout {
    /// The map for `memory_mib` MiB of RAM on a CPU with `physical_bits` (CPUID 0x8000_0008).
    ///
    /// The 64-bit window is the third quarter of the address space, so that its place depends on
    /// the CPU only, and it stays clear of what AMD reserves below 1 TiB (0xfd_0000_0000) when
    /// there are 40 bits.
    pub fn new(memory_mib: u64, physical_bits: u8) -> Result<Self, LayoutError> {
        let bits = physical_bits.min(MAX_BITS);
        if bits < MIN_BITS {
            return Err(LayoutError::TooFewBits { bits });
        }
        if memory_mib < MIN_MIB {
            return Err(LayoutError::TooLittleMemory { memory_mib });
        }
        let mmio64 = Range { start: 1 << (bits - 1), len: 1 << (bits - 2) };
        let max_mib = (mmio64.start - HIGH_RAM_START + LOW_RAM_END) / MIB;
        if memory_mib > max_mib {
            return Err(LayoutError::TooMuchMemory { memory_mib, bits, max_mib });
        }
        let memory = memory_mib * MIB;
        let mut ram = vec![Range { start: 0, len: memory.min(LOW_RAM_END) }];
        if memory > LOW_RAM_END {
            ram.push(Range { start: HIGH_RAM_START, len: memory - LOW_RAM_END });
        }
        Ok(Self {
            ram,
            mmio32: Range { start: LOW_RAM_END, len: MMIO32_END - LOW_RAM_END },
            mmio64,
            ecam: Range { start: ECAM_START, len: ECAM_LEN },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_memory_is_one_range() {
        let layout = Layout::new(512, 36).unwrap();
        assert_eq!(layout.ram, [Range { start: 0, len: 512 * MIB }]);
        assert_eq!(layout.mmio64, Range { start: 32 << 30, len: 16 << 30 });
    }

    #[test]
    fn large_memory_leaves_the_hole() {
        let layout = Layout::new(4096, 40).unwrap();
        assert_eq!(layout.ram[1], Range { start: 4 << 30, len: 1 << 30 });
        assert_eq!(layout.mmio64, Range { start: 512 << 30, len: 256 << 30 });
    }

    #[test]
    fn memory_must_end_below_the_window() {
        let max_mib = 31 * 1024;
        assert!(Layout::new(max_mib, 36).is_ok());
        assert_eq!(
            Layout::new(max_mib + 1, 36),
            Err(LayoutError::TooMuchMemory { memory_mib: max_mib + 1, bits: 36, max_mib })
        );
    }

    #[test]
    fn limits() {
        assert_eq!(Layout::new(512, 32), Err(LayoutError::TooFewBits { bits: 32 }));
        assert_eq!(Layout::new(0, 36), Err(LayoutError::TooLittleMemory { memory_mib: 0 }));
        assert_eq!(Layout::new(64, 52), Layout::new(64, 46));
    }

    #[test]
    fn range_bounds() {
        let range = Range { start: 0x1000, len: 0x1000 };
        assert!(range.contains(0x1000, 0x1000) && range.contains(0x1fff, 1));
        assert!(!range.contains(0x1fff, 2) && !range.contains(0xfff, 1));
        assert!(!range.contains(u64::MAX, 2));
    }
}
