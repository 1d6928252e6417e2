//! Handing VFs to vfio-pci, and giving a PF the wanted number of them.

use super::sysfs::write;
use super::{InventoryError, Occupancy, Pf, Sysfs, Vf};
use crate::ops::PciAddress;

const VFIO_PCI: &str = "vfio-pci";

impl Sysfs {
    /// Makes `pf` have `count` VFs, each bound to vfio-pci, and describes them. VFs that exist
    /// in that number are left alone, since VMs may be using them.
    ///
    /// # Errors
    /// [`InventoryError`].
    pub fn provide_vfs(
        &self,
        pf: &Pf,
        count: u32,
        nodes: &dyn Occupancy,
    ) -> Result<Vec<Vf>, InventoryError> {
        let present = self.vf_count(pf)?;
        if present != count {
            self.refuse_if_used(pf, present, count, nodes)?;
            if present != 0 {
                self.set_vf_count(pf, 0)?;
            }
            self.set_vf_count(pf, count)?;
        }
        (0..).zip(self.vf_addresses(pf)?).map(|(index, vf)| self.provide(vf, index)).collect()
    }

    fn provide(&self, address: PciAddress, index: u32) -> Result<Vf, InventoryError> {
        let vf = self.vf(address, index)?;
        self.bind(address)?;
        Ok(vf)
    }

    /// Binds a function that is no PF's VF to vfio-pci and describes it as number `index`. One that
    /// the host uses itself is left alone.
    ///
    /// # Errors
    /// [`InventoryError`].
    pub fn provide_function(&self, address: PciAddress, index: u32) -> Result<Vf, InventoryError> {
        if !self.function(address).exists() {
            return Err(InventoryError::NoFunction { function: address });
        }
        if let Some(interface) = self.interface_in_use(address) {
            return Err(InventoryError::FunctionInUse { function: address, interface });
        }
        self.provide(address, index)
    }

    /// VFs may only be taken away while nobody uses one.
    fn refuse_if_used(
        &self,
        pf: &Pf,
        present: u32,
        wanted: u32,
        nodes: &dyn Occupancy,
    ) -> Result<(), InventoryError> {
        for (index, vf) in (0..).zip(self.vf_addresses(pf)?) {
            // The host's own driver uses it, or a VM does.
            let used = match self.driver(vf)?.as_deref() {
                None => false,
                Some(VFIO_PCI) => nodes.is_open(self.vf(vf, index)?.iommu_group)?,
                Some(_) => true,
            };
            if used {
                let interface = pf.interface.clone();
                return Err(InventoryError::VfsInUse { interface, present, wanted, vf });
            }
        }
        Ok(())
    }

    /// Binds one function to vfio-pci, whatever drives it now.
    fn bind(&self, vf: PciAddress) -> Result<(), InventoryError> {
        if self.driver(vf)?.as_deref() == Some(VFIO_PCI) {
            return Ok(());
        }
        if !self.pci_bus().join("drivers").join(VFIO_PCI).exists() {
            return Err(InventoryError::NoVfio);
        }
        let device = self.function(vf);
        write(&device.join("driver_override"), VFIO_PCI)?;
        if self.driver(vf)?.is_some() {
            write(&device.join("driver/unbind"), &vf.to_string())?;
        }
        write(&self.pci_bus().join("drivers_probe"), &vf.to_string())?;
        match self.driver(vf)? {
            Some(driver) if driver == VFIO_PCI => Ok(()),
            driver => Err(InventoryError::NotBound { vf, driver }),
        }
    }
}
