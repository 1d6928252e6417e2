//! Capabilities, doorbells, configuration access and reset.

use crate::interrupts::IoAddress;
use crate::pci::{PciDevice, offset};
use crate::virtio::fake_driver::{BAR0, FakeDriver, MEMORY_MIB, NEEDS_RESET};
use crate::virtio::rng::Rng;

fn driver() -> FakeDriver {
    FakeDriver::new(Box::new(Rng::new().unwrap()))
}

/// The vendor capabilities: type, BAR, offset, length and place.
fn structures(driver: &FakeDriver) -> Vec<(u8, u8, u32, u32, u16)> {
    let config = driver.function.config();
    let mut at = u16::from(config.u8(offset::CAPABILITIES));
    let mut found = Vec::new();
    while at != 0 {
        if config.u8(at) == 9 {
            let (offset, len) = (config.u32(at + 8), config.u32(at + 12));
            found.push((config.u8(at + 3), config.u8(at + 4), offset, len, at));
        }
        at = u16::from(config.u8(at + 1));
    }
    found
}

#[test]
fn capabilities_lead_to_the_structures() {
    let driver = driver();
    let found: Vec<_> = structures(&driver).iter().map(|s| (s.0, s.1, s.2, s.3)).collect();
    let expected = [
        (1, 0, 0, 0x40),
        (2, 0, 0x3000, 4),
        (3, 0, 0x1000, 1),
        (4, 0, 0x2000, 0x1000),
        (5, 0, 0, 0),
    ];
    assert_eq!(found, expected);
    let config = driver.function.config();
    assert_eq!((config.u16(0), config.u16(2)), (0x1af4, 0x1044));
}

#[test]
fn the_device_works() {
    let mut driver = driver();
    driver.start(0, 64);
    driver.add(0, &[(0x40_0000, 32, true), (0x40_1000, 32, true)]);
    driver.kick(0);
    assert_eq!(driver.used(0), (0, 64));
    driver.wait_for("interrupt", |driver| driver.interrupted(1));
    assert_eq!(driver.read(0x1000, 1), 1);
    assert_eq!(driver.read(0x1000, 1), 0);
}

#[test]
fn doorbells_follow_the_bar() {
    let mut driver = driver();
    let at = |driver: &FakeDriver| driver.fake.ioevents().iter().map(|e| e.0).collect::<Vec<_>>();
    assert_eq!(at(&driver), [IoAddress::Mmio(BAR0 + 0x3000)]);
    driver.function.bar_placed(0, None);
    assert_eq!(at(&driver), []);
    driver.function.bar_placed(0, Some(0x8_0000_0000));
    assert_eq!(at(&driver), [IoAddress::Mmio(0x8_0000_3000)]);
    let fake = driver.fake.clone();
    drop(driver);
    assert_eq!(fake.ioevents(), []);
}

#[test]
fn configuration_access_reaches_the_bars() {
    let mut driver = driver();
    let cap = structures(&driver)[4].4;
    let write = |driver: &mut FakeDriver, offset: u16, data: &[u8]| {
        driver.function.config_mut().write(offset, data);
        driver.function.config_written(offset, data.len());
    };
    write(&mut driver, cap + 4, &[0]);
    write(&mut driver, cap + 8, &0x14_u32.to_le_bytes());
    write(&mut driver, cap + 12, &1_u32.to_le_bytes());
    write(&mut driver, cap + 16, &[1, 0, 0, 0]);
    assert_eq!(driver.status(), 1);
    driver.set_status(3);
    driver.function.config_read_hook(cap + 16, 4);
    assert_eq!(driver.function.config().u8(cap + 16), 3);
    // Windows that do not exist do nothing.
    for (bar, offset, len) in [(1, 0, 4), (0, 0x4000, 4), (0, 2, 4), (0, 0, 3), (9, 0, 4)] {
        write(&mut driver, cap + 4, &[bar]);
        write(&mut driver, cap + 8, &u32::to_le_bytes(offset));
        write(&mut driver, cap + 12, &u32::to_le_bytes(len));
        write(&mut driver, cap + 16, &[0xff; 4]);
        driver.function.config_read_hook(cap + 16, 4);
    }
}

#[test]
fn rings_outside_memory_need_a_reset() {
    for register in [0x20, 0x28, 0x30] {
        let mut driver = driver();
        driver.negotiate(0);
        driver.set_up_queue(0, 64);
        // Enabled queues do not move, so begin again with the bad address.
        driver.negotiate(0);
        driver.write(0x18, 64, 2);
        for good in [0x20, 0x28, 0x30] {
            driver.write(good, 0x10_0000 + good * 0x1000, 8);
        }
        driver.write(register, MEMORY_MIB << 20, 8);
        driver.write(0x1c, 1, 2);
        driver.set_status(0xf);
        assert_eq!(driver.status() & NEEDS_RESET, NEEDS_RESET, "{register:#x}");
    }
}

#[test]
fn a_queue_left_disabled_needs_a_reset() {
    let mut driver = driver();
    driver.negotiate(0);
    driver.set_status(0xf);
    assert_eq!(driver.status() & NEEDS_RESET, NEEDS_RESET);
    driver.start(0, 64);
    assert_eq!(driver.status() & NEEDS_RESET, 0);
}

#[test]
fn a_bus_reset_stops_the_device() {
    let mut driver = driver();
    driver.start(0, 64);
    driver.function.bar_placed(0, None);
    PciDevice::reset(&mut driver.function);
    assert_eq!(driver.status(), 0);
    assert_eq!(driver.read(0x1c, 2), 0);
}

#[test]
fn exits_are_counted() {
    let mut driver = driver();
    let exits = driver.function.exits();
    driver.status();
    driver.set_status(1);
    assert_eq!(exits.load(std::sync::atomic::Ordering::Relaxed), 2);
}
