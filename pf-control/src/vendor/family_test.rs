//! Families: the built-in one, the same from a file, and files that make no sense.

use super::*;
use crate::ops::PciIds;
use crate::vendor::igb;

/// The 82576 as an operator would describe it.
const FILE: &str = include_str!("../../../packaging/etc/families.toml");

fn pf(vendor: u16, device: u16, driver: &str) -> Pf {
    Pf {
        address: "0000:01:00.0".parse().unwrap(),
        interface: "eth0".into(),
        driver: driver.into(),
        ids: PciIds { vendor, device, subsystem_vendor: 0, subsystem: 0 },
        total_vfs: 7,
    }
}

fn load(text: &str) -> Result<Families, FamilyError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    Families::load(file.path())
}

#[test]
fn only_an_82576_under_igb_is_served() {
    let igb = igb::family();
    assert!(igb.serves(&pf(0x8086, 0x10c9, "igb")));
    assert!(!igb.serves(&pf(0x8086, 0x10c9, "vfio-pci")));
    assert!(!igb.serves(&pf(0x8086, 0x1521, "igb")));
    assert!(!igb.serves(&pf(0x10ec, 0x10c9, "igb")));
    assert_eq!(igb.fault(), None);
}

#[test]
fn a_file_says_all_that_the_built_in_family_does() {
    let families = load(FILE).unwrap();
    let (name, family) = families.of(&pf(0x8086, 0x10c9, "igb")).unwrap();
    assert_eq!((name, family), ("example-82576", &igb::family()));
    assert!(families.of(&pf(0x15b3, 0x1018, "mlx5_core")).is_none());
}

#[test]
fn what_no_vf_can_be_is_named() {
    for (from, to, word) in [
        ("offset = 0x1000", "offset = 0x0000", "overlaps"),
        ("offset = 0x1000", "offset = 0x1001", "whole pages"),
        ("length = 0x3000", "length = 0", "whole pages"),
        ("bar = 0, offset = 0x1000", "bar = 6, offset = 0x1000", "whole pages"),
        (", window-offset = 0", "", "window-offset"),
        ("control\" }", "control\", window-offset = 0x8000 }", "window-offset"),
        ("plugin = [0, 1]", "plugin = [0, 0]", "one use"),
        ("control = 2", "control = 1", "one use"),
        ("control = 2", "control = 3", "below"),
        ("queues = 2", "queues = 0", "queues"),
        ("alignment = 128", "alignment = 0", "alignment"),
        ("plugin = \"igbvf\"", "plugin = \"\"", "plugin"),
    ] {
        assert!(FILE.contains(from), "{from}");
        let error = load(&FILE.replacen(from, to, 1)).unwrap_err();
        assert!(matches!(error, FamilyError::Fault { .. }), "{to}: {error:?}");
        assert!(error.to_string().contains(word), "{to}: {error}");
    }
    for (from, to) in
        [("8086:10c9", "8086"), ("vlan = true", "vlam = true"), ("[families.example-82576]", "")]
    {
        let error = load(&FILE.replacen(from, to, 1)).unwrap_err();
        assert!(matches!(error, FamilyError::Content { .. }), "{to}: {error:?}");
    }
    assert!(matches!(Families::load(Path::new("/nowhere")), Err(FamilyError::Read { .. })));
}

#[test]
fn rings_that_the_device_cannot_use_are_refused() {
    let ring = |address, length| Ring { address, length };
    let rings = |tx, rx| Rings { tx, rx };
    let igb = igb::family();
    assert!(igb.check_rings(&Rings::default()).is_ok());
    assert!(igb.check_rings(&rings(vec![ring(0x1000, 4096)], vec![ring(0x2080, 128)])).is_ok());
    for bad in [
        rings(vec![ring(0x1001, 4096)], vec![]),
        rings(vec![], vec![ring(0x1000, 0)]),
        rings(vec![], vec![ring(0x1000, 1 << 20)]),
        rings(vec![ring(u64::MAX - 127, 128)], vec![]),
        rings(vec![ring(0, 128); 3], vec![]),
    ] {
        assert!(matches!(igb.check_rings(&bad), Err(VendorError::Invalid(_))), "{bad:?}");
    }
}

#[test]
fn what_the_driver_cannot_be_told_is_refused_by_name() {
    let igb = igb::family();
    let link = VfSettings { link: VfLink::Disable, ..VfSettings::default() };
    let error = igb.check_settings("eth0", &link).unwrap_err().to_string();
    assert!(error.contains("link state") && error.contains("igb"), "{error}");
    let fine = VfSettings { trust: true, max_tx_mbit: 100, ..VfSettings::default() };
    igb.check_settings("eth0", &fine).unwrap();
    let bare = Family { trust: false, rate: false, spoof_check: false, ..igb };
    bare.check_settings("eth0", &VfSettings::default()).unwrap();
    for settings in [
        VfSettings { trust: true, ..VfSettings::default() },
        VfSettings { spoof_check: false, ..VfSettings::default() },
        VfSettings { min_tx_mbit: 1, ..VfSettings::default() },
    ] {
        assert!(bare.check_settings("eth0", &settings).is_err(), "{settings:?}");
    }
}
