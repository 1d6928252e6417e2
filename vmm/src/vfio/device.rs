//! An open VF: control page through the kernel, data pages for mapping, interrupts as eventfds.
//! Divides BARs page by page; only pages that were named as data are given out, and never one
//! that holds the MSI-X table.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use npa_abi::PAGE_SIZE;
use npa_abi::register::DEVICE_INFO_WORDS;
use npa_abi::shell_page::QueueDescriptor;
use pf_control::ops::{Region, RegionKind};
use pf_control::vf_control::{
    self, ControlRegion, Offloads, QueueMemory, VfConfig, VfControl, VfControlError, VfEvent,
    VfStats,
};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX, VFIO_REGION_INFO_FLAG_MMAP,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::VfError;
use super::container::{Container, VfioSpace};
use super::msix::msix_pages;
use super::sys::{Function, VfioError};
use crate::npa::hardware::{DeviceMemory, Vf, VfGrant, VfOpener};
use crate::pci::command;

const PAGE: u64 = PAGE_SIZE as u64;
/// The command register in configuration space (PCI 3.0, 6.2.2).
const COMMAND: u64 = 4;

impl VfOpener for VfioSpace {
    fn open(&mut self, grant: &VfGrant, group: OwnedFd) -> Result<Box<dyn Vf>, VfError> {
        Ok(Box::new(VfioVf::open(self, grant, group)?))
    }
}

/// See the module.
struct VfioVf {
    name: String,
    // Dropped in this order: the control module and the device before the container.
    control: Box<dyn VfControl>,
    device: Arc<Function>,
    _container: Arc<Container>,
    regions: Vec<Region>,
    vectors: VfVectors,
    /// Signalled when the kernel wants the VF back.
    request: EventFd,
    wanted_back: bool,
    stopped: bool,
}

/// The VF's MSI-X vectors. All of them always have an eventfd, so that connecting one to the
/// guest is a change of that vector alone.
struct VfVectors {
    /// One for each vector, where it leads nowhere else.
    own: Vec<EventFd>,
    /// The one that announces events of the control page.
    control: Option<u16>,
}

/// BAR 0 of a VF through the kernel: works for pages that are mapped nowhere.
struct Registers {
    device: Arc<Function>,
    bar: u32,
}

impl ControlRegion for Registers {
    fn read(&self, offset: u32, bytes: &mut [u8]) {
        self.device.read(self.bar, bytes, offset.into());
    }

    fn write(&self, offset: u32, bytes: &[u8]) {
        self.device.write(self.bar, bytes, offset.into());
    }

    fn read_config(&self, offset: u16, bytes: &mut [u8]) {
        self.device.read_config(bytes, offset.into());
    }
}

impl VfioVf {
    fn open(space: &VfioSpace, grant: &VfGrant, group: OwnedFd) -> Result<Self, VfError> {
        let acquired = &grant.acquired;
        let name = acquired.vf.to_string();
        check_bound(&name)?;
        let container = space.container()?;
        let device = container
            .open(group, &name)
            .map_err(|error| open_error(error, &name, acquired.iommu_group))?;
        let device = Arc::new(device);
        container.map_memory()?;
        let bar = acquired
            .regions
            .iter()
            .find(|region| region.kind == RegionKind::Control)
            .map_or(0, |region| region.bar);
        let registers = Registers { device: Arc::clone(&device), bar: bar.into() };
        let control = vf_control::open(acquired.pci_ids.vendor, acquired.pci_ids.device, registers)
            .map_err(|source| VfError::Control { vf: name.clone(), source })?;
        let request = event()?;
        let vectors = VfVectors::new(&device, &name, acquired.vectors.control)?;
        let vf = Self {
            control,
            vectors,
            request,
            regions: acquired.regions.clone(),
            wanted_back: false,
            stopped: false,
            _container: container,
            name,
            device,
        };
        vf.vectors.connect(&vf, &[])?;
        // Kernels without this interrupt only complain in their log instead of asking.
        if vf.device.vectors(VFIO_PCI_REQ_IRQ_INDEX) > 0 {
            vf.vfio(vf.device.connect(VFIO_PCI_REQ_IRQ_INDEX, &[&vf.request]))?;
        }
        Ok(vf)
    }

