//! The VM's VFIO container: what its VFs may reach by DMA. It exists while a VF is open; all
//! guest RAM is mapped before the first VF's driver could start DMA, at the addresses that the
//! guest knows. Never maps anything else.
#![allow(unsafe_code)] // Hands guest RAM to devices.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::VfError;
use super::sys::{Domain, Function, Group, VfioError};
use crate::vm::{Hypervisor, Memory};

/// The file from which a container is made. Nothing can be reached through it without a group.
const CONTAINER: &str = "/dev/vfio/vfio";

/// Makes the container when the first VF of the VM is opened; all devices of a VM share one.
#[derive(Clone)]
pub struct VfioSpace {
    inner: Arc<Inner>,
}

struct Inner {
    memory: Arc<Memory>,
    hypervisor: Arc<dyn Hypervisor>,
    /// The container of the VFs that are open now.
    open: Mutex<Weak<Container>>,
}

/// A container in use. Guest RAM is unmapped by the kernel when its last VF is closed.
pub(super) struct Container {
    domain: Arc<Domain>,
    mapped: Mutex<bool>,
    /// RAM must outlive its DMA mappings.
    memory: Arc<Memory>,
}

impl VfioSpace {
    /// VFs of this VM reach `memory`.
    pub fn new(memory: Arc<Memory>, hypervisor: Arc<dyn Hypervisor>) -> Self {
        let open = Mutex::new(Weak::new());
        Self { inner: Arc::new(Inner { memory, hypervisor, open }) }
    }

    /// The container, made now if no VF is open.
    pub(super) fn container(&self) -> Result<Arc<Container>, VfError> {
        let mut open = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(container) = open.upgrade() {
            return Ok(container);
        }
        let kvm = self.inner.hypervisor.vfio_device().map_err(VfError::Kvm)?;
        let file = OpenOptions::new().read(true).write(true).open(CONTAINER);
        let domain = Domain::new(file.map_err(VfError::Container)?, kvm)
            .map_err(|source| VfError::Vfio { vf: "(none yet)".to_owned(), source })?;
        let container = Arc::new(Container {
            domain: Arc::new(domain),
            mapped: Mutex::new(false),
            memory: self.inner.memory.clone(),
        });
        *open = Arc::downgrade(&container);
        Ok(container)
    }
}

impl Container {
    /// Opens the function at the PCI address `name`, whose IOMMU group `group` is.
    pub(super) fn open(&self, group: OwnedFd, name: &str) -> Result<Function, VfioError> {
        Group::join(&self.domain, group)?.function(name)
    }

    /// Lets the container's VFs reach guest RAM. Needs a VF in the container, for the kernel
    /// has no IOMMU domain before.
    pub(super) fn map_memory(&self) -> Result<(), VfError> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if *mapped {
            return Ok(());
        }
        for range in self.memory.ranges() {
            // SAFETY: guest RAM stays mapped as long as `self.memory`, which is dropped after the
            // container's file; it is only accessed through vm-memory's volatile accessors.
            unsafe { self.domain.map(range.gpa, range.len, range.host) }.map_err(VfError::Dma)?;
        }
        *mapped = true;
        Ok(())
    }
}
