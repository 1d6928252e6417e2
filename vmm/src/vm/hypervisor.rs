//! What the VMM asks of KVM on behalf of devices: memory slots, interrupt routes, irqfds and
//! ioeventfds. A trait, so that every device can be tested against [`fake`] with no KVM; never
//! touches vCPUs.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION hands host memory to the guest.

use std::io;
use std::sync::{Arc, Mutex};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY,
    KvmIrqRouting, kvm_create_device, kvm_device_type_KVM_DEV_TYPE_VFIO, kvm_irq_routing_entry,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{DeviceFd, IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

#[cfg(test)]
pub(crate) mod fake;

bitflags::bitflags! {
    /// How KVM treats accesses to a memory slot.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct SlotFlags: u32 {
        /// Guest writes exit to the VMM instead of reaching the memory.
        const READONLY = KVM_MEM_READONLY;
        /// KVM records guest writes in the slot's dirty log.
        const LOG_DIRTY = KVM_MEM_LOG_DIRTY_PAGES;
    }
}

/// One KVM memory slot: `len` bytes of this process at `host` appear at `gpa`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// KVM's number of the slot.
    pub id: u32,
    /// Guest physical address, page aligned.
    pub gpa: u64,
    /// Length in bytes, page aligned; 0 deletes the slot.
    pub len: u64,
    /// Address in this process, page aligned.
    pub host: u64,
    /// Access treatment.
    pub flags: SlotFlags,
}

/// Address and data of a message-signalled interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MsiMessage {
    /// Message address (on x86 0xfee0_0000 and destination bits).
    pub address: u64,
    /// Message data: vector, delivery mode.
    pub data: u32,
}

/// Where a GSI leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsiRoute {
    /// Input `pin` of the in-kernel chip `chip` (KVM_IRQCHIP_*).
    Chip {
        /// Global system interrupt number.
        gsi: u32,
        /// KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE or KVM_IRQCHIP_IOAPIC.
        chip: u32,
        /// Input of that chip.
        pin: u32,
    },
    /// A message to the local APICs.
    Msi {
        /// Global system interrupt number.
        gsi: u32,
        /// What is sent.
        message: MsiMessage,
    },
}

/// Which guest writes to an ioeventfd's address signal it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataMatch {
    /// A write of any length and value.
    Any,
    /// A 2-byte write of this value.
    U16(u16),
    /// A 4-byte write of this value.
    U32(u32),
    /// An 8-byte write of this value.
    U64(u64),
}

/// Address of an ioeventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IoAddress {
    /// Guest physical address.
    Mmio(u64),
    /// I/O port.
    Port(u16),
}

/// The VM-wide KVM operations that devices need. All of them may be called from any thread.
pub trait Hypervisor: Send + Sync {
    /// Creates, changes or (with `len` 0) deletes a memory slot.
    ///
    /// # Safety
    /// `slot.host .. slot.host + slot.len` must stay mapped until the slot is deleted, and no
    /// Rust reference may exist to memory that the guest can write.
    unsafe fn set_memory_slot(&self, slot: Slot) -> io::Result<()>;

    /// Replaces the whole routing table.
    fn set_gsi_routes(&self, routes: &[GsiRoute]) -> io::Result<()>;

    /// Connects `event` to `gsi`: each signal injects an interrupt, with no exit to userspace.
    fn assign_irqfd(&self, event: &EventFd, gsi: u32) -> io::Result<()>;

    /// Undoes [`Hypervisor::assign_irqfd`]; on return no injection is under way.
    fn deassign_irqfd(&self, event: &EventFd, gsi: u32) -> io::Result<()>;

    /// Guest writes at `at` that match signal `event` instead of exiting to userspace.
    fn assign_ioevent(&self, event: &EventFd, at: IoAddress, on: DataMatch) -> io::Result<()>;

    /// Undoes [`Hypervisor::assign_ioevent`].
    fn deassign_ioevent(&self, event: &EventFd, at: IoAddress, on: DataMatch) -> io::Result<()>;

