//! The 4 KiB configuration space of a function: what the guest may change in it, its BARs and
//! its capability list. Never acts on what the guest writes; the bus and the device do.

use super::command;

/// Register offsets of a type 0 header (PCI 3.0, 6.1).
pub mod offset {
    /// Vendor id, 2 bytes.
    pub const VENDOR: u16 = 0x00;
    /// Device id, 2 bytes.
    pub const DEVICE: u16 = 0x02;
    /// Command, 2 bytes; bits are in [`super::command`].
    pub const COMMAND: u16 = 0x04;
    /// Status, 2 bytes.
    pub const STATUS: u16 = 0x06;
    /// Revision, 1 byte.
    pub const REVISION: u16 = 0x08;
    /// Programming interface, subclass, class: 3 bytes.
    pub const CLASS: u16 = 0x09;
    /// Cache line size, 1 byte.
    pub const CACHE_LINE: u16 = 0x0c;
    /// Header type, 1 byte.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First of six BARs, 4 bytes each.
    pub const BAR0: u16 = 0x10;
    /// Subsystem vendor id, 2 bytes.
    pub const SUBSYSTEM_VENDOR: u16 = 0x2c;
    /// Subsystem id, 2 bytes.
    pub const SUBSYSTEM: u16 = 0x2e;
    /// First capability, 1 byte.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt line, 1 byte.
    pub const INTERRUPT_LINE: u16 = 0x3c;
}

/// Bytes in the configuration space of a PCI Express function.
pub(super) const SIZE: usize = 4096;
/// Capabilities live between the header and here; extended ones follow.
const CAPABILITIES_END: usize = 256;
/// Status bit: the capability list exists.
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Identity of a function.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigHeader {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code: class, subclass, programming interface from the top (0x020000 is Ethernet).
    pub class: u32,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
}

/// What kind of memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// 32-bit address, one register.
    Memory32 {
        /// Reads have no side effects and writes may merge.
        prefetchable: bool,
    },
    /// 64-bit address, takes this register and the next.
    Memory64 {
        /// Reads have no side effects and writes may merge.
        prefetchable: bool,
    },
}

/// A BAR that the function has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Register number, 0 to 5; of a 64-bit BAR the lower.
    pub index: u8,
    /// Kind of BAR.
    pub kind: BarKind,
    /// Bytes, a power of two of at least 16.
    pub size: u64,
}

/// See the module. Guest writes go through [`ConfigSpace::write`], which changes only what is
/// writable; all other setters are the device's own.
pub struct ConfigSpace {
    bytes: Box<[u8; SIZE]>,
    writable: Box<[u8; SIZE]>,
    /// The state to return to at reset.
    initial: Box<[u8; SIZE]>,
    bars: Vec<Bar>,
    capabilities_end: usize,
    last_capability: Option<usize>,
}

impl ConfigSpace {
    /// A type 0 header without BARs and capabilities. Command bits for memory space and bus
    /// master, cache line size and interrupt line are writable.
    pub fn new(header: ConfigHeader) -> Self {
        let mut space = Self {
            bytes: Box::new([0; SIZE]),
            writable: Box::new([0; SIZE]),
            initial: Box::new([0; SIZE]),
            bars: Vec::new(),
            capabilities_end: 0x40,
            last_capability: None,
        };
        space.set_u16(offset::VENDOR, header.vendor);
        space.set_u16(offset::DEVICE, header.device);
        space.set_u32(offset::REVISION, header.class << 8 | u32::from(header.revision));
        space.set_u16(offset::SUBSYSTEM_VENDOR, header.subsystem_vendor);
        space.set_u16(offset::SUBSYSTEM, header.subsystem);
        let command = command::MEMORY | command::BUS_MASTER | command::INTX_DISABLE;
        space.set_writable(offset::COMMAND, &command.to_le_bytes());
        space.set_writable(offset::CACHE_LINE, &[0xff]);
        space.set_writable(offset::INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Reads `data.len()` bytes; what is beyond the end reads as ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    /// A guest write: changes the writable bits only.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, value) in (usize::from(offset)..SIZE).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | value & mask;
        }
    }

    /// One byte. `offset` is below 4096, here and in all methods below.
    pub fn u8(&self, offset: u16) -> u8 {
        self.bytes[usize::from(offset)]
    }

