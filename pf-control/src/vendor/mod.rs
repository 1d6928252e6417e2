//! Vendor modules: what a PF's driver is asked, and what a VF of that vendor looks like.
//!
//! A module knows one vendor's PF driver. It never decides who gets a VF, and never touches the
//! VF's own registers (that is `vf_control`, inside the VMM).

mod family;
mod igb;
mod qat;
mod sriov;
pub mod virtio;

pub use family::{Families, Family, FamilyError, FamilyRegion, FamilyVectors, RingRule};
pub use sriov::Sriov;
pub use virtio::VirtioFunction;

use crate::inventory::{InventoryError, Pf, Sysfs, Vf};
use crate::netlink::{Netlink, NetlinkError};
use crate::ops::{DeviceClass, MacAddr, Op, PciAddress, PciIds, Region, Rings, Vectors, limits};

/// Why a vendor module did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum VendorError {
    /// This version of the module does not serve the operation.
    #[error("'{}' is not supported by this vendor module", .0.name())]
    NotSupported(Op),
    /// An argument is out of the device's range.
    #[error("{0}")]
    Invalid(String),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel refused.
    #[error(transparent)]
    Sysfs(#[from] InventoryError),
}

/// What a VMM must know of a VF to open it and have it driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfDescription {
    /// What it is.
    pub class: DeviceClass,
    /// The plugin that drives it.
    pub plugin: String,
    /// Queue pairs.
    pub queues: u16,
    /// Control and data regions.
    pub regions: Vec<Region>,
    /// Interrupt vectors.
    pub vectors: Vectors,
    /// Words for the plugin; 0 to 7 are the VMM's.
    pub device_info: [u32; limits::DEVICE_INFO_WORDS],
}

/// The state of a PF's uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uplink {
    /// Index of the PF's network interface.
    pub index: u32,
    /// Its own address.
    pub mac: MacAddr,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Whether it has a carrier.
    pub link_up: bool,
    /// Its speed in Mbit/s, where it has a carrier and says so.
    pub speed_mbit: Option<u32>,
}

/// What a module's functions are part of: does not change while it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// The PF's place, or the function's own.
    pub address: PciAddress,
    /// The host driver bound to it.
    pub driver: String,
    /// Identification.
    pub ids: PciIds,
    /// The NUMA node that it is near to, on hosts that have some.
    pub numa_node: Option<u32>,
    /// The embedded switch that it is part of, as the kernel names it.
    pub switch: Option<String>,
}

/// A VF's link, as its guest sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VfLink {
    /// The uplink's.
    #[default]
    Auto,
    /// Up, whatever the uplink's.
    Enable,
    /// Down.
    Disable,
}

/// What an operator sets a VF to. The default is what a VF has that nobody has said anything of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VfSettings {
    /// The driver lets the VF change what others are not allowed to (`IFLA_VF_TRUST`).
    pub trust: bool,
    /// What it sends under another address than its own is dropped (`IFLA_VF_SPOOFCHK`).
    pub spoof_check: bool,
    /// Mbit/s that it may always send; 0 for none (`IFLA_VF_RATE`).
    pub min_tx_mbit: u32,
    /// Most Mbit/s that it may send; 0 for no limit.
    pub max_tx_mbit: u32,
    /// Its link (`IFLA_VF_LINK_STATE`).
    pub link: VfLink,
}

impl Default for VfSettings {
    fn default() -> Self {
        Self { trust: false, spoof_check: true, min_tx_mbit: 0, max_tx_mbit: 0, link: VfLink::Auto }
    }
}

/// One PF under a vendor's driver. Calls block; each is bounded in time. VFs go by their number.
pub trait PfModule: Send + Sync {
    /// What operators know it by.
    fn name(&self) -> &str;

    /// The network interface of the uplink: the PF's, or another on the same network.
    fn interface(&self) -> &str;

    /// What its VFs are part of.
    fn adapter(&self) -> &Adapter;

    /// What its VFs look like.
    fn describe(&self) -> VfDescription;

    /// The operations beyond the life of a lease that the module serves.
    fn extra_ops(&self) -> &'static [Op];

    /// The uplink as it is now.
    ///
    /// # Errors
    /// The interface is gone, or the kernel does not answer.
    fn uplink(&self) -> Result<Uplink, VendorError>;

    /// The address that a VF carries; `None` where the kernel does not know, since nothing but its
    /// user decides what reaches it.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn vf_mac(&self, vf: u32) -> Result<Option<MacAddr>, VendorError>;

    /// Gives a VF an address; frames for it reach the VF when this returns.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn set_vf_mac(&self, vf: u32, mac: MacAddr) -> Result<(), VendorError>;

    /// Sets a VF to what its port's policy says. May be asked again.
    ///
    /// # Errors
    /// [`VendorError::Invalid`] for what the driver cannot be told, or the kernel's refusal.
    fn apply(&self, _vf: u32, settings: &VfSettings) -> Result<(), VendorError> {
        // The source check is the card's own matter where nothing can be told to it.
        match *settings == VfSettings::default() {
            true => Ok(()),
            false => Err(VendorError::Invalid(format!(
                "VFs of '{}' cannot be set to anything, and the policy asks for it",
                self.interface()
            ))),
        }
    }

