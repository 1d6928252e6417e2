//! What the host has that could be an accelerator, whether or not it is served: SR-IOV cards, their
//! VFs, and plain functions. Reads sysfs alone, and needs neither a daemon nor rights.

use super::sysfs::{file, link_name, name};
use super::{InventoryError, Occupancy, Sysfs};
use crate::ops::{DeviceClass, PciAddress, PciIds};
use crate::vendor;
use serde::Serialize;
use std::fs;
use std::path::Path;

/// What a function is to an SR-IOV card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Commands VFs.
    Physical {
        /// Most VFs that it can have.
        total_vfs: u32,
        /// VFs that it has.
        vfs: u32,
    },
    /// A VF.
    Virtual {
        /// Whose.
        of: PciAddress,
    },
    /// On its own.
    Plain,
}

/// A function that could be an accelerator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Its place.
    pub address: PciAddress,
    /// What it is to an SR-IOV card.
    pub kind: Kind,
    /// What it does.
    pub class: DeviceClass,
    /// Identification.
    pub pci_ids: PciIds,
    /// Its network interface on the host.
    pub interface: Option<String>,
    /// Its IOMMU group; none where the IOMMU is off.
    pub iommu_group: Option<u32>,
    /// How many functions are in that group; others than one cannot be given away alone.
    pub group_size: usize,
    /// The driver bound to it.
    pub driver: Option<String>,
    /// The process that has its group open, if it is to be seen by this user.
    pub owner_pid: Option<u32>,
    /// The NUMA node that it is near to.
    pub numa_node: Option<u32>,
}

impl Sysfs {
    /// All functions that could be accelerators, by address.
    ///
    /// # Errors
    /// The bus cannot be read. A function that vanishes meanwhile is left out.
    pub fn scan(&self, nodes: &dyn Occupancy) -> Result<Vec<Found>, InventoryError> {
        let devices = self.pci_bus().join("devices");
        let entries = fs::read_dir(&devices).map_err(file("read", &devices))?;
        let names = entries.flatten().map(|entry| name(&entry));
        let addresses = names.filter_map(|name| name.parse().ok());
        let mut found: Vec<_> =
            addresses.filter_map(|address| self.look_at(address, nodes)).collect();
        found.sort_by_key(|function| function.address);
        Ok(found)
    }

    fn look_at(&self, address: PciAddress, nodes: &dyn Occupancy) -> Option<Found> {
        let path = self.function(address);
        let pci_ids = self.ids(address).ok()?;
        let class = class_of(&path, pci_ids)?;
        let kind = kind_of(&path);
        // Of all network cards of a host, those that nothing can be got of are of no interest.
        let card = class == DeviceClass::Net && !vendor::stands_alone(pci_ids);
        if card && kind == Kind::Plain {
            return None;
        }
        let iommu_group: Option<u32> = name_of(&path.join("iommu_group"))?.parse().ok();
        let members = fs::read_dir(path.join("iommu_group/devices")).map(Iterator::count);
        Some(Found {
            address,
            kind,
            class,
            pci_ids,
            interface: self.interfaces(address).next().map(|net| name(&net)),
            iommu_group,
            group_size: members.unwrap_or(0),
            driver: self.driver(address).ok()?,
            owner_pid: iommu_group.and_then(|group| nodes.holder(group)),
            numa_node: self.numa_node(address),
        })
    }
}

/// Name that a link leads to; empty where there is none.
fn name_of(path: &Path) -> Option<String> {
    Some(link_name(path).ok()?.unwrap_or_default())
}

fn class_of(path: &Path, ids: PciIds) -> Option<DeviceClass> {
    let code = fs::read_to_string(path.join("class")).ok()?;
    let code = u32::from_str_radix(code.trim().trim_start_matches("0x"), 16).ok()?;
    vendor::class_of(ids, code)
}