    /// Two bytes, little endian.
    pub fn u16(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.u8(offset), self.u8(offset + 1)])
    }

    /// Four bytes, little endian.
    pub fn u32(&self, offset: u16) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }

    /// Sets bytes, writable or not.
    pub fn set(&mut self, offset: u16, data: &[u8]) {
        let at = usize::from(offset);
        self.bytes[at..at + data.len()].copy_from_slice(data);
    }

    /// Sets one byte.
    pub fn set_u8(&mut self, offset: u16, value: u8) {
        self.set(offset, &[value]);
    }

    /// Sets two bytes.
    pub fn set_u16(&mut self, offset: u16, value: u16) {
        self.set(offset, &value.to_le_bytes());
    }

    /// Sets four bytes.
    pub fn set_u32(&mut self, offset: u16, value: u32) {
        self.set(offset, &value.to_le_bytes());
    }

    /// Lets the guest write the bits that are set in `mask`, from `offset` on.
    pub fn set_writable(&mut self, offset: u16, mask: &[u8]) {
        let at = usize::from(offset);
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// Adds a memory BAR; the bus gives it an address when the function is added.
    ///
    /// # Panics
    /// When `size` is no power of two of at least 16, or the registers do not exist or are
    /// taken: mistakes in a device's code, not in what a user or guest does.
    pub fn add_bar(&mut self, index: u8, kind: BarKind, size: u64) {
        assert!(size.is_power_of_two() && size >= 16, "bar size {size:#x}");
        let (registers, type_bits, prefetchable) = match kind {
            BarKind::Memory32 { prefetchable } => (1, 0b000, prefetchable),
            BarKind::Memory64 { prefetchable } => (2, 0b100, prefetchable),
        };
        assert!(index + registers <= 6, "bar {index} does not exist");
        let taken = |at: u8| {
            self.bars.iter().any(|bar| {
                let wide = matches!(bar.kind, BarKind::Memory64 { .. });
                bar.index == at || wide && bar.index + 1 == at
            })
        };
        assert!(!(index..index + registers).any(taken), "bar {index} is taken");
        let at = bar_offset(index);
        self.set_u32(at, type_bits | u32::from(prefetchable) << 3);
        let mask = !(size - 1);
        self.set_writable(at, &(mask as u32).to_le_bytes());
        if registers == 2 {
            self.set_writable(at + 4, &((mask >> 32) as u32).to_le_bytes());
        }
        self.bars.push(Bar { index, kind, size });
    }

    /// The function's BARs.
    pub fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// The address in a BAR's registers, whether it decodes or not.
    pub fn bar_address(&self, bar: &Bar) -> u64 {
        let at = bar_offset(bar.index);
        let low = u64::from(self.u32(at) & !0xf);
        match bar.kind {
            BarKind::Memory32 { .. } => low,
            BarKind::Memory64 { .. } => low | u64::from(self.u32(at + 4)) << 32,
        }
    }

    /// Writes an address, aligned to the BAR's size, to its registers.
    pub fn set_bar_address(&mut self, bar: &Bar, address: u64) {
        let at = bar_offset(bar.index);
        let flags = self.u32(at) & 0xf;
        self.set_u32(at, address as u32 & !0xf | flags);
        if let BarKind::Memory64 { .. } = bar.kind {
            self.set_u32(at + 4, (address >> 32) as u32);
        }
    }

    /// Whether the guest enabled memory space.
    pub fn memory_enabled(&self) -> bool {
        self.u16(offset::COMMAND) & command::MEMORY != 0
    }

    /// Whether the guest lets the function do DMA and send interrupts.
    pub fn bus_master(&self) -> bool {
        self.u16(offset::COMMAND) & command::BUS_MASTER != 0
    }

    /// Appends a capability to the list: `body` follows the two bytes of id and next pointer,
    /// `writable` (no longer than `body`) is its guest-writable mask. Returns its offset.
    ///
    /// # Panics
    /// When the 192 bytes for capabilities are used up: a mistake in a device's code.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let at = self.capabilities_end.next_multiple_of(4);
        let end = at + 2 + body.len();
        assert!(end <= CAPABILITIES_END, "no room for capability {id:#x}");
        let link = match self.last_capability {
            Some(last) => last + 1,
            None => usize::from(offset::CAPABILITIES),
        };
        self.bytes[link] = at as u8;
        self.bytes[at] = id;
        self.bytes[at + 1] = 0;
        self.set(at as u16 + 2, body);
        self.set_writable(at as u16 + 2, writable);
        let status = self.u16(offset::STATUS) | STATUS_CAPABILITIES;
        self.set_u16(offset::STATUS, status);
        self.last_capability = Some(at);
        self.capabilities_end = end;
        at as u16
    }

    /// All of its bytes up to the last that is not zero, for [`ConfigSpace::adopt`].
    pub(super) fn contents(&self) -> &[u8] {
        let end = self.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &self.bytes[..end]
    }

    /// Takes over what a guest wrote to an equal function: `bytes` as [`ConfigSpace::contents`]
    /// gave them. `false` when they differ in what no guest can write; nothing is changed then.
    pub(super) fn adopt(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > SIZE {
            return false;
        }
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let fits = (0..SIZE).all(|at| (byte(at) ^ self.bytes[at]) & !self.writable[at] == 0);
        if fits {
            for at in 0..SIZE {
                self.bytes[at] = byte(at);
            }
        }
        fits
    }

    /// Remembers the present contents as the state to return to at reset; the bus calls this
    /// when the function is added.
    pub(super) fn seal(&mut self) {
        self.initial = self.bytes.clone();
    }

    /// Back to the contents at the time when the function was added to the bus. The bus does
    /// this at a bus reset; a device need not.
    pub(super) fn reset(&mut self) {
        self.bytes = self.initial.clone();
    }
}

