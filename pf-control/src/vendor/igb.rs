//! Intel 82576 under Linux's igb driver.
//!
//! Addresses go through `IFLA_VF_MAC`, which rewrites the receive address register at once and
//! needs no VF reset. What a VF may set by its own mailbox (MTU, multicast, VLAN filters) the VMM
//! sets there; such operations are not served here.

use super::{Adapter, PfModule, Uplink, VendorError, VfDescription, uplink};
use crate::inventory::{Pf, Sysfs, Vf};
use crate::netlink::Netlink;
use crate::ops::{DeviceClass, MacAddr, Op, Region, RegionKind, Ring, Rings, Vectors, limits};

/// PCI vendor of the PF.
const INTEL: u16 = 0x8086;
/// PCI devices of the 82576's PF flavours (Linux's e1000_hw.h names them).
const PF_DEVICES: [u16; 8] = [0x10c9, 0x150a, 0x1518, 0x10e6, 0x10e7, 0x10e8, 0x1526, 0x150d];
/// Queue pairs of each VF (datasheet 7.10.3.2).
const QUEUE_PAIRS: u16 = 2;
/// Rings begin at a multiple of this many bytes, and are as many long (datasheet 7.1.4.4).
const RING_ALIGNMENT: u64 = 128;
/// Longest ring: 32,768 descriptors of 16 bytes (datasheet 8.10.7, RDLEN is 20 bits).
const RING_MAX: u32 = 512 << 10;
/// Page size of the VF's register regions.
const PAGE: u64 = 4096;

/// An 82576 PF.
pub struct Igb {
    pf: Pf,
    adapter: Adapter,
    sysfs: Sysfs,
    netlink: Netlink,
}

impl Igb {
    /// Whether the PF is an 82576 under igb.
    pub fn serves(pf: &Pf) -> bool {
        pf.driver == "igb" && pf.ids.vendor == INTEL && PF_DEVICES.contains(&pf.ids.device)
    }

    /// Takes a PF for which [`Igb::serves`] holds.
    pub fn new(pf: Pf, sysfs: Sysfs, netlink: Netlink) -> Self {
        let adapter = Adapter {
            address: pf.address,
            driver: pf.driver.clone(),
            ids: pf.ids,
            numa_node: sysfs.numa_node(pf.address),
            switch: sysfs.switch_id(&pf.interface),
        };
        Self { pf, adapter, sysfs, netlink }
    }

    fn index(&self) -> Result<u32, VendorError> {
        Ok(self.netlink.link(&self.pf.interface)?.index)
    }
}

impl PfModule for Igb {
    fn interface(&self) -> &str {
        &self.pf.interface
    }

    fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    fn describe(&self) -> VfDescription {
        description()
    }

    fn extra_ops(&self) -> &'static [Op] {
        &[Op::SetMac, Op::SetDefaultVlan, Op::SetAntiSpoof]
    }

    fn uplink(&self) -> Result<Uplink, VendorError> {
        uplink(&self.pf.interface, &self.sysfs, &self.netlink)
    }

    fn vf_mac(&self, vf: u32) -> Result<Option<MacAddr>, VendorError> {
        let link = self.netlink.link(&self.pf.interface)?;
        let found = link.vf_macs.into_iter().find(|(index, _)| *index == vf);
        found
            .map(|(_, mac)| Some(mac))
            .ok_or_else(|| VendorError::Invalid(format!("'{}' has no VF {vf}", self.pf.interface)))
    }

    fn set_vf_mac(&self, vf: u32, mac: MacAddr) -> Result<(), VendorError> {
        Ok(self.netlink.set_vf_mac(self.index()?, vf, mac)?)
    }

    fn restore_defaults(&self, vf: u32) -> Result<(), VendorError> {
        let pf = self.index()?;
        self.netlink.set_vf_vlan(pf, vf, 0, 0)?;
        Ok(self.netlink.set_vf_spoof_check(pf, vf, true)?)
    }

    fn prepare_queues(&self, _vf: u32, rings: &Rings) -> Result<(), VendorError> {
        check_rings(rings)
    }

    fn reset(&self, vf: &Vf) -> Result<(), VendorError> {
        Ok(self.sysfs.reset(vf.address)?)
    }

    fn set_default_vlan(&self, vf: u32, vlan: u16, priority: u8) -> Result<(), VendorError> {
        Ok(self.netlink.set_vf_vlan(self.index()?, vf, vlan, priority)?)
    }

    fn set_anti_spoof(&self, vf: u32, enabled: bool) -> Result<(), VendorError> {
        Ok(self.netlink.set_vf_spoof_check(self.index()?, vf, enabled)?)
    }
}

