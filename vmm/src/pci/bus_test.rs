use super::super::config_space::{ConfigHeader, offset};
use super::super::{HostBridge, command};
use super::*;

const GIB: u64 = 1 << 30;

/// Records what the bus tells it.
struct Probe {
    config: ConfigSpace,
    placed: Vec<(u8, Option<u64>)>,
    written: Vec<(u16, usize)>,
    stored: u64,
    resets: usize,
}

impl Probe {
    fn new() -> Arc<Mutex<Self>> {
        let mut config = ConfigSpace::new(ConfigHeader { vendor: 0x1234, ..Default::default() });
        config.add_bar(0, BarKind::Memory32 { prefetchable: false }, 0x1000);
        config.add_bar(2, BarKind::Memory64 { prefetchable: true }, 0x10_0000);
        Arc::new(Mutex::new(Self {
            config,
            placed: Vec::new(),
            written: Vec::new(),
            stored: 0,
            resets: 0,
        }))
    }
}

impl PciDevice for Probe {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn config_written(&mut self, offset: u16, len: usize) {
        self.written.push((offset, len));
    }
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.copy_from_slice(&(u64::from(bar) << 32 | offset).to_le_bytes()[..data.len()]);
    }
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.stored = u64::from(bar) << 32 | offset << 8 | u64::from(data[0]);
    }
    fn bar_placed(&mut self, bar: u8, base: Option<u64>) {
        self.placed.push((bar, base));
    }
    fn identity(&self) -> String {
        "probe".to_owned()
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

    fn reset(&mut self) {
        self.resets += 1;
    }
}

fn bus() -> (Bus, Arc<Mutex<Probe>>) {
    let bus = Bus::new(&Layout::new(64, 36).unwrap());
    let probe = Probe::new();
    assert_eq!(bus.add(Arc::new(Mutex::new(HostBridge::new()))).unwrap(), 0);
    assert_eq!(bus.add(probe.clone()).unwrap(), 1);
    (bus, probe)
}

fn ecam(slot: u64, register: u16) -> u64 {
    0xe000_0000 + (slot << 15) + u64::from(register)
}

fn write32(bus: &Bus, register: u16, value: u32) {
    assert!(bus.mmio_write(ecam(1, register), &value.to_le_bytes()));
}

fn read32(bus: &Bus, address: u64) -> u32 {
    let mut data = [0; 4];
    bus.mmio_read(address, &mut data);
    u32::from_le_bytes(data)
}

fn enable(bus: &Bus) {
    write32(bus, offset::COMMAND, command::MEMORY.into());
}

#[test]
fn bars_have_addresses_from_the_start() {
    let (bus, _) = bus();
    assert_eq!(read32(&bus, ecam(1, 0x10)), 0xc000_0000);
    assert_eq!(read32(&bus, ecam(1, 0x18)), 0xc);
    assert_eq!(read32(&bus, ecam(1, 0x1c)), 8);
}

#[test]
fn a_bar_decodes_only_while_memory_is_enabled() {
    let (bus, probe) = bus();
    assert_eq!(read32(&bus, 0xc000_0010), u32::MAX);
    enable(&bus);
    assert_eq!(read32(&bus, 0xc000_0010), 0x10);
    assert_eq!(read32(&bus, 32 * GIB + 0x20), 0x20);
    assert_eq!(probe.lock().unwrap().placed, [(0, Some(0xc000_0000)), (2, Some(32 * GIB))]);
    write32(&bus, offset::COMMAND, 0);
    assert_eq!(read32(&bus, 0xc000_0010), u32::MAX);
    assert_eq!(probe.lock().unwrap().placed[2..], [(0, None), (2, None)]);
}

#[test]
fn a_moved_bar_is_found_at_its_new_place() {
    let (bus, probe) = bus();
    enable(&bus);
    write32(&bus, 0x18, 0x4000_0000);
    assert!(!bus.mmio_write(32 * GIB, &[0]));
    assert!(bus.mmio_write(33 * GIB + 5, &[7]));
    assert_eq!(probe.lock().unwrap().stored, 2 << 32 | 5 << 8 | 7);
}

