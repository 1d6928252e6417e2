//! The DSDT: devices that a guest cannot discover by itself.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Method,
    Name, Notify, ONE, Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{POWER_BUTTON_GSI, definition_block};
use crate::legacy::port;
use crate::vm::layout::{Layout, Range};

/// Notification of a button: pressed (ACPI 6.5, 4.8.2.2).
const BUTTON_PRESSED: u8 = 0x80;
/// SLP_TYP value that stands for soft off.
pub(crate) const SLEEP_TYPE_OFF: u8 = 5;

/// The table.
pub(super) fn dsdt(layout: &Layout, cpus: u8) -> Sdt {
    let mut body = Vec::new();
    let system = Path::new("_SB_");
    let (pci, reserved) = (pci(layout), reserved(layout));
    let (serial, button) = (serial(), button());
    let cpus: Vec<_> = (0..cpus).map(cpu).collect();
    let mut children: Vec<&dyn Aml> = vec![&pci, &reserved, &serial, &button];
    children.extend(cpus.iter().map(|cpu| cpu as &dyn Aml));
    Scope::new(system, children).to_aml_bytes(&mut body);
    // \_S5: the value for the sleep control register.
    let off = Package::new(vec![&SLEEP_TYPE_OFF, &ZERO, &ZERO, &ZERO]);
    Name::new(Path::new("_S5_"), &off).to_aml_bytes(&mut body);
    definition_block(*b"DSDT", &body)
}

/// Serialized AML, so that builders of nested terms can return it.
struct Bytes(Vec<u8>);

impl Bytes {
    fn of(term: &dyn Aml) -> Self {
        let mut bytes = Vec::new();
        term.to_aml_bytes(&mut bytes);
        Self(bytes)
    }
}

impl Aml for Bytes {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn name(name: &str, value: &dyn Aml) -> Bytes {
    Bytes::of(&Name::new(Path::new(name), value))
}

fn resources(children: Vec<&dyn Aml>) -> Bytes {
    name("_CRS", &ResourceTemplate::new(children))
}

fn memory32(range: Range) -> AddressSpace<u32> {
    let (start, last) = (range.start as u32, (range.end() - 1) as u32);
    AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, start, last, None)
}

/// The PCI root: one bus, two windows, no INTx routing (functions have MSI-X only).
fn pci(layout: &Layout) -> Bytes {
    let window64 = AddressSpace::<u64>::new_memory(
        AddressSpaceCacheable::Cacheable,
        true,
        layout.mmio64.start,
        layout.mmio64.end() - 1,
        None,
    );
    Bytes::of(&Device::new(
        Path::new("PCI0"),
        vec![
            &name("_HID", &EISAName::new("PNP0A08")),
            &name("_CID", &EISAName::new("PNP0A03")),
            &name("_UID", &ZERO),
            &name("_SEG", &ZERO),
            &name("_BBN", &ZERO),
            &name("_CCA", &ONE),
            &resources(vec![
                &AddressSpace::new_bus_number(0_u16, 0_u16),
                &memory32(layout.mmio32),
                &window64,
            ]),
        ],
    ))
}

/// The configuration space, which the firmware specification wants reserved by a motherboard
/// device.
fn reserved(layout: &Layout) -> Bytes {
    let ecam = Memory32Fixed::new(true, layout.ecam.start as u32, layout.ecam.len as u32);
    Bytes::of(&Device::new(
        Path::new("MBRD"),
        vec![
            &name("_HID", &EISAName::new("PNP0C02")),
            &name("_UID", &ZERO),
            &resources(vec![&ecam]),
        ],
    ))
}

/// COM1.
fn serial() -> Bytes {
    Bytes::of(&Device::new(
        Path::new("COM1"),
        vec![
            &name("_HID", &EISAName::new("PNP0501")),
            &name("_UID", &ZERO),
            &name("_DDN", &"COM1"),
            &resources(vec![
                &Interrupt::new(true, true, false, false, port::COM1_GSI),
                &IO::new(port::COM1, port::COM1, 1, 8),
            ]),
        ],
    ))
}

/// The power button, and the generic event device (ACPI 6.5, 5.6.9) that signals it.
fn button() -> Bytes {
    let button = Bytes::of(&Device::new(
        Path::new("PWRB"),
        vec![&name("_HID", &EISAName::new("PNP0C0C")), &name("_UID", &ZERO)],
    ));
    let event = Bytes::of(&Device::new(
        Path::new("GED0"),
        vec![
            &name("_HID", &"ACPI0013"),
            &name("_UID", &ZERO),
            &resources(vec![&Interrupt::new(true, true, false, false, POWER_BUTTON_GSI)]),
            &Bytes::of(&Method::new(
                Path::new("_EVT"),
                1,
                true,
                vec![&Notify::new(&Path::new("\\_SB_.PWRB"), &BUTTON_PRESSED)],
            )),
        ],
    ));
    Bytes([button.0, event.0].concat())
}

/// A processor; its unique id is that of its local APIC in the MADT.
fn cpu(id: u8) -> Bytes {
    Bytes::of(&Device::new(
        Path::new(&format!("C{id:03X}")),
        vec![&name("_HID", &"ACPI0007"), &name("_UID", &id)],
    ))
}
