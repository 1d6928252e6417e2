//! Profiles as operators write them, well and badly, against adapters.

use super::*;
use crate::ops::{MacAddr, PciIds, Vectors};

const GOOD: &str = r#"
    [profiles.any-net]
    class = "net"

    [profiles.fast]
    class = "net"
    min-bandwidth-mbit = 10000
    vendor = "8086"
    plugin = "igbvf"
    switch = "00aa"
    numa-node = 1
    sharing = false
"#;

fn adapter() -> Adapter {
    Adapter {
        address: "0000:01:00.0".parse().unwrap(),
        driver: "igb".into(),
        ids: PciIds { vendor: 0x8086, device: 0x10c9, subsystem_vendor: 0, subsystem: 0 },
        numa_node: Some(1),
        switch: Some("00aa".into()),
    }
}

fn uplink() -> Uplink {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    Uplink { index: 2, mac, mtu: 1500, link_up: true, speed_mbit: Some(10_000) }
}

fn vfs() -> VfDescription {
    VfDescription {
        class: DeviceClass::Net,
        plugin: "igbvf".to_owned(),
        queues: 2,
        regions: Vec::new(),
        vectors: Vectors { total: 3, plugin: vec![0, 1], control: Some(2) },
        device_info: [0; 32],
    }
}

#[test]
fn what_is_left_out_does_not_matter() {
    let profiles = Profiles::parse(GOOD).unwrap();
    assert_eq!(profiles.names().collect::<Vec<_>>(), ["any-net", "fast"]);
    let any = profiles.get("any-net").unwrap();
    assert!(any.sharing);
    let bare = Adapter { numa_node: None, switch: None, ..adapter() };
    let dark = Uplink { link_up: false, speed_mbit: None, ..uplink() };
    any.check(Candidate { adapter: &bare, uplink: &dark, vfs: &vfs() }).unwrap();
    assert!(profiles.get("slow").is_none());
}

#[test]
fn each_thing_that_is_asked_for_counts_and_is_named() {
    let profiles = Profiles::parse(GOOD).unwrap();
    let fast = profiles.get("fast").unwrap();
    assert!(!fast.sharing);
    let check = |adapter: Adapter, uplink: Uplink, vfs: VfDescription| {
        fast.check(Candidate { adapter: &adapter, uplink: &uplink, vfs: &vfs })
    };
    check(adapter(), uplink(), vfs()).unwrap();
    let faster = Uplink { speed_mbit: Some(25_000), ..uplink() };
    check(adapter(), faster, vfs()).unwrap();
    let slow = Uplink { speed_mbit: Some(9_999), ..uplink() };
    let dark = Uplink { speed_mbit: None, ..uplink() };
    let other = PciIds { vendor: 0x15b3, ..adapter().ids };
    for (adapter, uplink, vfs, named) in [
        (adapter(), slow, vfs(), "9999 Mbit/s"),
        (adapter(), dark, vfs(), "bandwidth is not known"),
        (Adapter { ids: other, ..adapter() }, uplink(), vfs(), "15b3"),
        (
            adapter(),
            uplink(),
            VfDescription { plugin: "virtio-net".to_owned(), ..vfs() },
            "virtio-net",
        ),
        (Adapter { switch: None, ..adapter() }, uplink(), vfs(), "switch is not known"),
        (Adapter { numa_node: Some(0), ..adapter() }, uplink(), vfs(), "NUMA node is 0"),
        (adapter(), uplink(), VfDescription { class: DeviceClass::Crypto, ..vfs() }, "crypto"),
    ] {
        let error = check(adapter, uplink, vfs).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn what_makes_no_sense_is_told_with_its_place() {
    for (text, named) in [
        ("[profiles.x]\nclas = \"net\"", "clas"),
        ("[profiles.x]\nmin-bandwidth-mbit = 1", "class"),
        ("[profiles.x]\nclass = \"gpu\"", "gpu"),
        ("[profiles.x]\nclass = \"net\"\nvendor = \"0x8086\"", "four hexadecimal digits"),
        ("[profiles.x]\nclass = \"net\"\nvendor = \"80é\"", "four hexadecimal digits"),
        ("[profiles.x]\nclass = \"net\"\nmin-bandwidth-mbit = -1", "-1"),
        ("[profile.x]\nclass = \"net\"", "profile"),
        ("profiles = 3", "profiles"),
    ] {
        let error = Profiles::parse(text).unwrap_err().to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
    assert_eq!(Profiles::parse("").unwrap(), Profiles::default());
    let error = Profiles::load(Path::new("/nowhere/profiles.toml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/profiles.toml"));
}
