//! The disk under a fake driver.

use std::io::Write;

use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::fake_driver::{FakeDriver, MEMORY_MIB, NEEDS_RESET};

const HEADER: u64 = 0x40_0000;
const DATA: u64 = 0x41_0000;
const STATUS: u64 = 0x42_0000;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// An image of `sectors` whose bytes are their sector's number.
fn image(sectors: u8) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for sector in 0..sectors {
        file.write_all(&[sector; SECTOR as usize]).unwrap();
    }
    file
}

fn started(image: &NamedTempFile, read_only: bool) -> FakeDriver {
    let mut driver = FakeDriver::new(Box::new(Block::open(image.path(), read_only).unwrap()));
    driver.start(1 << 29, 64);
    driver
}

fn header(driver: &FakeDriver, kind: u32, sector: u64) {
    let ram = driver.ram();
    ram.write_obj(kind, GuestAddress(HEADER)).unwrap();
    ram.write_obj(0_u32, GuestAddress(HEADER + 4)).unwrap();
    ram.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
    ram.write_obj(0xee_u8, GuestAddress(STATUS)).unwrap();
}

/// Runs a request with one data buffer; returns status and used length.
fn request(driver: &mut FakeDriver, kind: u32, sector: u64, len: u32) -> (u8, u32) {
    header(driver, kind, sector);
    let writable = kind != OUT;
    let mut chain = vec![(HEADER, 16, false)];
    if len > 0 {
        chain.push((DATA, len, writable));
    }
    chain.push((STATUS, 1, true));
    driver.add(0, &chain);
    driver.kick(0);
    let (_, used) = driver.used(0);
    (driver.ram().read_obj(GuestAddress(STATUS)).unwrap(), used)
}

#[test]
fn reads_and_writes_sectors() {
    let image = image(8);
    let mut driver = started(&image, false);
    assert_eq!(request(&mut driver, IN, 3, 1024), (OK, 1025));
    let mut data = [0; 1024];
    driver.ram().read_slice(&mut data, GuestAddress(DATA)).unwrap();
    assert_eq!((data[0], data[511], data[512], data[1023]), (3, 3, 4, 4));
    driver.ram().write_slice(&[0x5a; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(request(&mut driver, OUT, 7, 512), (OK, 1));
    assert_eq!(request(&mut driver, FLUSH, 0, 0), (OK, 1));
    assert_eq!(std::fs::read(image.path()).unwrap()[7 * 512..], [0x5a; 512]);
}

#[test]
fn any_framing_will_do() {
    let image = image(8);
    let mut driver = started(&image, false);
    header(&driver, IN, 2);
    let chain = [
        (HEADER, 3, false),
        (HEADER + 3, 13, false),
        (DATA, 100, true),
        (DATA + 100, 411, true),
        // The last data byte and the status share a buffer.
        (DATA + 511, 2, true),
    ];
    driver.add(0, &chain);
    driver.kick(0);
    assert_eq!(driver.used(0).1, 513);
    let mut data = [0; 513];
    driver.ram().read_slice(&mut data, GuestAddress(DATA)).unwrap();
    assert_eq!(data[..512], [2; 512]);
    assert_eq!(data[512], OK);
}

#[test]
fn what_the_disk_does_not_have_is_an_error() {
    let image = image(8);
    let mut driver = started(&image, false);
    for (kind, sector, len) in
        [(IN, 8, 512), (IN, 7, 1024), (IN, u64::MAX, 512), (IN, 0, 100), (OUT, 8, 512), (OUT, 0, 7)]
    {
        assert_eq!(request(&mut driver, kind, sector, len).0, IOERR, "{kind} {sector} {len}");
    }
    assert_eq!(request(&mut driver, 77, 0, 512).0, UNSUPP);
    assert_eq!(std::fs::metadata(image.path()).unwrap().len(), 8 * 512);
}

#[test]
fn a_truncated_image_is_an_error() {
    let image = image(8);
    let mut driver = started(&image, false);
    image.as_file().set_len(1024).unwrap();
    assert_eq!(request(&mut driver, IN, 4, 512).0, IOERR);
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let image = image(2);
    let mut driver = started(&image, true);
    assert_eq!(driver.device_features() & 1 << 5, 1 << 5);
    assert_eq!(request(&mut driver, OUT, 0, 512).0, IOERR);
    assert_eq!(request(&mut driver, IN, 1, 512).0, OK);
    assert_eq!(std::fs::read(image.path()).unwrap()[..512], [0; 512]);
}

#[test]
fn identity_and_capacity() {
    let image = image(8);
    let mut driver = started(&image, false);
    assert_eq!(request(&mut driver, GET_ID, 0, 20), (OK, 21));
    let id: [u8; 20] = driver.ram().read_obj(GuestAddress(DATA)).unwrap();
    assert_eq!(&id[..9], b"npa-disk\0");
    assert_eq!(driver.read(0x2000, 8), 8);
    assert_eq!(driver.read(0x2014, 4), 512);
}

#[test]
fn requests_without_header_or_status_need_a_reset() {
    let image = image(2);
    for chain in [
        vec![(HEADER, 16, false)],
        vec![(HEADER, 15, false), (STATUS, 1, true)],
        vec![(HEADER, 16, false), (STATUS, 0, true)],
        vec![(MEMORY_MIB << 20, 16, false), (STATUS, 1, true)],
    ] {
        let mut driver = started(&image, true);
        header(&driver, IN, 0);
        driver.add(0, &chain);
        driver.kick(0);
        driver.wait_for("needs reset", |driver| driver.status() & NEEDS_RESET != 0);
        driver.start(0, 64);
        assert_eq!(request(&mut driver, IN, 1, 512).0, OK);
    }
}

#[test]
fn unusable_images_say_why() {
    let open = |path: &Path, read_only| Block::open(path, read_only).err().unwrap().to_string();
    assert!(open(Path::new("/no/such"), false).contains("truncate"));
    let empty = NamedTempFile::new().unwrap();
    assert!(open(empty.path(), false).contains("multiple of 512"));
    let shared = image(2);
    let first = Block::open(shared.path(), false).unwrap();
    assert!(open(shared.path(), true).contains("in use"));
    drop(first);
    let _a = Block::open(shared.path(), true).unwrap();
    let _b = Block::open(shared.path(), true).unwrap();
}
