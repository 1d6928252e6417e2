//! Guests that write anything anywhere: nothing panics, and a reset always helps.

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use crate::pci::PciDevice;
use crate::virtio::fake_driver::FakeDriver;
use crate::virtio::rng::Rng;

#[derive(Clone, Debug)]
enum Access {
    Bar { bar: u8, offset: u64, value: u64, width: usize, write: bool },
    Config { offset: u16, value: u32, width: usize, write: bool },
    Place { base: Option<u64> },
    Memory { at: u64, value: u64 },
}

fn access() -> impl Strategy<Value = Access> {
    let width = prop::sample::select(vec![1, 2, 4, 8]);
    let offset = prop_oneof![6 => 0..0x40_u64, 1 => 0x1000..0x1010_u64, 1 => 0x3000..0x3010_u64,
        1 => 0..0x4000_u64];
    // Values that mean something come up more often than by chance.
    let value = prop_oneof![
        4 => 0..0x100_u64,
        2 => prop::sample::select(vec![0xf, 0xb, 0x10_0000, 0x10_8000, 0x10_a000, 1 << 32]),
        1 => any::<u64>(),
    ];
    let bar = (
        prop::sample::select(vec![0_u8, 0, 0, 0, 2, 4]),
        offset,
        value.clone(),
        width,
        any::<bool>(),
    )
        .prop_map(|(bar, offset, value, width, write)| Access::Bar {
            bar,
            offset,
            value,
            width,
            write,
        });
    let config = (0..0x100_u16, any::<u32>(), prop::sample::select(vec![1, 2, 4]), any::<bool>())
        .prop_map(|(offset, value, width, write)| Access::Config { offset, value, width, write });
    let place = prop::option::of(0..16_u64)
        .prop_map(|page| Access::Place { base: page.map(|page| 0xd000_0000 + page * 0x4000) });
    let memory = (0x10_0000..0x11_0000_u64, any::<u64>())
        .prop_map(|(at, value)| Access::Memory { at, value });
    prop_oneof![20 => bar, 4 => config, 1 => place, 4 => memory]
}

fn run(driver: &mut FakeDriver, access: Access) {
    match access {
        Access::Bar { bar, offset, value, width, write } => {
            let mut data = value.to_le_bytes();
            if write {
                driver.function.bar_write(bar, offset, &data[..width]);
            } else {
                driver.function.bar_read(bar, offset, &mut data[..width]);
            }
        }
        Access::Config { offset, value, width, write } => {
            if write {
                driver.function.config_mut().write(offset, &value.to_le_bytes()[..width]);
                driver.function.config_written(offset, width);
            } else {
                driver.function.config_read_hook(offset, width);
            }
        }
        Access::Place { base } => driver.function.bar_placed(0, base),
        Access::Memory { at, value } => {
            driver.ram().write_obj(value, GuestAddress(at)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rubbish_never_panics_and_a_reset_helps(
        started in any::<bool>(),
        accesses in prop::collection::vec(access(), 1..200),
    ) {
        let mut driver = FakeDriver::new(Box::new(Rng::new().unwrap()));
        if started {
            driver.start(1 << 29, 64);
        }
        for access in accesses {
            run(&mut driver, access);
        }
        driver.start(0, 64);
        driver.add(0, &[(0x40_0000, 16, true)]);
        driver.kick(0);
        prop_assert_eq!(driver.used(0), (0, 16));
    }
}
