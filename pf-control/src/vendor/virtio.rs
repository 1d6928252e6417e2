//! A virtio network function in hardware, on its own: no PF of this host stands behind it.
//!
//! Nothing on the host commands what reaches it. The VMM opens and closes it by its status register
//! (see [`crate::vf_control::virtio`]); the switch only learns that the VM's address is behind the
//! uplink meanwhile. So it must hang on the same network as the uplink, and its address and filters
//! are whatever whoever provides it has set.

use super::{Adapter, PfModule, Uplink, VendorError, VfDescription, uplink};
use crate::inventory::{InventoryError, Sysfs, Vf};
use crate::netlink::Netlink;
use crate::ops::{DeviceClass, MacAddr, Op, PciAddress, Rings, Vectors, limits};
use crate::vf_control::virtio::PCI_ID;
use crate::vf_control::virtio::capabilities::{Layout, LayoutError};

/// Vendor of virtio functions (virtio 1.2, 4.1.2).
pub(super) const VENDOR: u16 = PCI_ID.0;
/// Network functions: transitional and modern (virtio 1.2, 4.1.2.1).
pub(super) const NET_DEVICES: [u16; 2] = [0x1000, PCI_ID.1];
/// Crypto functions (virtio 1.2, 4.1.2 and 5: device 20).
pub(super) const CRYPTO_DEVICE: u16 = 0x1054;

/// One receive and one transmit queue.
const QUEUE_PAIRS: u16 = 1;

/// Number of the first such function; below are the VFs of PFs, whose placeholders must differ.
pub const FIRST_INDEX: u32 = 0x80;

/// Why a function cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// It is something else.
    #[error(
        "{function} ({vendor:04x}:{device:04x}) is no function that is served on its own: this \
         version serves virtio network functions (1af4:1041)"
    )]
    Unknown {
        /// Its place.
        function: PciAddress,
        /// PCI vendor.
        vendor: u16,
        /// PCI device.
        device: u16,
    },
    /// Its registers cannot be divided between guest and host.
    #[error("{function} cannot be given to guests")]
    Layout {
        /// Its place.
        function: PciAddress,
        /// Why.
        source: LayoutError,
    },
    /// Unreadable files, or it is in use.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
}

/// See the module.
pub struct VirtioFunction {
    description: VfDescription,
    adapter: Adapter,
    uplink: String,
    sysfs: Sysfs,
    netlink: Netlink,
}

impl VirtioFunction {
    /// The function `vf`, with `uplink` on the same network.
    ///
    /// # Errors
    /// [`FunctionError`].
    pub fn new(
        vf: &Vf,
        uplink: &str,
        sysfs: Sysfs,
        netlink: Netlink,
    ) -> Result<Self, FunctionError> {
        let function = vf.address;
        if (vf.ids.vendor, vf.ids.device) != PCI_ID {
            let (vendor, device) = (vf.ids.vendor, vf.ids.device);
            return Err(FunctionError::Unknown { function, vendor, device });
        }
        let config = sysfs.config(function)?;
        let description =
            describe(&config).map_err(|source| FunctionError::Layout { function, source })?;
        let adapter = Adapter {
            address: function,
            driver: "vfio-pci".to_owned(),
            ids: vf.ids,
            numa_node: sysfs.numa_node(function),
            switch: None,
        };
        Ok(Self { description, adapter, uplink: uplink.to_owned(), sysfs, netlink })
    }
}

fn describe(config: &[u8]) -> Result<VfDescription, LayoutError> {
    let layout = Layout::read(|at, bytes| {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = config.get(usize::from(at) + index).copied().unwrap_or(0xff);
        }
    })?;
    Ok(VfDescription {
        class: DeviceClass::Net,
        plugin: "virtio-net".to_owned(),
        queues: QUEUE_PAIRS,
        regions: layout.regions()?,
        // Each queue has the vector of its number; a change of configuration has none.
        vectors: Vectors { total: layout.vectors, plugin: vec![0, 1], control: None },
        device_info: [0; limits::DEVICE_INFO_WORDS],
    })
}

impl PfModule for VirtioFunction {
    fn name(&self) -> &str {
        "virtio-function"
    }

    fn interface(&self) -> &str {
        &self.uplink
    }

    fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    fn describe(&self) -> VfDescription {
        self.description.clone()
    }

    fn extra_ops(&self) -> &'static [Op] {
        &[]
    }

    fn uplink(&self) -> Result<Uplink, VendorError> {
        uplink(&self.uplink, &self.sysfs, &self.netlink)
    }

    fn vf_mac(&self, _vf: u32) -> Result<Option<MacAddr>, VendorError> {
        Ok(None)
    }

    /// The function takes what comes as long as the VMM lets it.
    fn set_vf_mac(&self, _vf: u32, _mac: MacAddr) -> Result<(), VendorError> {
        Ok(())
    }

    fn restore_defaults(&self, _vf: u32) -> Result<(), VendorError> {
        Ok(())
    }

    /// The VMM puts them into the function's own registers, and checks them there.
    fn prepare_queues(&self, _vf: u32, _rings: &Rings) -> Result<(), VendorError> {
        Ok(())
    }

    fn reset(&self, vf: &Vf) -> Result<(), VendorError> {
        Ok(self.sysfs.reset(vf.address)?)
    }

    fn set_default_vlan(&self, _vf: u32, _vlan: u16, _priority: u8) -> Result<(), VendorError> {
        Err(VendorError::NotSupported(Op::SetDefaultVlan))
    }

    fn set_anti_spoof(&self, _vf: u32, _enabled: bool) -> Result<(), VendorError> {
        Err(VendorError::NotSupported(Op::SetAntiSpoof))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_is_none_of_virtio_s_is_refused() {
        assert!(matches!(describe(&[]), Err(LayoutError::Missing(_))));
        assert!(matches!(describe(&[0; 4096]), Err(LayoutError::Missing(_))));
    }
}