    /// The VM's one KVM-VFIO device, created at the first call; VFIO groups are added to it.
    fn vfio_device(&self) -> io::Result<Arc<DeviceFd>>;
}

/// [`Hypervisor`] on a real KVM VM.
pub struct KvmHypervisor {
    vm: Arc<VmFd>,
    vfio: Mutex<Option<Arc<DeviceFd>>>,
}

impl KvmHypervisor {
    /// Wraps a VM that already has its interrupt controllers.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, vfio: Mutex::new(None) }
    }
}

fn io_error(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

fn routing_entry(route: &GsiRoute) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry::default();
    match *route {
        GsiRoute::Chip { gsi, chip, pin } => {
            entry.gsi = gsi;
            entry.type_ = KVM_IRQ_ROUTING_IRQCHIP;
            entry.u.irqchip.irqchip = chip;
            entry.u.irqchip.pin = pin;
        }
        GsiRoute::Msi { gsi, message } => {
            entry.gsi = gsi;
            entry.type_ = KVM_IRQ_ROUTING_MSI;
            entry.u.msi.address_lo = message.address as u32;
            entry.u.msi.address_hi = (message.address >> 32) as u32;
            entry.u.msi.data = message.data;
        }
    }
    entry
}

impl Hypervisor for KvmHypervisor {
    unsafe fn set_memory_slot(&self, slot: Slot) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot: slot.id,
            flags: slot.flags.bits(),
            guest_phys_addr: slot.gpa,
            memory_size: slot.len,
            userspace_addr: slot.host,
        };
        // SAFETY: the caller keeps the host range mapped while the slot exists.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(io_error)
    }

    fn set_gsi_routes(&self, routes: &[GsiRoute]) -> io::Result<()> {
        let entries: Vec<_> = routes.iter().map(routing_entry).collect();
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
        self.vm.set_gsi_routing(&table).map_err(io_error)
    }

    fn assign_irqfd(&self, event: &EventFd, gsi: u32) -> io::Result<()> {
        self.vm.register_irqfd(event, gsi).map_err(io_error)
    }

    fn deassign_irqfd(&self, event: &EventFd, gsi: u32) -> io::Result<()> {
        self.vm.unregister_irqfd(event, gsi).map_err(io_error)
    }

    fn assign_ioevent(&self, event: &EventFd, at: IoAddress, on: DataMatch) -> io::Result<()> {
        let at = kvm_address(at);
        match on {
            DataMatch::Any => self.vm.register_ioevent(event, &at, NoDatamatch),
            DataMatch::U16(value) => self.vm.register_ioevent(event, &at, value),
            DataMatch::U32(value) => self.vm.register_ioevent(event, &at, value),
            DataMatch::U64(value) => self.vm.register_ioevent(event, &at, value),
        }
        .map_err(io_error)
    }

    fn deassign_ioevent(&self, event: &EventFd, at: IoAddress, on: DataMatch) -> io::Result<()> {
        let at = kvm_address(at);
        match on {
            DataMatch::Any => self.vm.unregister_ioevent(event, &at, NoDatamatch),
            DataMatch::U16(value) => self.vm.unregister_ioevent(event, &at, value),
            DataMatch::U32(value) => self.vm.unregister_ioevent(event, &at, value),
            DataMatch::U64(value) => self.vm.unregister_ioevent(event, &at, value),
        }
        .map_err(io_error)
    }

    fn vfio_device(&self) -> io::Result<Arc<DeviceFd>> {
        let mut vfio = self.vfio.lock().unwrap();
        if let Some(device) = vfio.as_ref() {
            return Ok(device.clone());
        }
        let mut request =
            kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, fd: 0, flags: 0 };
        let fd = self.vm.create_device(&mut request).map_err(io_error)?;
        let device = Arc::new(fd);
        *vfio = Some(device.clone());
        Ok(device)
    }
}

fn kvm_address(at: IoAddress) -> IoEventAddress {
    match at {
        IoAddress::Mmio(address) => IoEventAddress::Mmio(address),
        IoAddress::Port(port) => IoEventAddress::Pio(port.into()),
    }
}
