use super::*;
use npa_abi::image::{IMAGE_MAGIC, Licence, PluginHeader};
use npa_abi::protocol::GuestError;
use npa_abi::{ABI, Class, PAGE_SIZE};
use sha2::{Digest, Sha256};

const ENTRY: usize = 0x400;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn image() -> Vec<u8> {
    let mut bytes = vec![0u8; PAGE_SIZE];
    macro_rules! field {
        ($name:ident, $value:expr) => {
            put(&mut bytes, core::mem::offset_of!(PluginHeader, $name), &$value)
        };
    }
    field!(magic, IMAGE_MAGIC);
    field!(header_size, (size_of::<PluginHeader>() as u32).to_le_bytes());
    field!(abi_min, ABI.to_le_bytes());
    field!(abi_max, ABI.to_le_bytes());
    field!(class, (Class::Net as u16).to_le_bytes());
    field!(licence, (Licence::Gpl2OrMit as u16).to_le_bytes());
    field!(name, *b"sample");
    field!(image_length, (PAGE_SIZE as u32).to_le_bytes());
    field!(entry, (ENTRY as u32).to_le_bytes());
    field!(private_length, 128u32.to_le_bytes());
    field!(role_count, 2u16.to_le_bytes());
    let roles = core::mem::offset_of!(PluginHeader, roles);
    for role in 0..2 {
        let at = roles + role * 16;
        put(&mut bytes, at, &16u32.to_le_bytes());
        put(&mut bytes, at + 8, &128u32.to_le_bytes());
        put(&mut bytes, at + 12, &64u16.to_le_bytes());
        put(&mut bytes, at + 14, &1024u16.to_le_bytes());
    }
    put(&mut bytes, ENTRY, &[0xf3, 0x0f, 0x1e, 0xfa]);
    bytes
}

fn verdict(bytes: &[u8]) -> Result<Image, GuestError> {
    check(bytes, &Expected { class: Class::Net, sha256: Sha256::digest(bytes).into() })
}

#[test]
fn accepts_a_good_image() {
    let image = verdict(&image()).expect("good image");
    assert_eq!(image.entry as usize, ENTRY);
    assert_eq!(image.roles[1].max_entries, 1024);
    assert_eq!(&image.name[..7], b"sample\0");
}

#[test]
fn tells_what_is_wrong() {
    let cases: [(usize, &[u8], GuestError); 11] = [
        (core::mem::offset_of!(PluginHeader, magic), b"X", GuestError::BadImage),
        (core::mem::offset_of!(PluginHeader, header_size), &[1, 0], GuestError::BadImage),
        (core::mem::offset_of!(PluginHeader, class), &[2], GuestError::BadImage),
        (core::mem::offset_of!(PluginHeader, abi_min), &[9], GuestError::WrongAbi),
        (core::mem::offset_of!(PluginHeader, licence), &[77], GuestError::WrongLicence),
        (core::mem::offset_of!(PluginHeader, image_length), &[1], GuestError::BadImage),
        (core::mem::offset_of!(PluginHeader, entry), &[0, 0], GuestError::BadImage),
        (core::mem::offset_of!(PluginHeader, entry), &[0xff, 0xff], GuestError::BadImage),
        (core::mem::offset_of!(PluginHeader, private_length), &[0, 0, 9], GuestError::BadImage),
        (core::mem::offset_of!(PluginHeader, role_count), &[3], GuestError::BadImage),
        (ENTRY, &[0x90], GuestError::BadImage),
    ];
    for (at, value, error) in cases {
        let mut bytes = image();
        put(&mut bytes, at, value);
        assert_eq!(verdict(&bytes), Err(error), "field at {at}");
    }
}

#[test]
fn any_changed_byte_is_noticed() {
    let good = image();
    let expected = Expected { class: Class::Net, sha256: Sha256::digest(&good).into() };
    for at in (0..good.len()).step_by(7) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(check(&bytes, &expected).is_err(), "byte {at}");
    }
}

#[test]
fn any_truncation_is_noticed() {
    let good = image();
    for length in 0..good.len() {
        assert!(verdict(&good[..length]).is_err(), "length {length}");
    }
}