fn bar_offset(index: u8) -> u16 {
    offset::BAR0 + 4 * u16::from(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic() -> ConfigSpace {
        ConfigSpace::new(ConfigHeader {
            vendor: 0x1af4,
            device: 0x1041,
            revision: 1,
            class: 0x02_0000,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1041,
        })
    }

    #[test]
    fn header_is_read_only() {
        let mut space = nic();
        space.write(0, &[0; 4]);
        space.write(8, &[0xff; 4]);
        assert_eq!(space.u32(0), 0x1041_1af4);
        assert_eq!(space.u32(8), 0x0200_0001);
    }

    #[test]
    fn sizing_a_64_bit_bar() {
        let mut space = nic();
        space.add_bar(2, BarKind::Memory64 { prefetchable: true }, 0x8_0000);
        space.write(0x18, &[0xff; 4]);
        space.write(0x1c, &[0xff; 4]);
        assert_eq!(space.u32(0x18), 0xfff8_000c);
        assert_eq!(space.u32(0x1c), 0xffff_ffff);
        let bar = space.bars()[0];
        space.set_bar_address(&bar, 0x8_4000_0000);
        assert_eq!(space.bar_address(&bar), 0x8_4000_0000);
        assert_eq!(space.u32(0x18), 0x4000_000c);
    }

    #[test]
    fn sizing_a_bar_above_4_gib_in_size() {
        let mut space = nic();
        space.add_bar(0, BarKind::Memory64 { prefetchable: true }, 1 << 33);
        space.write(0x10, &[0xff; 4]);
        space.write(0x14, &[0xff; 4]);
        assert_eq!((space.u32(0x10), space.u32(0x14)), (0xc, 0xffff_fffe));
    }

    #[test]
    #[should_panic(expected = "bar 1 is taken")]
    fn upper_half_of_a_64_bit_bar_is_taken() {
        let mut space = nic();
        space.add_bar(0, BarKind::Memory64 { prefetchable: false }, 0x1000);
        space.add_bar(1, BarKind::Memory32 { prefetchable: false }, 0x1000);
    }

    #[test]
    fn capabilities_are_linked() {
        let mut space = nic();
        let first = space.add_capability(0x09, &[1, 2, 3], &[]);
        let second = space.add_capability(0x11, &[0; 10], &[0, 0xc0]);
        assert_eq!((first, second), (0x40, 0x48));
        assert_eq!(space.u8(offset::CAPABILITIES), 0x40);
        assert_eq!((space.u8(0x41), space.u8(0x49)), (0x48, 0));
        assert_eq!(space.u16(offset::STATUS) & STATUS_CAPABILITIES, STATUS_CAPABILITIES);
        space.write(0x4a, &[0xff, 0xff]);
        assert_eq!(space.u16(0x4a), 0xc000);
    }

    #[test]
    fn reset_restores_what_was_sealed() {
        let mut space = nic();
        space.seal();
        space.write(offset::COMMAND, &[6, 0]);
        assert!(space.memory_enabled() && space.bus_master());
        space.reset();
        assert!(!space.memory_enabled());
    }

    #[test]
    fn beyond_the_end_reads_ones() {
        let mut data = [0; 4];
        nic().read(0xffe, &mut data);
        assert_eq!(data, [0, 0, 0xff, 0xff]);
    }
}
