//! VFIO's calls for a group that somebody else has opened (linux/vfio.h). Well-kept libraries open
//! groups by path, which needs a right that this process is not to have.
#![allow(unsafe_code)] // ioctls on VFIO descriptors.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kvm_bindings::{
    KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL, kvm_device_attr,
};
use kvm_ioctls::DeviceFd;
use vfio_bindings::bindings::vfio::{
    VFIO_API_VERSION, VFIO_BASE, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE,
    VFIO_GROUP_FLAGS_VIABLE, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS, VFIO_TYPE,
    VFIO_TYPE1v2_IOMMU, vfio_group_status, vfio_iommu_type1_dma_map, vfio_irq_info, vfio_irq_set,
    vfio_region_info,
};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{
    ioctl, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref, ioctl_with_val,
};
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(VFIO_GET_API_VERSION, VFIO_TYPE.into(), VFIO_BASE);
ioctl_io_nr!(VFIO_CHECK_EXTENSION, VFIO_TYPE.into(), VFIO_BASE + 1);
ioctl_io_nr!(VFIO_SET_IOMMU, VFIO_TYPE.into(), VFIO_BASE + 2);
ioctl_io_nr!(VFIO_GROUP_GET_STATUS, VFIO_TYPE.into(), VFIO_BASE + 3);
ioctl_io_nr!(VFIO_GROUP_SET_CONTAINER, VFIO_TYPE.into(), VFIO_BASE + 4);
ioctl_io_nr!(VFIO_GROUP_UNSET_CONTAINER, VFIO_TYPE.into(), VFIO_BASE + 5);
ioctl_io_nr!(VFIO_GROUP_GET_DEVICE_FD, VFIO_TYPE.into(), VFIO_BASE + 6);
ioctl_io_nr!(VFIO_DEVICE_GET_REGION_INFO, VFIO_TYPE.into(), VFIO_BASE + 8);
ioctl_io_nr!(VFIO_DEVICE_GET_IRQ_INFO, VFIO_TYPE.into(), VFIO_BASE + 9);
ioctl_io_nr!(VFIO_DEVICE_SET_IRQS, VFIO_TYPE.into(), VFIO_BASE + 10);
ioctl_io_nr!(VFIO_IOMMU_MAP_DMA, VFIO_TYPE.into(), VFIO_BASE + 13);

