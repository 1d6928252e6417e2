use std::fs;

use npa_abi::image::REGION_TRAP;
use pf_control::ops::{LeaseId, MacAddr, PciIds, Region, Vectors};

use super::*;
use crate::npa::fake::FakePlugin;

fn vf() -> Acquired {
    let address = "0000:01:10.0".parse().unwrap();
    let region =
        |offset, length, kind| Region { bar: 0, offset, length, kind, window_offset: None };
    Acquired {
        lease: LeaseId(address),
        vf: address,
        iommu_group: 1,
        placeholder_mac: MacAddr([2; 6]),
        regions: vec![
            region(0, 0x1000, RegionKind::Control),
            region(0x1000, 0x3000, RegionKind::Data),
        ],
        vectors: Vectors { total: 3, plugin: vec![0, 1], control: Some(2) },
        plugin: "fake".to_owned(),
        pci_ids: PciIds { vendor: 0x8086, device: 0x10ca, subsystem_vendor: 0, subsystem: 0 },
        device_info: [0; 32],
        mtu: 1500,
    }
}

const HOST: Host = Host { class: 1, abi: 1, vectors: 3 };

/// The verdict on the good plugin after a change.
fn verdict(change: impl FnOnce(&mut PluginHeader)) -> Result<Fit, InjectError> {
    let mut plugin = FakePlugin::new();
    change(&mut plugin.0);
    fit(&plugin, &vf(), &HOST)
}

#[test]
fn a_fitting_plugin_is_placed() {
    let fit = verdict(|_| {}).unwrap();
    assert_eq!((fit.window_length, fit.vectors, fit.queues.count()), (0x3000, 2, 2..=2));
    assert_eq!(
        fit.placements,
        [Placement { window_offset: 0, bar: 0, offset: 0x1000, length: 0x3000 }]
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(matches!(verdict(|h| h.class = 2), Err(InjectError::Class { .. })));
    assert!(matches!(verdict(|h| (h.abi_min, h.abi_max) = (2, 3)), Err(InjectError::Abi { .. })));
    assert!(matches!(verdict(|h| h.pci_ids[0].device = 0x1520), Err(InjectError::PciId { .. })));
    assert!(matches!(verdict(|h| h.vectors = 3), Err(InjectError::Vectors { .. })));
}

#[test]
fn no_page_but_data_pages_is_given_out() {
    let region = |change: fn(&mut npa_abi::image::Region)| {
        assert!(matches!(
            verdict(|header| change(&mut header.regions[0])),
            Err(InjectError::Region { .. })
        ));
    };
    region(|r| r.offset = 0);
    region(|r| r.length = 0x4000);
    region(|r| r.bar = 3);
    region(|r| r.kind = REGION_TRAP);
    region(|r| r.offset = u64::MAX - 0xfff);
}

#[test]
fn queues_must_suit_the_plugin() {
    let needs = verdict(|_| {}).unwrap().queues;
    let queue = |base, length, entries| QueueDescriptor { base, length, entries };
    assert!(needs.fits(0, &queue(0x1000, 4096, 256)));
    assert!(needs.fits(1, &queue(0x1080, 1024, 64)));
    for bad in [
        queue(0x1040, 4096, 256),
        queue(0x1000, 4095, 256),
        queue(0x1000, 4096, 32),
        queue(0x1000, 65536, 2048),
    ] {
        assert!(!needs.fits(0, &bad), "{bad:?}");
    }
}

#[test]
fn files_that_are_no_plugins_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = PluginDirectory::new(directory.path(), 65536, true);
    assert!(matches!(store.load("igbvf"), Err(InjectError::Read { .. })));
    for name in ["", "../igbvf", "a/b", "IGBVF", "igbvf.npa"] {
        assert!(matches!(store.load(name), Err(InjectError::Name { .. })), "{name}");
    }
    fs::write(directory.path().join("igbvf.npa"), b"\x7fELF nonsense").unwrap();
    let error = store.load("igbvf").err().unwrap();
    assert!(matches!(error, InjectError::Image { .. }));
    assert!(error.to_string().contains("igbvf.npa"));
}