    fn vfio<T>(&self, result: Result<T, VfioError>) -> Result<T, VfError> {
        result.map_err(|source| VfError::Vfio { vf: self.name.clone(), source })
    }

    /// Lets the function master the bus (DMA and interrupts) or not. VFIO opens it without.
    fn set_bus_master(&self, on: bool) {
        let mut bytes = [0; 2];
        self.device.read_config(&mut bytes, COMMAND);
        let command = u16::from_le_bytes(bytes);
        let command = match on {
            true => command | command::MEMORY | command::BUS_MASTER,
            false => command & !command::BUS_MASTER,
        };
        self.device.write_config(&command.to_le_bytes(), COMMAND);
    }

    fn control_error(&self, source: VfControlError) -> VfError {
        VfError::Control { vf: self.name.clone(), source }
    }

    fn region_error(&self, bar: u8, offset: u64, length: u64, reason: &'static str) -> VfError {
        VfError::Region { vf: self.name.clone(), bar, offset, length, reason }
    }
}

impl VfVectors {
    fn new(device: &Function, name: &str, control: Option<u16>) -> Result<Self, VfError> {
        let count = device.vectors(VFIO_PCI_MSIX_IRQ_INDEX);
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        if let Some(vector) = control.filter(|vector| *vector >= count) {
            return Err(VfError::Vector { vf: name.to_owned(), vector, count });
        }
        let own = (0..count).map(|_| event()).collect::<Result<_, _>>()?;
        Ok(Self { own, control })
    }

    /// Connects the vectors named in `guest` to the eventfds named with them, all others to our
    /// own.
    fn connect(&self, vf: &VfioVf, guest: &[(u16, &EventFd)]) -> Result<(), VfError> {
        let mut events: Vec<&EventFd> = self.own.iter().collect();
        let count = events.len() as u16;
        for &(vector, event) in guest {
            let taken = self.control == Some(vector);
            match events.get_mut(usize::from(vector)).filter(|_| !taken) {
                Some(slot) => *slot = event,
                None => return Err(VfError::Vector { vf: vf.name.clone(), vector, count }),
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        vf.vfio(vf.device.connect(VFIO_PCI_MSIX_IRQ_INDEX, &events))
    }

    fn control_event(&self) -> Option<&EventFd> {
        self.own.get(usize::from(self.control?))
    }
}

impl Vf for VfioVf {
    fn init(&mut self, config: &VfConfig) -> Result<(), VfError> {
        let identity = self.control.init(config);
        let identity = identity.map_err(|source| self.control_error(source))?;
        self.stopped = false;
        let link = self.control.link_up();
        tracing::debug!(vf = self.name, mac = ?identity.mac, link, "the VF is up");
        self.control.rearm();
        Ok(())
    }

    fn describe(&self, words: &mut [u32; DEVICE_INFO_WORDS]) {
        self.control.describe(words);
    }

    fn offloads(&self) -> Offloads {
        self.control.offloads()
    }

    fn ring_limits(&self) -> [u16; 2] {
        self.control.ring_limits()
    }

    fn start(&mut self, queues: &[QueueDescriptor]) -> Result<(), VfError> {
        let memory = |queue: &QueueDescriptor| QueueMemory {
            base: queue.base,
            length: queue.length.into(),
            entries: queue.entries,
        };
        let queues: Vec<_> = queues.iter().map(memory).collect();
        let started = self.control.start(&queues);
        started.map_err(|source| self.control_error(source))
    }

    fn admit(&mut self) -> Result<(), VfError> {
        let admitted = self.control.admit();
        admitted.map_err(|source| self.control_error(source))
    }

    fn dismiss(&mut self) -> Result<(), VfError> {
        let dismissed = self.control.dismiss();
        dismissed.map_err(|source| self.control_error(source))
    }

    fn data(&self, bar: u8, offset: u64, length: u64) -> Result<DeviceMemory<'_>, VfError> {
        let error = |reason| self.region_error(bar, offset, length, reason);
        let end = offset.checked_add(length).ok_or_else(|| error("it is too large"))?;
        if !offset.is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) || length == 0 {
            return Err(error("it is not made of whole pages"));
        }
        let named = |region: &Region| {
            region.kind == RegionKind::Data
                && region.bar == bar
                && region.offset <= offset
                && end <= region.offset.saturating_add(region.length)
        };
        if !self.regions.iter().any(named) {
            return Err(error("they are not data pages"));
        }
        let device = &self.device;
        let index = u32::from(bar);
        if bar > 5 || end > device.size(index) {
            return Err(error("the BAR is smaller"));
        }
        if device.flags(index) & VFIO_REGION_INFO_FLAG_MMAP == 0 {
            return Err(error("the kernel does not let this BAR be mapped"));
        }
        let config = |at: u16, len: usize| {
            let mut bytes = [0xff; 4];
            device.read_config(&mut bytes[..len], at.into());
            u32::from_le_bytes(bytes) & (u32::MAX >> (32 - 8 * len as u32))
        };
        if msix_pages(config)
            .iter()
            .any(|(at, pages)| *at == bar && pages.start < end && offset < pages.end)
        {
            return Err(error("the MSI-X table is in these pages"));
        }
        Ok(DeviceMemory { file: device.as_fd(), offset: device.offset(index) + offset })
    }