fn description() -> VfDescription {
    VfDescription {
        class: DeviceClass::Net,
        plugin: "igbvf",
        queues: QUEUE_PAIRS,
        regions: vec![
            // Reset and mailbox.
            Region {
                bar: 0,
                offset: 0,
                length: PAGE,
                kind: RegionKind::Control,
                window_offset: None,
            },
            // Interrupts, receive, transmit: one page each.
            Region {
                bar: 0,
                offset: PAGE,
                length: 3 * PAGE,
                kind: RegionKind::Data,
                window_offset: Some(0),
            },
        ],
        // The plugin knows transmit as its vector 0 and receive as its vector 1.
        vectors: Vectors { total: 3, plugin: vec![0, 1], control: Some(2) },
        device_info: [0; limits::DEVICE_INFO_WORDS],
    }
}

fn check_rings(rings: &Rings) -> Result<(), VendorError> {
    for (direction, rings) in [("transmit", &rings.tx), ("receive", &rings.rx)] {
        if rings.len() > usize::from(QUEUE_PAIRS) {
            return Err(VendorError::Invalid(format!(
                "{} {direction} rings: a VF of this device has {QUEUE_PAIRS}",
                rings.len()
            )));
        }
        if let Some(ring) = rings.iter().find(|ring| !usable(ring)) {
            return Err(VendorError::Invalid(format!(
                "{direction} ring at {:#x} of {} bytes: address and length must be multiples of \
                 {RING_ALIGNMENT}, and the length 1 to {RING_MAX}",
                ring.address, ring.length
            )));
        }
    }
    Ok(())
}

fn usable(ring: &Ring) -> bool {
    ring.address.is_multiple_of(RING_ALIGNMENT)
        && u64::from(ring.length).is_multiple_of(RING_ALIGNMENT)
        && (1..=RING_MAX).contains(&ring.length)
        && ring.address.checked_add(ring.length.into()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::PciIds;

    fn pf(vendor: u16, device: u16, driver: &str) -> Pf {
        Pf {
            address: "0000:01:00.0".parse().unwrap(),
            interface: "eth0".into(),
            driver: driver.into(),
            ids: PciIds { vendor, device, subsystem_vendor: 0, subsystem: 0 },
            total_vfs: 7,
        }
    }

    #[test]
    fn only_an_82576_under_igb_is_served() {
        assert!(Igb::serves(&pf(0x8086, 0x10c9, "igb")));
        assert!(!Igb::serves(&pf(0x8086, 0x10c9, "vfio-pci")));
        assert!(!Igb::serves(&pf(0x8086, 0x1521, "igb")));
        assert!(!Igb::serves(&pf(0x10ec, 0x10c9, "igb")));
    }

    #[test]
    fn the_guest_never_gets_the_control_page() {
        let description = description();
        assert!(description.regions.len() <= limits::REGIONS);
        for region in description.regions {
            let holds_mailbox = region.bar == 0 && region.offset < PAGE;
            assert_eq!(region.kind == RegionKind::Control, holds_mailbox);
            assert_eq!(region.kind == RegionKind::Data, region.window_offset.is_some());
        }
    }

    #[test]
    fn rings_that_the_device_cannot_use_are_refused() {
        let ring = |address, length| Ring { address, length };
        let rings = |tx, rx| Rings { tx, rx };
        assert!(check_rings(&Rings::default()).is_ok());
        assert!(check_rings(&rings(vec![ring(0x1000, 4096)], vec![ring(0x2080, 128)])).is_ok());
        for bad in [
            rings(vec![ring(0x1001, 4096)], vec![]),
            rings(vec![], vec![ring(0x1000, 0)]),
            rings(vec![], vec![ring(0x1000, 1 << 20)]),
            rings(vec![ring(u64::MAX - 127, 128)], vec![]),
            rings(vec![ring(0, 128); 3], vec![]),
        ] {
            assert!(matches!(check_rings(&bad), Err(VendorError::Invalid(_))), "{bad:?}");
        }
    }
}
