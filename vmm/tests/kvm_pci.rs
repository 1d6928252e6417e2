//! A PCI function on a real /dev/kvm: BARs, doorbells and interrupts.

mod bare;

use std::sync::{Arc, Mutex};

use bare::{BAR, COM1, Code, LAPIC, Machine, SLOT1, has_kvm};
use vmm::interrupts::{DataMatch, IoAddress};
use vmm::pci::{
    BarKind, ConfigHeader, ConfigSpace, HoldError, MsixCapability, MsixVectors, PciDevice,
};
use vmm::state::{Archive, ArchiveBuilder, StateError};
use vmm::vm::{DeviceContext, VmExit};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Writing here makes the device panic.
const PANIC: u64 = 0x30;
/// Register of the device that reads as this value.
const VALUE: u32 = 0x5a;
/// Doorbell served by an ioeventfd.
const DOORBELL: u64 = 0x10;
/// Writing here raises vector 0.
const RAISE: u64 = 0x20;
/// The MSI-X table and pending bits.
const TABLE: u64 = 0x800;
const PBA: u64 = 0xc00;

/// Trapped writes: offset and bytes.
type Writes = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// A function with one 4 KiB BAR: registers, a doorbell, one vector.
struct Device {
    config: ConfigSpace,
    vectors: Arc<MsixVectors>,
    msix: MsixCapability,
    context: DeviceContext,
    doorbell: EventFd,
    writes: Writes,
}

impl Device {
    fn new(context: &DeviceContext) -> Self {
        let mut config = ConfigSpace::new(ConfigHeader { vendor: 0x1234, ..Default::default() });
        config.add_bar(0, BarKind::Memory32 { prefetchable: false }, 0x1000);
        let vectors = Arc::new(MsixVectors::new(context.irq_router.clone(), 1).unwrap());
        let msix = MsixCapability::new(&mut config, vectors.clone(), 0, TABLE as u32, PBA as u32);
        Self {
            config,
            vectors,
            msix,
            context: context.clone(),
            doorbell: EventFd::new(EFD_NONBLOCK).unwrap(),
            writes: Arc::default(),
        }
    }
}

impl PciDevice for Device {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, offset: u16, len: usize) {
        self.msix.config_written(&self.config, offset, len);
    }

    fn bar_read(&mut self, _bar: u8, offset: u64, data: &mut [u8]) {
        match offset {
            PBA.. => self.vectors.pba_read(offset - PBA, data),
            TABLE.. => self.vectors.table_read(offset - TABLE, data),
            _ => data.copy_from_slice(&VALUE.to_le_bytes()[..data.len()]),
        }
    }

    fn bar_write(&mut self, _bar: u8, offset: u64, data: &[u8]) {
        match offset {
            TABLE.. => self.vectors.table_write(offset - TABLE, data),
            RAISE => self.vectors.trigger(0),
            PANIC => panic!("asked to"),
            _ => self.writes.lock().unwrap().push((offset, data.to_vec())),
        }
    }

    fn bar_placed(&mut self, _bar: u8, base: Option<u64>) {
        let at = IoAddress::Mmio(base.unwrap_or(BAR.into()) + DOORBELL);
        let events = &self.context.io_events;
        match base {
            Some(_) => events.register(at, DataMatch::Any, &self.doorbell).unwrap(),
            None => events.unregister(at, DataMatch::Any, &self.doorbell).unwrap(),
        }
    }

    fn identity(&self) -> String {
        "device".to_owned()
    }

    fn suspend(&mut self) -> Result<(), HoldError> {
        Ok(())
    }

    fn resume(&mut self) {}

    fn save(&self, slot: &str, state: &mut ArchiveBuilder) -> Result<(), StateError> {
        self.vectors.save(slot, state)
    }

    fn restore(&mut self, slot: &str, state: &mut Archive) -> Result<(), StateError> {
        self.vectors.restore(slot, state)?;
        self.msix.follow(&self.config);
        Ok(())
    }

    fn reset(&mut self) {
        self.vectors.reset();
    }
}

/// Enables memory space and bus mastering of slot 1.
fn enabled() -> Code {
    Code::new().store(SLOT1 + 4, 6)
}

/// Runs `code` on a machine with the device in slot 1.
fn run(code: Code) -> (Machine, Arc<Mutex<Device>>) {
    let machine = Machine::new(code);
    let device = Arc::new(Mutex::new(Device::new(machine.vm.device_context())));
    assert_eq!(machine.vm.add_pci_device(device.clone()).unwrap(), 1);
    machine.vm.start().unwrap();
    assert_eq!(machine.vm.wait().unwrap(), VmExit::PowerOff);
    (machine, device)
}

#[test]
fn a_panic_in_a_device_ends_the_machine() {
    if !has_kvm("a_panic_in_a_device_ends_the_machine") {
        return;
    }
    let machine = Machine::new(enabled().store(BAR + PANIC as u32, 1).power_off());
    let device = Arc::new(Mutex::new(Device::new(machine.vm.device_context())));
    machine.vm.add_pci_device(device).unwrap();
    machine.vm.start().unwrap();
    assert!(
        matches!(machine.vm.wait().unwrap(), VmExit::Crashed(reason) if reason.contains("bug"))
    );
}

#[test]
fn a_guest_finds_the_device_and_its_registers() {
    if !has_kvm("a_guest_finds_the_device_and_its_registers") {
        return;
    }
    let code = Code::new()
        .load(SLOT1)
        .out_al(COM1)
        .load(BAR)
        .out_al(COM1)
        .then(enabled())
        .load(BAR)
        .out_al(COM1)
        .store(BAR + 4, 0x0102_0304)
        .power_off();
    let (machine, device) = run(code);
    assert_eq!(*device.lock().unwrap().writes.lock().unwrap(), [(4, vec![4, 3, 2, 1])]);
    assert_eq!(machine.console(), [0x34, 0xff, VALUE as u8]);
}

#[test]
fn a_doorbell_does_not_reach_userspace() {
    if !has_kvm("a_doorbell_does_not_reach_userspace") {
        return;
    }
    let ring = |code: Code| code.store(BAR + DOORBELL as u32, 1);
    let (machine, device) = run(ring(ring(enabled())).power_off());
    let device = device.lock().unwrap();
    assert_eq!(device.doorbell.read().unwrap(), 2);
    assert!(device.writes.lock().unwrap().is_empty());
    assert_eq!(machine.vm.exits().mmio, 1);
}

#[test]
fn an_interrupt_reaches_the_local_apic() {
    if !has_kvm("an_interrupt_reaches_the_local_apic") {
        return;
    }
    /// Vector 0x41 is bit 1 of the third 32-bit part of the interrupt request register.
    const REQUEST: u32 = LAPIC + 0x220;
    let table = BAR + TABLE as u32;
    let code = enabled()
        // Software-enable the APIC: spurious vector register.
        .store(LAPIC + 0xf0, 0x1ff)
        .store(table, LAPIC)
        .store(table + 8, 0x41)
        // Raised while masked: it waits.
        .store(SLOT1 + 0x40, 0x8000_0000)
        .store(BAR + RAISE as u32, 1)
        .load(BAR + PBA as u32)
        .out_al(COM1)
        .store(table + 12, 0)
        .wait_for(REQUEST, 1 << 1)
        .out(COM1, b'!')
        .power_off();
    let (machine, _) = run(code);
    assert_eq!(machine.console(), [1, b'!']);
}
