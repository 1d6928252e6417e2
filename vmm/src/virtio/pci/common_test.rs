use super::*;
use crate::virtio::interrupt::VectorSink;

struct NoSink;

impl VectorSink for NoSink {
    fn trigger(&self, _vector: u16) {}
}

fn common() -> CommonConfig {
    let interrupts = Arc::new(Interrupts::new(Arc::new(NoSink), 2));
    CommonConfig::new(0b1011, &[256, 64], 3, interrupts).unwrap()
}

fn read(common: &CommonConfig, offset: u64, len: usize) -> u64 {
    let mut data = [0; 8];
    common.read(offset, &mut data[..len]);
    u64::from_le_bytes(data)
}

fn write(common: &mut CommonConfig, offset: u64, value: u64, len: usize) -> Action {
    common.write(offset, &value.to_le_bytes()[..len])
}

fn set_features(common: &mut CommonConfig, features: u64) {
    for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
        write(common, 8, select, 4);
        write(common, 0xc, half, 4);
    }
}

#[test]
fn features_are_offered_in_halves() {
    let mut common = common();
    write(&mut common, 0, 0, 4);
    assert_eq!(read(&common, 4, 4), 0b1011 | 1 << 29);
    write(&mut common, 0, 1, 4);
    assert_eq!(read(&common, 4, 4), 1);
    write(&mut common, 0, 2, 4);
    assert_eq!(read(&common, 4, 4), 0);
}

#[test]
fn features_ok_needs_version_1_and_nothing_unknown() {
    for (features, accepted) in [
        (1 << 32 | 0b11, true),
        (0b11, false),
        (1 << 32 | 0b100, false),
        (1 << 32 | 1 << 34, false),
        (1 << 32, true),
    ] {
        let mut common = common();
        write(&mut common, 0x14, 3, 1);
        set_features(&mut common, features);
        write(&mut common, 0x14, 0xb, 1);
        assert_eq!(read(&common, 0x14, 1) == 0xb, accepted, "{features:#x}");
    }
}

#[test]
fn features_are_fixed_by_features_ok() {
    let mut common = common();
    set_features(&mut common, 1 << 32 | 1);
    write(&mut common, 0x14, 0xb, 1);
    set_features(&mut common, 1 << 32 | 2);
    assert_eq!(common.features(), 1 << 32 | 1);
}

#[test]
fn driver_ok_needs_features_ok() {
    let mut common = common();
    assert_eq!(write(&mut common, 0x14, 7, 1), Action::Status);
    assert_eq!(read(&common, 0x14, 1), 3);
    set_features(&mut common, 1 << 32);
    assert_eq!(write(&mut common, 0x14, 0xf, 1), Action::Activate);
    // Once is enough.
    assert_eq!(write(&mut common, 0x14, 0xf, 1), Action::None);
}

#[test]
fn status_bits_cannot_be_taken_back() {
    let mut common = common();
    write(&mut common, 0x14, 3, 1);
    assert_eq!(write(&mut common, 0x14, 1, 1), Action::None);
    assert_eq!(read(&common, 0x14, 1), 3);
    assert_eq!(write(&mut common, 0x14, 0, 1), Action::Reset);
}

#[test]
fn a_driver_cannot_claim_needs_reset() {
    let mut common = common();
    write(&mut common, 0x14, 0x41, 1);
    assert_eq!(read(&common, 0x14, 1), 1);
}

#[test]
fn queues_are_set_up_until_enabled() {
    let mut common = common();
    write(&mut common, 0x16, 1, 2);
    assert_eq!((read(&common, 0x18, 2), read(&common, 0x1e, 2)), (64, 1));
    for (size, kept) in [(32, 32), (33, 32), (0, 32), (128, 32), (16, 16)] {
        write(&mut common, 0x18, size, 2);
        assert_eq!(read(&common, 0x18, 2), kept);
    }
    write(&mut common, 0x20, 0x1_2345_6780, 8);
    write(&mut common, 0x28, 0x1000, 4);
    write(&mut common, 0x2c, 0x2, 4);
    write(&mut common, 0x1c, 1, 2);
    write(&mut common, 0x20, 0, 8);
    write(&mut common, 0x18, 64, 2);
    write(&mut common, 0x1c, 0, 2);
    assert_eq!(read(&common, 0x20, 8), 0x1_2345_6780);
    assert_eq!(read(&common, 0x28, 8), 0x2_0000_1000);
    assert_eq!((read(&common, 0x18, 2), read(&common, 0x1c, 2)), (16, 1));
}

#[test]
fn queues_that_do_not_exist_read_zero() {
    let mut common = common();
    write(&mut common, 0x16, 2, 2);
    assert_eq!(read(&common, 0x18, 2), 0);
    write(&mut common, 0x1a, 1, 2);
    assert_eq!(read(&common, 0x1a, 2), 0xffff);
}

#[test]
fn vectors_that_do_not_exist_read_back_as_none() {
    let mut common = common();
    write(&mut common, 0x10, 2, 2);
    assert_eq!(read(&common, 0x10, 2), 2);
    write(&mut common, 0x10, 3, 2);
    assert_eq!(read(&common, 0x10, 2), 0xffff);
}
