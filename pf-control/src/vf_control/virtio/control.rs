//! The control side: reset, negotiation, queues, and the gate.

use std::thread;
use std::time::{Duration, Instant};

use virtio_net_plugin::{
    FEATURES, QueueLayout, VIRTIO_F_VERSION_1, VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6, VirtioInfo,
};

use super::capabilities::Layout;
use super::registers::*;
use crate::ops::{MacAddr, limits};
use crate::vf_control::{
    ControlRegion, Offloads, QueueMemory, VfConfig, VfControl, VfControlError, VfEvent, VfIdentity,
    VfStats,
};

/// Bound of a reset, and the pause between two looks.
const RESET: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_micros(100);
/// One receive and one transmit queue.
const QUEUES: u16 = 2;
/// Doorbell offsets that the plugin can be told.
const INFO_QUEUES: usize = npa_abi::shell_page::QUEUES_MAX;

/// A virtio network function.
pub struct VirtioNet<R> {
    region: R,
    layout: Option<Layout>,
    features: u64,
    /// Offsets of the doorbells in their BAR.
    doorbells: [u32; QUEUES as usize],
    /// Most entries of each.
    sizes: [u16; QUEUES as usize],
}

impl<R: ControlRegion> VirtioNet<R> {
    /// The function behind `region`, which is not touched yet.
    pub fn new(region: R) -> Self {
        let (doorbells, sizes) = ([0; QUEUES as usize], [0; QUEUES as usize]);
        Self { region, layout: None, features: 0, doorbells, sizes }
    }

    fn common(&self, register: u32) -> u32 {
        self.layout.map_or(0, |layout| layout.common.offset) + register
    }

    fn status(&self) -> u8 {
        self.region.read8(self.common(DEVICE_STATUS))
    }

    fn add_status(&self, bits: u8) {
        self.region.write8(self.common(DEVICE_STATUS), self.status() | bits);
    }

    /// Stops all DMA and forgets queues and features (2.4).
    fn reset(&self) -> Result<(), VfControlError> {
        self.region.write8(self.common(DEVICE_STATUS), 0);
        let deadline = Instant::now() + RESET;
        loop {
            match self.status() {
                0 => return Ok(()),
                // No function sets all bits.
                0xff => return Err(VfControlError::Gone),
                _ if Instant::now() >= deadline => {
                    return Err(VfControlError::TimedOut { step: "the reset", after: RESET });
                }
                _ => thread::sleep(POLL),
            }
        }
    }

    fn negotiate(&mut self) -> Result<(), VfControlError> {
        let half = |select: u32| {
            self.region.write32(self.common(DEVICE_FEATURE_SELECT), select);
            u64::from(self.region.read32(self.common(DEVICE_FEATURE)))
        };
        let offered = half(0) | half(1) << 32;
        let config = |reason: &str| VfControlError::Config(reason.to_owned());
        if offered & VIRTIO_F_VERSION_1 == 0 {
            return Err(config("it is a legacy function"));
        }
        if offered & ACCESS_PLATFORM == 0 {
            return Err(config("it bypasses the IOMMU (no VIRTIO_F_ACCESS_PLATFORM)"));
        }
        let own = ACCESS_PLATFORM | ORDER_PLATFORM | NET_MAC | NET_STATUS;
        let features = offered & (FEATURES | own);
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.region.write32(self.common(DRIVER_FEATURE_SELECT), select);
            self.region.write32(self.common(DRIVER_FEATURE), half);
        }
        self.add_status(FEATURES_OK);
        if self.status() & FEATURES_OK == 0 {
            return Err(VfControlError::Refused { message: "the features" });
        }
        self.features = features;
        Ok(())
    }

    /// Finds out what the queues are like. Doorbells must be inside their page range.
    fn find_queues(&mut self, layout: &Layout) -> Result<(), VfControlError> {
        for queue in 0..QUEUES {
            self.region.write16(self.common(QUEUE_SELECT), queue);
            let size = self.region.read16(self.common(QUEUE_SIZE));
            self.sizes[usize::from(queue)] = size;
            if size == 0 {
                return Err(VfControlError::Config(format!("it has no queue {queue}")));
            }
            let steps = u32::from(self.region.read16(self.common(QUEUE_NOTIFY_OFF)));
            let offset = steps.checked_mul(layout.multiplier).filter(|offset| {
                offset.checked_add(2).is_some_and(|end| end <= layout.notify.length)
            });
            let Some(offset) = offset else {
                let reason = format!("the doorbell of queue {queue} is outside its notify region");
                return Err(VfControlError::Config(reason));
            };
            self.doorbells[usize::from(queue)] = layout.notify.offset + offset;
        }
        Ok(())
    }

    fn set_up(&self, queue: u16, memory: &QueueMemory) -> Result<(), VfControlError> {
        let config = |reason: String| Err(VfControlError::Config(reason));
        self.region.write16(self.common(QUEUE_SELECT), queue);
        let most = self.region.read16(self.common(QUEUE_SIZE));
        if memory.entries > most.into() {
            let entries = memory.entries;
            return config(format!("queue {queue} has {most} entries at most, not {entries}"));
        }
        self.region.write16(self.common(QUEUE_SIZE), memory.entries as u16);
        self.region.write16(self.common(QUEUE_VECTOR), queue);
        if self.region.read16(self.common(QUEUE_VECTOR)) != queue {
            return config(format!("queue {queue} gets no interrupt vector"));
        }
        let layout = QueueLayout::new(memory.entries);
        for (register, offset) in [
            (QUEUE_DESC, layout.descriptors),
            (QUEUE_DRIVER, layout.driver),
            (QUEUE_DEVICE, layout.device),
        ] {
            let address = memory.base.wrapping_add(offset);
            self.region.write32(self.common(register), address as u32);
            self.region.write32(self.common(register + 4), (address >> 32) as u32);
        }
        self.region.write16(self.common(QUEUE_ENABLE), 1);
        Ok(())
    }
}