    fn wire(&mut self, vectors: &[(u16, &EventFd)]) -> Result<(), VfError> {
        self.vectors.connect(self, vectors)?;
        // Not before: a guest that has accepted nothing has no memory to write to. A function
        // that kept its rings over a reset would write to what they were in the last guest.
        self.set_bus_master(true);
        // Neither could the VF interrupt before.
        if let Some(event) = self.vectors.control_event() {
            drop(event.write(1));
        }
        Ok(())
    }

    fn unwire(&mut self) -> Result<(), VfError> {
        self.vectors.connect(self, &[])
    }

    fn stop(&mut self) {
        self.control.force_quiesce();
        // Whatever the vendor's way is worth, this stops any function's DMA.
        self.set_bus_master(false);
        self.stopped = true;
    }

    fn stats(&self) -> Option<VfStats> {
        let stats = self.control.stats();
        (!self.stopped && stats.rx_frames != u32::MAX).then_some(stats)
    }

    fn signals(&self) -> Vec<RawFd> {
        let control = self.vectors.control_event().map(AsRawFd::as_raw_fd);
        control.into_iter().chain([self.request.as_raw_fd()]).collect()
    }

    fn poll_event(&mut self) -> Option<VfEvent> {
        if self.request.read().is_ok() && !std::mem::replace(&mut self.wanted_back, true) {
            return Some(VfEvent::Gone);
        }
        if self.stopped || self.vectors.control_event()?.read().is_err() {
            return None;
        }
        let event = self.control.poll_event();
        self.control.rearm();
        if event.is_some() {
            // There may be more; the vector does not fire again for it.
            drop(self.vectors.control_event()?.write(1));
        }
        event
    }
}

fn event() -> Result<EventFd, VfError> {
    EventFd::new(EFD_NONBLOCK).map_err(VfError::Event)
}

/// Whether the VF is there and vfio-pci has it.
fn check_bound(vf: &str) -> Result<(), VfError> {
    let path = Path::new("/sys/bus/pci/devices").join(vf);
    if !path.exists() {
        return Err(VfError::Missing { vf: vf.to_owned() });
    }
    let link = path.join("driver");
    let driver = match fs::read_link(&link) {
        Ok(target) => {
            target.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => "no driver".to_owned(),
        Err(source) => return Err(VfError::Sysfs { path: link, source }),
    };
    if driver != "vfio-pci" {
        return Err(VfError::NotBound { vf: vf.to_owned(), driver });
    }
    Ok(())
}

fn open_error(error: VfioError, vf: &str, group: u32) -> VfError {
    match error {
        VfioError::NotViable => VfError::NotViable { group },
        source => VfError::Vfio { vf: vf.to_owned(), source },
    }
}
