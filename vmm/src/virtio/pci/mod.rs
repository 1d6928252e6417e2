//! Virtio over PCI (VIRTIO 1.2, section 4.1), modern interface only. Moves a device through
//! negotiation, activation and reset, and routes BAR accesses. Knows no device class, and of an
//! extension only that it owns a BAR and a capability.

mod common;
mod doorbells;
mod extension;
mod layout;
mod saved;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio_queue::{Queue, QueueT};

pub use extension::{BarSpec, Connection, PciExtension};

use self::common::{Action, CommonConfig};
use self::doorbells::Doorbells;
use self::layout::access;
use super::device::{Activation, VirtioDevice};
use super::interrupt::{Interrupts, STATUS_DRIVER_OK, STATUS_NEEDS_RESET};
use super::queue::DeviceQueue;
use crate::interrupts::IrqError;
use crate::pci::{ConfigSpace, HoldError, MsixCapability, MsixVectors, PciDevice, capability};
use crate::state::{Archive, ArchiveBuilder, StateError};
use crate::vm::DeviceContext;
use crate::vm::GuestRam;

/// Why a function could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No interrupts.
    #[error("cannot give the device its interrupts")]
    Interrupts(#[from] IrqError),
    /// No doorbells.
    #[error("cannot make doorbells")]
    Doorbells(#[source] std::io::Error),
    /// The device asks for queues that virtio does not have.
    #[error("the device's queues are not possible")]
    Queues(#[from] virtio_queue::Error),
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    config: ConfigSpace,
    /// Offset of the configuration access capability.
    access: u16,
    msix: MsixCapability,
    vectors: Arc<MsixVectors>,
    common: CommonConfig,
    interrupts: Arc<Interrupts>,
    doorbells: Doorbells,
    device: Box<dyn VirtioDevice>,
    /// The driver set `DRIVER_OK`, and no reset followed.
    active: bool,
    /// The device's queues were taken back for the time being.
    held: bool,
    extension: Option<Box<dyn PciExtension>>,
    memory: Arc<GuestRam>,
    exits: Arc<AtomicU64>,
}

impl VirtioPci {
    /// Makes a function of `device`. MSI-X vector 0 is for configuration changes, then comes one
    /// for each queue, then `extra_vectors` for the extension.
    ///
    /// # Errors
    /// When the host has no interrupts or descriptors left.
    ///
    /// # Panics
    /// When an extension's BAR or capability collides with the transport's: a mistake in code.
    pub fn new(
        context: &DeviceContext,
        device: Box<dyn VirtioDevice>,
        extra_vectors: u16,
        extension: Option<Box<dyn PciExtension>>,
    ) -> Result<Self, TransportError> {
        let sizes = device.queue_sizes().to_vec();
        assert!(sizes.len() <= layout::MAX_QUEUES, "too many queues");
        let own_vectors = 1 + sizes.len() as u16;
        let count = own_vectors + extra_vectors;
        let vectors = Arc::new(MsixVectors::new(Arc::clone(&context.irq_router), count)?);
        assert!(vectors.table_len() <= u64::from(layout::MSIX_PENDING), "too many vectors");

        let mut config = ConfigSpace::new(layout::header(device.device_type()));
        let access = layout::add_structures(&mut config, sizes.len());
        let msix = MsixCapability::new(
            &mut config,
            Arc::clone(&vectors),
            layout::MSIX_BAR,
            layout::MSIX_TABLE,
            layout::MSIX_PENDING,
        );
        let interrupts = Arc::new(Interrupts::new(vectors.clone(), sizes.len()));
        let extension = extension.map(|mut extension| {
            let bar = extension.bar();
            config.add_bar(bar.index, bar.kind, bar.size);
            let bytes = extension.capability();
            assert_eq!(bytes.first(), Some(&capability::VENDOR), "no vendor capability");
            config.add_capability(capability::VENDOR, &bytes[2..], &[]);
            extension.connected(Connection {
                vectors: Arc::clone(&vectors),
                first_extra: own_vectors,
                extra: extra_vectors,
                interrupts: Arc::clone(&interrupts),
            });
            extension
        });
        Ok(Self {
            config,
            access,
            msix,
            vectors,
            common: CommonConfig::new(device.features(), &sizes, count, interrupts.clone())?,
            interrupts,
            doorbells: Doorbells::new(Arc::clone(&context.io_events), sizes.len())
                .map_err(TransportError::Doorbells)?,
            device,
            active: false,
            held: false,
            extension,
            memory: Arc::new(context.memory.ram().clone()),
            exits: Arc::new(AtomicU64::new(0)),
        })
    }

    /// Counts accesses of the guest to this function that reached the VMM.
    pub fn exits(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.exits)
    }

    /// The device's interrupts.
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    #[cfg(test)]
    pub(crate) fn vectors(&self) -> &MsixVectors {
        &self.vectors
    }

    fn write_common(&mut self, offset: u64, data: &[u8]) {
        match self.common.write(offset, data) {
            Action::None => return,
            Action::Reset => return self.reset_device(),
            Action::Activate => self.activate(),
            Action::Status => {}
        }
        let status = self.interrupts.status();
        if let Some(extension) = &mut self.extension {
            extension.device_status_changed(status);
        }
    }

    fn activate(&mut self) {
        let device = self.device.device_type();
        let queues = match self.device_queues() {
            Ok(queues) => queues,
            Err(queue) => {
                tracing::warn!(?device, queue, "the driver put a queue outside guest memory");
                return self.interrupts.needs_reset();
            }
        };
        let kicks = match self.doorbells.kicks() {
            Ok(kicks) => kicks,
            Err(error) => {
                tracing::error!(?device, %error, "no descriptors left for doorbells");
                return self.interrupts.needs_reset();
            }
        };
        let activation = Activation {
            features: self.common.features(),
            memory: Arc::clone(&self.memory),
            queues,
            kicks,
            interrupts: Arc::clone(&self.interrupts),
        };
        self.active = true;
        match self.device.activate(activation) {
            Ok(()) => tracing::debug!(?device, "the driver is ready"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(?device, error, "the device could not start");
                self.interrupts.needs_reset();
            }
        }
    }

    /// The queues for the device; fails with the number of a queue that is not in RAM.
    fn device_queues(&self) -> Result<Vec<Option<DeviceQueue>>, u16> {
        let make = |(index, queue): (u16, &Queue)| {
            if !queue.ready() {
                return Ok(None);
            }
            if !queue.is_valid(&*self.memory) {
                return Err(index);
            }
            // The state of a valid queue is valid.
            let queue = Queue::try_from(queue.state()).map_err(|_| index)?;
            let memory = Arc::clone(&self.memory);
            Ok(Some(DeviceQueue::new(index, queue, memory, Arc::clone(&self.interrupts))))
        };
        (0..).zip(self.common.queues()).map(make).collect()
    }

    fn reset_device(&mut self) {
        if std::mem::take(&mut self.active) && !std::mem::take(&mut self.held) {
            self.device.reset();
        }
        self.interrupts.reset();
        self.common.reset();
        if let Some(extension) = &mut self.extension {
            extension.reset();
        }
    }

    fn read_structures(&mut self, offset: u64, data: &mut [u8]) {
        match offset & !0xfff {
            layout::COMMON => self.common.read(offset, data),
            layout::ISR => {
                data.fill(0);
                if offset == layout::ISR {
                    data[0] = self.interrupts.take_isr();
                }
            }
            layout::DEVICE => self.device.read_config(offset - layout::DEVICE, data),
            // Doorbells are write-only.
            _ => data.fill(0),
        }
    }

    fn write_structures(&mut self, offset: u64, data: &[u8]) {
        match offset & !0xfff {
            layout::COMMON => self.write_common(offset, data),
            layout::DEVICE => self.device.write_config(offset - layout::DEVICE, data),
            layout::NOTIFY => self.doorbells.ring(offset - layout::NOTIFY),
            _ => {}
        }
    }

    fn read_msix(&self, offset: u64, data: &mut [u8]) {
        match offset.checked_sub(u64::from(layout::MSIX_PENDING)) {
            Some(offset) => self.vectors.pba_read(offset, data),
            None => self.vectors.table_read(offset, data),
        }
    }

    fn is_extension_bar(&self, bar: u8) -> bool {
        self.extension.as_ref().is_some_and(|extension| extension.bar().index == bar)
    }

    /// BAR, offset and length that the guest chose in the configuration access capability, when
    /// they make an access that exists.
    fn access_window(&self) -> Option<(u8, u64, usize)> {
        let bar = self.config.u8(self.access + access::BAR);
        let offset = u64::from(self.config.u32(self.access + access::OFFSET));
        let len = self.config.u32(self.access + access::LENGTH) as usize;
        let size = self.config.bars().iter().find(|known| known.index == bar)?.size;
        let fits = matches!(len, 1 | 2 | 4)
            && offset.is_multiple_of(len as u64)
            && offset + len as u64 <= size;
        fits.then_some((bar, offset, len))
    }

    /// Whether an access of `len` bytes at `offset` touches the capability's data.
    fn touches_access_data(&self, offset: u16, len: usize) -> bool {
        let data = usize::from(self.access + access::DATA);
        let offset = usize::from(offset);
        offset < data + 4 && data < offset + len
    }
}

impl PciDevice for VirtioPci {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, offset: u16, len: usize) {
        self.msix.config_written(&self.config, offset, len);
        if self.touches_access_data(offset, len)
            && let Some((bar, at, len)) = self.access_window()
        {
            let data = self.config.u32(self.access + access::DATA).to_le_bytes();
            self.bar_write(bar, at, &data[..len]);
        }
    }

    fn config_read_hook(&mut self, offset: u16, len: usize) {
        if self.touches_access_data(offset, len)
            && let Some((bar, at, len)) = self.access_window()
        {
            let mut data = [0; 4];
            self.bar_read(bar, at, &mut data[..len]);
            self.config.set(self.access + access::DATA, &data);
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.exits.fetch_add(1, Ordering::Relaxed);
        match (bar, &mut self.extension) {
            (layout::STRUCTURES_BAR, _) => self.read_structures(offset, data),
            (layout::MSIX_BAR, _) => self.read_msix(offset, data),
            (bar, Some(extension)) if extension.bar().index == bar => {
                extension.bar_read(offset, data);
            }
            _ => data.fill(0xff),
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.exits.fetch_add(1, Ordering::Relaxed);
        match (bar, &mut self.extension) {
            (layout::STRUCTURES_BAR, _) => self.write_structures(offset, data),
            (layout::MSIX_BAR, _) => self.vectors.table_write(offset, data),
            (bar, Some(extension)) if extension.bar().index == bar => {
                extension.bar_write(offset, data);
            }
            _ => {}
        }
    }

    fn bar_placed(&mut self, bar: u8, base: Option<u64>) {
        if bar == layout::STRUCTURES_BAR {
            self.doorbells.place(base);
        } else if self.is_extension_bar(bar)
            && let Some(extension) = &mut self.extension
        {
            extension.bar_placed(base);
        }
    }

    fn identity(&self) -> String {
        let device = self.device.identity();
        match &self.extension {
            Some(extension) => format!("{device}, {}", extension.identity()),
            None => device,
        }
    }

    fn suspend(&mut self) -> Result<(), HoldError> {
        if self.active && !self.held {
            let positions = self.device.suspend()?;
            self.common.set_positions(&positions);
            self.held = true;
        }
        Ok(())
    }

    fn resume(&mut self) {
        let restartable = self.interrupts.status() & STATUS_NEEDS_RESET == 0;
        if std::mem::take(&mut self.held) && restartable {
            self.activate();
        }
    }

    fn save(&self, slot: &str, state: &mut ArchiveBuilder) -> Result<(), StateError> {
        self.common.save(self.device.device_type(), slot, state)?;
        self.vectors.save(slot, state)?;
        match &self.extension {
            Some(extension) => extension.save(slot, state),
            None => Ok(()),
        }
    }

    fn restore(&mut self, slot: &str, state: &mut Archive) -> Result<(), StateError> {
        self.common.restore(self.device.device_type(), slot, state)?;
        self.vectors.restore(slot, state)?;
        self.msix.follow(&self.config);
        if let Some(extension) = &mut self.extension {
            extension.restore(slot, state)?;
        }
        self.active = self.interrupts.status() & STATUS_DRIVER_OK != 0;
        self.held = self.active;
        self.interrupts.raise_all();
        Ok(())
    }

    fn reset(&mut self) {
        self.reset_device();
        self.vectors.reset();
    }
}
