//! Reading PFs and VFs from sysfs, and creating VFs.

use super::{InventoryError, Pf, Vf};
use crate::ops::{PciAddress, PciIds};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

/// Flag of an interface that is up (Linux's if.h).
const IFF_UP: u32 = 1;

/// Length in bytes of the header of a configuration space (PCI 3.0, 6.1), which is what Linux shows to
/// those without `CAP_SYS_ADMIN`.
const CONFIG_HEADER: usize = 64;

/// A sysfs tree.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// The tree mounted at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The PF behind a network interface.
    ///
    /// # Errors
    /// [`InventoryError::NoInterface`], [`InventoryError::NotSriov`], or unreadable files.
    pub fn pf(&self, interface: &str) -> Result<Pf, InventoryError> {
        let net = self.root.join("class/net").join(interface);
        // A name with a slash would leave the directory.
        if interface.contains('/') || !net.exists() {
            return Err(InventoryError::NoInterface { interface: interface.to_owned() });
        }
        let not_sriov = || InventoryError::NotSriov { interface: interface.to_owned() };
        let device = net.join("device");
        if !device.join("sriov_totalvfs").exists() {
            return Err(not_sriov());
        }
        let address =
            link_name(&device)?.and_then(|name| name.parse().ok()).ok_or_else(not_sriov)?;
        Ok(Pf {
            address,
            interface: interface.to_owned(),
            driver: self.driver(address)?.unwrap_or_default(),
            ids: self.ids(address)?,
            total_vfs: read_number(&device.join("sriov_totalvfs"))?,
        })
    }

    /// How many VFs a PF has now.
    ///
    /// # Errors
    /// Unreadable files.
    pub fn vf_count(&self, pf: &Pf) -> Result<u32, InventoryError> {
        read_number(&self.function(pf.address).join("sriov_numvfs"))
    }

    /// The addresses of a PF's VFs, by VF number.
    ///
    /// # Errors
    /// Unreadable files.
    pub fn vf_addresses(&self, pf: &Pf) -> Result<Vec<PciAddress>, InventoryError> {
        (0..self.vf_count(pf)?)
            .map(|index| {
                let path = self.function(pf.address).join(format!("virtfn{index}"));
                let name = link_name(&path)?.unwrap_or_default();
                name.parse().map_err(|_| InventoryError::Content { path, text: name })
            })
            .collect()
    }

    /// Sets the number of a PF's VFs, which must be zero before or after. VFs are not given to
    /// the host's own VF driver.
    ///
    /// # Errors
    /// [`InventoryError::TooManyVfs`], or the kernel's refusal.
    pub fn set_vf_count(&self, pf: &Pf, count: u32) -> Result<(), InventoryError> {
        if count > pf.total_vfs {
            return Err(InventoryError::TooManyVfs {
                interface: pf.interface.clone(),
                total: pf.total_vfs,
                wanted: count,
            });
        }
        let device = self.function(pf.address);
        write(&device.join("sriov_drivers_autoprobe"), "0")?;
        write(&device.join("sriov_numvfs"), &count.to_string())
    }

    /// Describes a VF that is bound already.
    ///
    /// # Errors
    /// [`InventoryError::NoIommu`], [`InventoryError::SharedGroup`], or unreadable files.
    pub fn vf(&self, address: PciAddress, index: u32) -> Result<Vf, InventoryError> {
        let group = self.function(address).join("iommu_group");
        let iommu_group = link_name(&group)?
            .and_then(|name| name.parse().ok())
            .ok_or(InventoryError::NoIommu { vf: address })?;
        let members = group.join("devices");
        for entry in fs::read_dir(&members).map_err(file("read", &members))? {
            let name = entry.map_err(file("read", &members))?.file_name();
            let name = name.to_string_lossy();
            if name != address.to_string() {
                let other = name.into_owned();
                return Err(InventoryError::SharedGroup { vf: address, group: iommu_group, other });
            }
        }
        Ok(Vf { address, index, iommu_group, ids: self.ids(address)? })
    }

    /// The driver bound to a function.
    ///
    /// # Errors
    /// Unreadable files.
    pub fn driver(&self, address: PciAddress) -> Result<Option<String>, InventoryError> {
        link_name(&self.function(address).join("driver"))
    }

    /// The function's configuration space with its capabilities.
    ///
    /// # Errors
    /// Unreadable files; [`InventoryError::NoCapabilities`] when the kernel shows the header alone.
    pub fn config(&self, address: PciAddress) -> Result<Vec<u8>, InventoryError> {
        let path = self.function(address).join("config");
        let config = fs::read(&path).map_err(file("read", &path))?;
        match config.len() > CONFIG_HEADER {
            true => Ok(config),
            false => Err(InventoryError::NoCapabilities { function: address }),
        }
    }

    /// Resets a function that nobody uses.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn reset(&self, address: PciAddress) -> Result<(), InventoryError> {
        write(&self.function(address).join("reset"), "1")
    }

    /// A network interface of the function that is up.
    pub(super) fn interface_in_use(&self, address: PciAddress) -> Option<String> {
        let is_up = |net: &DirEntry| {
            let flags = fs::read_to_string(net.path().join("flags")).unwrap_or_default();
            let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16);
            flags.is_ok_and(|flags| flags & IFF_UP != 0)
        };
        self.interfaces(address).find(is_up).map(|net| name(&net))
    }

    /// The network interfaces of the function; a virtio function's belong to its virtio device.
    pub(super) fn interfaces(&self, address: PciAddress) -> impl Iterator<Item = DirEntry> + use<> {
        let function = self.function(address);
        let devices = fs::read_dir(&function).into_iter().flatten().flatten();
        let virtio = devices.filter(|entry| name(entry).starts_with("virtio"));
        let places = virtio.map(|entry| entry.path()).chain([function]);
        places.flat_map(|place| fs::read_dir(place.join("net")).into_iter().flatten()).flatten()
    }

    /// Whether an interface has a carrier. Down, or gone, it has none.
    pub fn carrier(&self, interface: &str) -> bool {
        self.net(interface, "carrier").is_some_and(|text| text == "1")
    }

    /// The speed of an interface in Mbit/s; `None` where it has none, or does not say.
    pub fn speed(&self, interface: &str) -> Option<u32> {
        // -1 without a carrier, and an error for interfaces that know no speed.
        self.net(interface, "speed")?.parse().ok()
    }

    /// The embedded switch that an interface is a port of, as the kernel names it.
    pub fn switch_id(&self, interface: &str) -> Option<String> {
        self.net(interface, "phys_switch_id").filter(|id| !id.is_empty())
    }

    /// The NUMA node that a function is near to.
    pub fn numa_node(&self, address: PciAddress) -> Option<u32> {
        let text = fs::read_to_string(self.function(address).join("numa_node")).ok()?;
        // -1 on hosts that have but one.
        text.trim().parse().ok()
    }

    fn net(&self, interface: &str, attribute: &str) -> Option<String> {
        let path = self.root.join("class/net").join(interface).join(attribute);
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    }

    pub(super) fn function(&self, address: PciAddress) -> PathBuf {
        self.root.join("bus/pci/devices").join(address.to_string())
    }

    pub(super) fn pci_bus(&self) -> PathBuf {
        self.root.join("bus/pci")
    }

    pub(super) fn ids(&self, address: PciAddress) -> Result<PciIds, InventoryError> {
        let id = |name: &str| read_hex(&self.function(address).join(name));
        Ok(PciIds {
            vendor: id("vendor")?,
            device: id("device")?,
            subsystem_vendor: id("subsystem_vendor")?,
            subsystem: id("subsystem_device")?,
        })
    }
}

pub(super) fn file(
    verb: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> InventoryError + use<> {
    let path = path.to_owned();
    move |source| InventoryError::File { verb, path: path.clone(), source }
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), InventoryError> {
    fs::write(path, text).map_err(file("write", path))
}

/// The name of an entry.
pub(super) fn name(entry: &DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}

/// The last part of a symbolic link's target; `None` where there is no link.
pub(super) fn link_name(path: &Path) -> Result<Option<String>, InventoryError> {
    match fs::read_link(path) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path)(error)),
    }
}

fn read_number(path: &Path) -> Result<u32, InventoryError> {
    let text = fs::read_to_string(path).map_err(file("read", path))?;
    let text = text.trim();
    text.parse()
        .map_err(|_| InventoryError::Content { path: path.to_owned(), text: text.to_owned() })
}

fn read_hex(path: &Path) -> Result<u16, InventoryError> {
    let text = fs::read_to_string(path).map_err(file("read", path))?;
    let text = text.trim();
    text.strip_prefix("0x")
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .ok_or_else(|| InventoryError::Content { path: path.to_owned(), text: text.to_owned() })
}

#[cfg(test)]
#[path = "sysfs_test.rs"]
mod tests;