/// Why a group or its function could not be used.
#[derive(Debug, thiserror::Error)]
pub enum VfioError {
    /// The kernel speaks another version of the interface.
    #[error("the kernel's VFIO is of version {0}, not {VFIO_API_VERSION}, or has no type 1 IOMMU")]
    Version(i32),
    /// Another function of the group is with a host driver.
    #[error("the group is not viable")]
    NotViable,
    /// A call was refused.
    #[error("{step} ({source})")]
    Call {
        /// What was tried.
        step: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// The result of an ioctl, worded.
fn check(result: i32, step: &'static str) -> Result<i32, VfioError> {
    match result {
        0.. => Ok(result),
        _ => Err(VfioError::Call { step, source: io::Error::last_os_error() }),
    }
}

/// An IOMMU domain: what its groups' functions reach by DMA.
pub(super) struct Domain {
    file: File,
    /// KVM is told of the groups.
    kvm: Arc<DeviceFd>,
}

impl Domain {
    /// An empty one, from `file`, which is `/dev/vfio/vfio`.
    pub(super) fn new(file: File, kvm: Arc<DeviceFd>) -> Result<Self, VfioError> {
        // SAFETY: takes no argument.
        let version = unsafe { ioctl(&file, VFIO_GET_API_VERSION()) };
        // SAFETY: takes a number.
        let type1 =
            unsafe { ioctl_with_val(&file, VFIO_CHECK_EXTENSION(), VFIO_TYPE1v2_IOMMU.into()) };
        if version != VFIO_API_VERSION as i32 || type1 != 1 {
            return Err(VfioError::Version(version));
        }
        Ok(Self { file, kvm })
    }

    /// Lets the functions reach `len` bytes of this process at `host` by the address `iova`.
    /// Needs a group in the domain.
    ///
    /// # Safety
    /// The memory stays mapped as long as the domain has groups, and is only accessed as memory
    /// that others write at any time.
    pub(super) unsafe fn map(&self, iova: u64, len: u64, host: u64) -> Result<(), VfioError> {
        let map = vfio_iommu_type1_dma_map {
            argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
            flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
            vaddr: host,
            iova,
            size: len,
        };
        // SAFETY: reads `map`; for the memory, the caller has promised.
        let mapped = unsafe { ioctl_with_ref(&self.file, VFIO_IOMMU_MAP_DMA(), &map) };
        check(mapped, "mapping memory for DMA").map(drop)
    }

    fn tell_kvm(&self, attribute: u32, group: RawFd) -> io::Result<()> {
        let attribute = kvm_device_attr {
            flags: 0,
            group: KVM_DEV_VFIO_FILE,
            attr: attribute.into(),
            addr: std::ptr::from_ref(&group) as u64,
        };
        self.kvm
            .set_device_attr(&attribute)
            .map_err(|errno| io::Error::from_raw_os_error(errno.errno()))
    }
}

/// A group in a domain. Dropping it takes it out again.
pub(super) struct Group {
    file: OwnedFd,
    domain: Arc<Domain>,
}

impl Group {
    /// Puts the open group `file` into the domain.
    pub(super) fn join(domain: &Arc<Domain>, file: OwnedFd) -> Result<Self, VfioError> {
        let mut status =
            vfio_group_status { argsz: size_of::<vfio_group_status>() as u32, flags: 0 };
        // SAFETY: reads and writes `status`.
        let asked = unsafe { ioctl_with_mut_ref(&file, VFIO_GROUP_GET_STATUS(), &mut status) };
        check(asked, "asking for the group's status")?;
        if status.flags & VFIO_GROUP_FLAGS_VIABLE == 0 {
            return Err(VfioError::NotViable);
        }
        let container = domain.file.as_raw_fd();
        // SAFETY: reads an int.
        let joined = unsafe { ioctl_with_ref(&file, VFIO_GROUP_SET_CONTAINER(), &container) };
        check(joined, "putting the group into the VM's domain")?;
        // From here on, dropping undoes it.
        let group = Self { file, domain: Arc::clone(domain) };
        // SAFETY: takes a number.
        let set =
            unsafe { ioctl_with_val(&domain.file, VFIO_SET_IOMMU(), VFIO_TYPE1v2_IOMMU.into()) };
        // A domain that has a group already has its kind too.
        if let Err(error) = check(set, "choosing the type 1 IOMMU")
            && !matches!(&error, VfioError::Call { source, .. } if source.raw_os_error() == Some(libc::EINVAL))
        {
            return Err(error);
        }
        domain
            .tell_kvm(KVM_DEV_VFIO_FILE_ADD, group.file.as_raw_fd())
            .map_err(|source| VfioError::Call { step: "telling KVM of the group", source })?;
        Ok(group)
    }

    /// Opens the group's function with the PCI address `name`.
    pub(super) fn function(self, name: &str) -> Result<Function, VfioError> {
        let invalid = |_| VfioError::Call {
            step: "opening the function",
            source: io::ErrorKind::InvalidInput.into(),
        };
        let name = CString::new(name).map_err(invalid)?;
        // SAFETY: reads a text that ends with a zero.
        let device =
            unsafe { ioctl_with_ptr(&self.file, VFIO_GROUP_GET_DEVICE_FD(), name.as_ptr()) };
        let device = check(device, "opening the function")?;
        // SAFETY: a new descriptor, which nothing else owns.
        let file = unsafe { File::from_raw_fd(device) };
        let regions = (0..VFIO_PCI_NUM_REGIONS).map(|index| region(&file, index)).collect();
        let vectors = (0..VFIO_PCI_NUM_IRQS).map(|index| vectors(&file, index)).collect();
        Ok(Function { file, regions, vectors, _group: self })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that KVM does not know yet is refused, and that is all.
        let _ = self.domain.tell_kvm(KVM_DEV_VFIO_FILE_DEL, self.file.as_raw_fd());
        // SAFETY: takes no argument.
        let left = unsafe { ioctl(&self.file, VFIO_GROUP_UNSET_CONTAINER()) };
        if let Err(error) = check(left, "taking the group out of the VM's domain") {
            // Closing it does so too.
            tracing::debug!(%error);
        }
    }
}

/// A region of a function that is not there, or cannot be asked for, is empty.
fn region(file: &File, index: u32) -> vfio_region_info {
    let argsz = size_of::<vfio_region_info>() as u32;
    let mut info = vfio_region_info { argsz, index, ..vfio_region_info::default() };
    // SAFETY: reads and writes `info`.
    let asked = unsafe { ioctl_with_mut_ref(file, VFIO_DEVICE_GET_REGION_INFO(), &mut info) };
    if asked < 0 { vfio_region_info { index, ..vfio_region_info::default() } } else { info }
}

/// How many vectors the function has of a kind.
fn vectors(file: &File, index: u32) -> u32 {
    let mut info =
        vfio_irq_info { argsz: size_of::<vfio_irq_info>() as u32, flags: 0, index, count: 0 };
    // SAFETY: reads and writes `info`.
    let asked = unsafe { ioctl_with_mut_ref(file, VFIO_DEVICE_GET_IRQ_INFO(), &mut info) };
    if asked < 0 { 0 } else { info.count }
}

/// An open PCI function. Dropping it closes it, and then leaves its group.
pub(super) struct Function {
    // Closed before the group.
    file: File,
    regions: Vec<vfio_region_info>,
    vectors: Vec<u32>,
    _group: Group,
}

/// Most vectors of a kind that a function can have (PCI 3.0, 6.8.2: MSI-X).
const VECTORS_MAX: usize = 2048;

/// The argument of `VFIO_DEVICE_SET_IRQS` with eventfds.
#[repr(C)]
struct IrqSet {
    head: [u32; 5],
    events: [RawFd; VECTORS_MAX],
}

impl Function {
    /// A region, `VFIO_PCI_*_REGION_INDEX`; empty if the function has none such.
    fn region(&self, index: u32) -> vfio_region_info {
        self.regions.get(index as usize).copied().unwrap_or_default()
    }

    /// Length of a region in bytes.
    pub(super) fn size(&self, index: u32) -> u64 {
        self.region(index).size
    }

    /// Its `VFIO_REGION_INFO_FLAG_*`.
    pub(super) fn flags(&self, index: u32) -> u32 {
        self.region(index).flags
    }

    /// Where it begins in the function's file, in bytes.
    pub(super) fn offset(&self, index: u32) -> u64 {
        self.region(index).offset
    }

    /// Reads from a region; what cannot be read reads as ones, like a function that is gone.
    pub(super) fn read(&self, index: u32, bytes: &mut [u8], at: u64) {
        let region = self.region(index);
        let fits = at.checked_add(bytes.len() as u64).is_some_and(|end| end <= region.size);
        if !fits || self.file.read_exact_at(bytes, region.offset + at).is_err() {
            bytes.fill(0xff);
        }
    }

    /// Writes to a region; what cannot be written is dropped, as by a function that is gone.
    pub(super) fn write(&self, index: u32, bytes: &[u8], at: u64) {
        let region = self.region(index);
        let fits = at.checked_add(bytes.len() as u64).is_some_and(|end| end <= region.size);
        if let Some(error) =
            fits.then(|| self.file.write_all_at(bytes, region.offset + at).err()).flatten()
        {
            tracing::debug!(region = index, at, %error, "a write to the function was refused");
        }
    }

    /// Reads from its configuration space.
    pub(super) fn read_config(&self, bytes: &mut [u8], at: u64) {
        self.read(VFIO_PCI_CONFIG_REGION_INDEX, bytes, at);
    }

    /// Writes to its configuration space.
    pub(super) fn write_config(&self, bytes: &[u8], at: u64) {
        self.write(VFIO_PCI_CONFIG_REGION_INDEX, bytes, at);
    }

    /// How many vectors it has of the kind `VFIO_PCI_*_IRQ_INDEX`.
    pub(super) fn vectors(&self, index: u32) -> u32 {
        self.vectors.get(index as usize).copied().unwrap_or(0)
    }

    /// Connects the first vectors of a kind to eventfds.
    pub(super) fn connect(&self, index: u32, events: &[&EventFd]) -> Result<(), VfioError> {
        let step = "connecting interrupts";
        if events.len() > VECTORS_MAX.min(self.vectors(index) as usize) {
            return Err(VfioError::Call { step, source: io::ErrorKind::InvalidInput.into() });
        }
        let argsz = size_of::<vfio_irq_set>() + events.len() * size_of::<RawFd>();
        let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        let head = [argsz as u32, flags, index, 0, events.len() as u32];
        let mut set = Box::new(IrqSet { head, events: [-1; VECTORS_MAX] });
        for (to, event) in set.events.iter_mut().zip(events) {
            *to = event.as_raw_fd();
        }
        // SAFETY: reads `argsz` bytes, all within `set`, which is laid out as `vfio_irq_set` is.
        let connected = unsafe { ioctl_with_ref(&self.file, VFIO_DEVICE_SET_IRQS(), &*set) };
        check(connected, step).map(drop)
    }
}

impl AsFd for Function {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_set_is_laid_out_as_the_kernel_reads_it() {
        assert_eq!(size_of::<vfio_irq_set>(), std::mem::offset_of!(IrqSet, events));
        assert_eq!(std::mem::offset_of!(vfio_irq_set, index), 8);
        assert_eq!(std::mem::offset_of!(vfio_irq_set, count), 16);
    }

    #[test]
    fn what_knows_no_request_has_no_registers_and_no_vectors() {
        let null = File::open("/dev/null").unwrap();
        assert_eq!(vectors(&null, 0), 0);
        assert_eq!(region(&null, 0).size, 0);
    }
}