    /// Takes back whatever a former user's operations set: no VLAN, the default settings.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn restore_defaults(&self, vf: u32) -> Result<(), VendorError>;

    /// Readies a VF for rings.
    ///
    /// # Errors
    /// [`VendorError::Invalid`] for rings that the device cannot use.
    fn prepare_queues(&self, vf: u32, rings: &Rings) -> Result<(), VendorError>;

    /// Resets a VF that nobody has open.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn reset(&self, vf: &Vf) -> Result<(), VendorError>;

    /// Puts a VF into a port VLAN.
    ///
    /// # Errors
    /// [`VendorError::NotSupported`], or the kernel's refusal.
    fn set_default_vlan(&self, vf: u32, vlan: u16, priority: u8) -> Result<(), VendorError>;

    /// Switches the source address check.
    ///
    /// # Errors
    /// [`VendorError::NotSupported`], or the kernel's refusal.
    fn set_anti_spoof(&self, vf: u32, enabled: bool) -> Result<(), VendorError>;
}

/// What a function does that could be an accelerator, by its identification and the kernel's class
/// code; `None` for everything else.
pub fn class_of(ids: PciIds, code: u32) -> Option<DeviceClass> {
    /// Ethernet controllers, any interface (PCI Code and ID Assignment 1.11, base class 02h).
    const ETHERNET: u32 = 0x02_0000;
    match (ids.vendor, ids.device) {
        (virtio::VENDOR, device) if virtio::NET_DEVICES.contains(&device) => Some(DeviceClass::Net),
        (virtio::VENDOR, virtio::CRYPTO_DEVICE) => Some(DeviceClass::Crypto),
        (virtio::VENDOR, _) => None,
        (qat::VENDOR, device) if qat::DEVICES.contains(&device) => Some(DeviceClass::Crypto),
        _ => (code == ETHERNET).then_some(DeviceClass::Net),
    }
}

/// Whether a network function is of use although no PF commands it.
pub fn stands_alone(ids: PciIds) -> bool {
    ids.vendor == virtio::VENDOR
}

/// The state of the uplink `interface`.
fn uplink(interface: &str, sysfs: &Sysfs, netlink: &Netlink) -> Result<Uplink, VendorError> {
    let link = netlink.link(interface)?;
    let mac = link
        .mac
        .ok_or_else(|| VendorError::Invalid(format!("'{interface}' has no Ethernet address")))?;
    Ok(Uplink {
        index: link.index,
        mac,
        mtu: link.mtu.try_into().unwrap_or(u16::MAX),
        link_up: sysfs.carrier(interface),
        speed_mbit: sysfs.speed(interface),
    })
}

/// Why no module takes a PF.
#[derive(Debug, thiserror::Error)]
#[error(
    "no vendor module serves '{interface}' ({vendor:04x}:{device:04x}, driver '{driver}'): built in are \
     Intel 82576 PFs under the igb driver; --families FILE describes more"
)]
pub struct NoModule {
    interface: String,
    vendor: u16,
    device: u16,
    driver: String,
}

/// The module for a PF: of one of `families`, else a built-in one.
///
/// # Errors
/// [`NoModule`].
pub fn module_for(
    pf: Pf,
    families: &Families,
    sysfs: Sysfs,
    netlink: Netlink,
) -> Result<std::sync::Arc<dyn PfModule>, NoModule> {
    let igb = igb::family();
    let built_in = igb.serves(&pf).then_some((igb::NAME, &igb));
    if let Some((name, family)) = families.of(&pf).or(built_in) {
        return Ok(std::sync::Arc::new(Sriov::new(name, family.clone(), pf, sysfs, netlink)));
    }
    let Pf { interface, driver, ids, .. } = pf;
    Err(NoModule { interface, driver, vendor: ids.vendor, device: ids.device })
}

/// The first octets of a placeholder. 02: locally administered unicast. 4e is 'N', so that people
/// recognise it.
const PLACEHOLDER: [u8; 2] = [0x02, 0x4e];

/// The address under which VF number `vf` of the PF with address `pf` waits: the same after every
/// restart, and no VM's.
pub fn placeholder(pf: MacAddr, vf: u32) -> MacAddr {
    let [.., d, e, f] = pf.0;
    let [a, b] = PLACEHOLDER;
    MacAddr([a, b, d, e, f, vf as u8])
}

/// Whether VF number `vf` carries a placeholder, and not a VM's address. The PF's own address may
/// have changed since the placeholder was made.
pub fn is_placeholder(mac: MacAddr, vf: u32) -> bool {
    mac.0.starts_with(&PLACEHOLDER) && mac.0[5] == vf as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_station_addresses_of_their_vf_alone() {
        let pf = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        let mac = placeholder(pf, 3);
        assert_eq!(mac.to_string(), "02:4e:12:34:56:03");
        assert!(mac.is_station());
        assert!(is_placeholder(mac, 3) && !is_placeholder(mac, 2) && !is_placeholder(pf, 0x56));
    }
}
