//! A PF whose driver is asked through netlink alone, as any Linux driver with SR-IOV can be: VFs'
//! addresses (`IFLA_VF_MAC`), and VLAN and source check where the family says so.

use super::family::Family;
use super::{Adapter, PfModule, Uplink, VendorError, VfDescription, VfSettings, uplink};
use crate::inventory::{Pf, Sysfs, Vf};
use crate::netlink::Netlink;
use crate::ops::{MacAddr, Op, Rings};

/// A PF of a family.
pub struct Sriov {
    name: String,
    family: Family,
    pf: Pf,
    adapter: Adapter,
    sysfs: Sysfs,
    netlink: Netlink,
}

impl Sriov {
    /// Takes a PF of the family `name`.
    pub fn new(name: &str, family: Family, pf: Pf, sysfs: Sysfs, netlink: Netlink) -> Self {
        let adapter = Adapter {
            address: pf.address,
            driver: pf.driver.clone(),
            ids: pf.ids,
            numa_node: sysfs.numa_node(pf.address),
            switch: sysfs.switch_id(&pf.interface),
        };
        Self { name: name.to_owned(), family, pf, adapter, sysfs, netlink }
    }

    fn index(&self) -> Result<u32, VendorError> {
        Ok(self.netlink.link(&self.pf.interface)?.index)
    }

    fn need(&self, has: bool, op: Op) -> Result<(), VendorError> {
        if has { Ok(()) } else { Err(VendorError::NotSupported(op)) }
    }
}

impl PfModule for Sriov {
    fn name(&self) -> &str {
        &self.name
    }

    fn interface(&self) -> &str {
        &self.pf.interface
    }

    fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    fn describe(&self) -> VfDescription {
        self.family.describe()
    }

    fn extra_ops(&self) -> &'static [Op] {
        match (self.family.vlan, self.family.spoof_check) {
            (true, true) => &[Op::SetMac, Op::SetDefaultVlan, Op::SetAntiSpoof],
            (true, false) => &[Op::SetMac, Op::SetDefaultVlan],
            (false, true) => &[Op::SetMac, Op::SetAntiSpoof],
            (false, false) => &[Op::SetMac],
        }
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

    fn apply(&self, vf: u32, settings: &VfSettings) -> Result<(), VendorError> {
        self.family.check_settings(&self.pf.interface, settings)?;
        let VfSettings { trust, spoof_check, min_tx_mbit, max_tx_mbit, link } = *settings;
        let pf = self.netlink.link(&self.pf.interface)?;
        if self.family.spoof_check {
            self.netlink.set_vf_spoof_check(pf.index, vf, spoof_check)?;
        }
        if self.family.trust {
            self.netlink.set_vf_trust(pf.index, vf, trust)?;
        }
        // Drivers refuse rates while there is no link, also those that are in force.
        let rate = pf.vf_rates.iter().find(|(index, _)| *index == vf);
        let present = rate.map_or((0, 0), |(_, rate)| *rate);
        if self.family.rate && present != (min_tx_mbit, max_tx_mbit) {
            self.netlink.set_vf_rate(pf.index, vf, min_tx_mbit, max_tx_mbit)?;
        }
        if self.family.link_state {
            self.netlink.set_vf_link(pf.index, vf, link)?;
        }
        Ok(())
    }

    fn restore_defaults(&self, vf: u32) -> Result<(), VendorError> {
        let pf = self.index()?;
        if self.family.vlan {
            self.netlink.set_vf_vlan(pf, vf, 0, 0)?;
        }
        self.apply(vf, &VfSettings::default())
    }

    fn prepare_queues(&self, _vf: u32, rings: &Rings) -> Result<(), VendorError> {
        self.family.check_rings(rings)
    }

    fn reset(&self, vf: &Vf) -> Result<(), VendorError> {
        Ok(self.sysfs.reset(vf.address)?)
    }

    fn set_default_vlan(&self, vf: u32, vlan: u16, priority: u8) -> Result<(), VendorError> {
        self.need(self.family.vlan, Op::SetDefaultVlan)?;
        Ok(self.netlink.set_vf_vlan(self.index()?, vf, vlan, priority)?)
    }

    fn set_anti_spoof(&self, vf: u32, enabled: bool) -> Result<(), VendorError> {
        self.need(self.family.spoof_check, Op::SetAntiSpoof)?;
        Ok(self.netlink.set_vf_spoof_check(self.index()?, vf, enabled)?)
    }
}