impl<R: ControlRegion + Send> VfControl for VirtioNet<R> {
    fn init(&mut self, _: &VfConfig) -> Result<VfIdentity, VfControlError> {
        let layout = Layout::read(|at, bytes| self.region.read_config(at, bytes))
            .map_err(|error| VfControlError::Config(error.to_string()))?;
        self.layout = Some(layout);
        self.reset()?;
        self.add_status(ACKNOWLEDGE);
        self.add_status(DRIVER);
        self.negotiate()?;
        self.region.write16(self.common(CONFIG_VECTOR), NO_VECTOR);
        self.find_queues(&layout)?;
        let mut mac = [0; 6];
        for (offset, byte) in (MAC..).zip(&mut mac) {
            *byte = self.region.read8(layout.device.offset + offset);
        }
        Ok(VfIdentity { mac: (self.features & NET_MAC != 0).then_some(MacAddr(mac)) })
    }

    fn describe(&self, words: &mut [u32; limits::DEVICE_INFO_WORDS]) {
        // The window begins with the first page of the doorbells.
        let start = self.layout.map_or(0, |layout| layout.notify.offset) & !0xfff;
        let mut offsets = [0; INFO_QUEUES];
        for (offset, doorbell) in offsets.iter_mut().zip(self.doorbells) {
            *offset = doorbell - start;
        }
        VirtioInfo::new(self.features, offsets).write(words);
    }

    fn ring_limits(&self) -> [u16; 2] {
        self.sizes
    }

    fn offloads(&self) -> Offloads {
        let has = |feature| self.features & feature != 0;
        let checksum = has(VIRTIO_NET_F_CSUM);
        Offloads {
            checksum,
            tso4: checksum && has(VIRTIO_NET_F_HOST_TSO4),
            tso6: checksum && has(VIRTIO_NET_F_HOST_TSO6),
        }
    }

    fn start(&mut self, queues: &[QueueMemory]) -> Result<(), VfControlError> {
        if queues.len() != usize::from(QUEUES) {
            return Err(VfControlError::Config(format!("{} queues, not {QUEUES}", queues.len())));
        }
        for (queue, memory) in (0..).zip(queues) {
            self.set_up(queue, memory)?;
        }
        Ok(())
    }

    fn admit(&mut self) -> Result<(), VfControlError> {
        self.add_status(DRIVER_OK);
        match self.status() {
            0xff => Err(VfControlError::Gone),
            status if status & DRIVER_OK == 0 || status & NEEDS_RESET != 0 => {
                Err(VfControlError::Refused { message: "its queues" })
            }
            _ => {
                // What was put into the rings before could not be announced (3.1.1).
                for (queue, doorbell) in (0..).zip(self.doorbells) {
                    self.region.write16(doorbell, queue);
                }
                Ok(())
            }
        }
    }

    fn dismiss(&mut self) -> Result<(), VfControlError> {
        self.reset()
    }

    /// Nothing of it is set without a control queue: the function takes every group.
    fn reconfigure(&mut self, _: &VfConfig) -> Result<(), VfControlError> {
        Ok(())
    }

    fn force_quiesce(&mut self) {
        self.region.write8(self.common(DEVICE_STATUS), 0);
    }

    fn poll_event(&mut self) -> Option<VfEvent> {
        None
    }

    fn rearm(&mut self) {}

    fn link_up(&self) -> bool {
        let Some(layout) = self.layout else { return false };
        self.features & NET_STATUS == 0
            || self.region.read16(layout.device.offset + STATUS) & LINK_UP != 0
    }

    /// Such a function has no counters.
    fn stats(&self) -> VfStats {
        VfStats::default()
    }
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