fn kind_of(path: &Path) -> Kind {
    let number = |name: &str| fs::read_to_string(path.join(name)).ok()?.trim().parse().ok();
    if let Some(of) = name_of(&path.join("physfn")).and_then(|name| name.parse().ok()) {
        return Kind::Virtual { of };
    }
    match number("sriov_totalvfs") {
        Some(total_vfs) if total_vfs > 0 => {
            Kind::Physical { total_vfs, vfs: number("sriov_numvfs").unwrap_or(0) }
        }
        _ => Kind::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::VfioNodes;
    use std::os::unix::fs::symlink;

    /// A function with some attributes, in a group of its own if `group` says so.
    fn function(root: &Path, name: &str, ids: (&str, &str), class: &str, group: Option<u32>) {
        let path = root.join("bus/pci/devices").join(name);
        fs::create_dir_all(&path).unwrap();
        for (attribute, text) in [
            ("vendor", ids.0),
            ("device", ids.1),
            ("subsystem_vendor", "0x0000"),
            ("subsystem_device", "0x0000"),
            ("class", class),
            ("numa_node", "-1"),
        ] {
            fs::write(path.join(attribute), text).unwrap();
        }
        if let Some(group) = group {
            let group = root.join(format!("kernel/iommu_groups/{group}"));
            fs::create_dir_all(group.join("devices").join(name)).unwrap();
            symlink(group, path.join("iommu_group")).unwrap();
        }
    }

    #[test]
    fn what_could_accelerate_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let pci = root.join("bus/pci/devices");
        function(root, "0000:01:00.0", ("0x8086", "0x10c9"), "0x020000", Some(1));
        fs::write(pci.join("0000:01:00.0/sriov_totalvfs"), "7").unwrap();
        fs::write(pci.join("0000:01:00.0/sriov_numvfs"), "1").unwrap();
        fs::create_dir_all(pci.join("0000:01:00.0/net/eth0")).unwrap();
        function(root, "0000:01:10.0", ("0x8086", "0x10ca"), "0x020000", Some(2));
        symlink("../0000:01:00.0", pci.join("0000:01:10.0/physfn")).unwrap();
        function(root, "0000:02:00.0", ("0x1af4", "0x1041"), "0x020000", Some(3));
        fs::create_dir_all(pci.join("0000:02:00.0/virtio0/net/eth1")).unwrap();
        function(root, "0000:03:00.0", ("0x8086", "0x37c8"), "0x0b4000", Some(3));
        function(root, "0000:04:00.0", ("0x1af4", "0x1054"), "0x108000", None);
        // A card without VFs, a virtio disk, a bridge.
        function(root, "0000:05:00.0", ("0x8086", "0x100e"), "0x020000", Some(5));
        function(root, "0000:06:00.0", ("0x1af4", "0x1042"), "0x010000", Some(6));
        function(root, "0000:00:00.0", ("0x8086", "0x29c0"), "0x060000", None);

        let nodes = VfioNodes::at(root.join("dev/vfio"));
        let found = Sysfs::at(root).scan(&nodes).unwrap();
        let line = |found: &Found| {
            let Found { address, class, interface, iommu_group, group_size, .. } = found;
            let interface = interface.clone().unwrap_or_default();
            format!("{address} {class:?} {interface} {iommu_group:?} {group_size}")
        };
        assert_eq!(
            found.iter().map(line).collect::<Vec<_>>(),
            [
                "0000:01:00.0 Net eth0 Some(1) 1",
                "0000:01:10.0 Net  Some(2) 1",
                "0000:02:00.0 Net eth1 Some(3) 2",
                "0000:03:00.0 Crypto  Some(3) 2",
                "0000:04:00.0 Crypto  None 0",
            ]
        );
        assert_eq!(found[0].kind, Kind::Physical { total_vfs: 7, vfs: 1 });
        assert_eq!(found[1].kind, Kind::Virtual { of: found[0].address });
        assert_eq!(found[2].kind, Kind::Plain);
        assert!(Sysfs::at(root.join("nowhere")).scan(&nodes).is_err());
    }
}