#[test]
fn probing_the_size_with_decoding_on_unplaces_the_bar() {
    let (bus, probe) = bus();
    enable(&bus);
    write32(&bus, 0x10, u32::MAX);
    assert_eq!(read32(&bus, ecam(1, 0x10)), 0xffff_f000);
    assert_eq!(probe.lock().unwrap().placed.last(), Some(&(0, None)));
    write32(&bus, 0x10, 0xc000_0000);
    assert_eq!(probe.lock().unwrap().placed.last(), Some(&(0, Some(0xc000_0000))));
}

#[test]
fn a_bar_cannot_cover_ram() {
    let (bus, probe) = bus();
    write32(&bus, 0x10, 0x10_0000);
    enable(&bus);
    assert!(!probe.lock().unwrap().placed.contains(&(0, Some(0x10_0000))));
    assert!(!bus.mmio_write(0x10_0000, &[0]));
}

#[test]
fn an_access_across_the_end_finds_nothing() {
    let (bus, _) = bus();
    enable(&bus);
    assert!(!bus.mmio_write(0xc000_0ffe, &[0; 4]));
}

#[test]
fn two_bars_at_one_address_do_not_confuse_the_bus() {
    let (bus, _) = bus();
    let other = Probe::new();
    bus.add(other.clone()).unwrap();
    enable(&bus);
    bus.config_write(2 << 3, 0x10, &0xc000_0000_u32.to_le_bytes());
    bus.config_write(2 << 3, offset::COMMAND, &command::MEMORY.to_le_bytes());
    bus.config_write(2 << 3, offset::COMMAND, &[0, 0]);
    assert_eq!(read32(&bus, 0xc000_0010), 0x10);
}

#[test]
fn absent_functions_read_ones() {
    let (bus, _) = bus();
    assert_eq!(read32(&bus, ecam(9, 0)), u32::MAX);
    assert_eq!(read32(&bus, ecam(1, 0) + 0x1000), u32::MAX);
}

#[test]
fn config_writes_are_told_after_they_took_effect() {
    let (bus, probe) = bus();
    bus.mmio_write(ecam(1, 0x3c), &[5]);
    assert_eq!(probe.lock().unwrap().written, [(0x3c, 1)]);
    assert_eq!(read32(&bus, ecam(1, 0x3c)), 5);
}

#[test]
fn reset_brings_bars_home() {
    let (bus, probe) = bus();
    enable(&bus);
    write32(&bus, 0x18, 0x4000_0000);
    bus.reset();
    assert_eq!(probe.lock().unwrap().resets, 1);
    assert_eq!(probe.lock().unwrap().placed.last(), Some(&(2, None)));
    assert_eq!(read32(&bus, 33 * GIB), u32::MAX);
    assert_eq!(read32(&bus, ecam(1, 0x1c)), 8);
    assert_eq!(read32(&bus, ecam(1, 0x18)), 0xc);
    enable(&bus);
    assert_eq!(read32(&bus, 32 * GIB + 4), 4);
}

#[test]
fn the_bus_fills_up() {
    let (bus, _) = bus();
    for _ in 2..SLOTS {
        bus.add(Probe::new()).unwrap();
    }
    assert!(matches!(bus.add(Probe::new()), Err(BusError::Full)));
}

fn saved(bus: &Bus) -> Archive {
    let mut state = ArchiveBuilder::default();
    bus.save(&mut state).unwrap();
    Archive::parse(&state.finish()).unwrap()
}

#[test]
fn a_restored_bus_decodes_where_the_saved_one_did() {
    let (old, _) = bus();
    write32(&old, 0x18, 0x4000_0000);
    enable(&old);
    let (new, probe) = bus();
    let mut state = saved(&old);
    new.restore(&mut state).unwrap();
    state.finish().unwrap();
    assert_eq!(probe.lock().unwrap().placed, [(0, Some(0xc000_0000)), (2, Some(33 * GIB))]);
    assert_eq!(read32(&new, 33 * GIB + 8), 8);
}

#[test]
fn a_state_of_other_functions_is_refused() {
    let (old, _) = bus();
    let (new, probe) = bus();
    probe.lock().unwrap().config.set_u16(offset::DEVICE, 0x4711);
    assert!(matches!(new.restore(&mut saved(&old)), Err(StateError::Unsuitable { .. })));
    let (small, _) = bus();
    small.add(Probe::new()).unwrap();
    assert!(matches!(small.restore(&mut saved(&old)), Err(StateError::Missing { .. })));
}
