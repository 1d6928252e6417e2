//! The transport's state in an archive: what negotiation and queue setup led to, and where the
//! device stands in its queues.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};

use super::common::CommonConfig;
use crate::state::{Archive, ArchiveBuilder, Payload, StateError};
use crate::virtio::device::DeviceType;
use crate::virtio::interrupt::{InterruptState, NO_VECTOR};
use crate::virtio::queue::QueuePosition;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VirtioState {
    device_type: u16,
    driver_features: u64,
    /// `device_feature_select`, `driver_feature_select`, `queue_select`.
    selects: (u32, u32, u16),
    interrupts: InterruptState,
    queues: Vec<SavedQueue>,
}

/// One queue as its driver set it up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedQueue {
    size: u16,
    ready: bool,
    event_idx: bool,
    desc_table: u64,
    avail_ring: u64,
    used_ring: u64,
    position: QueuePosition,
}

impl Payload for VirtioState {
    const KIND: &'static str = "virtio";
    const VERSION: u16 = 1;
}

impl SavedQueue {
    fn of(queue: &Queue) -> Self {
        let state = queue.state();
        Self {
            size: state.size,
            ready: state.ready,
            event_idx: state.event_idx_enabled,
            desc_table: state.desc_table,
            avail_ring: state.avail_ring,
            used_ring: state.used_ring,
            position: QueuePosition { next_avail: state.next_avail, next_used: state.next_used },
        }
    }

    /// The queue, when it is possible with at most `max_size` entries. Whether it lies in RAM is
    /// found out when it is used, as for any driver.
    fn queue(&self, max_size: u16) -> Result<Queue, virtio_queue::Error> {
        Queue::try_from(QueueState {
            max_size,
            next_avail: self.position.next_avail,
            next_used: self.position.next_used,
            event_idx_enabled: self.event_idx,
            size: self.size,
            ready: self.ready,
            desc_table: self.desc_table,
            avail_ring: self.avail_ring,
            used_ring: self.used_ring,
        })
    }
}

impl CommonConfig {
    /// Notes where the device stands in its queues; nothing when it does not know.
    pub(super) fn set_positions(&mut self, positions: &[QueuePosition]) {
        for (queue, position) in self.queues.iter_mut().zip(positions) {
            queue.set_next_avail(position.next_avail);
            queue.set_next_used(position.next_used);
        }
    }

    pub(super) fn save(
        &self,
        device: DeviceType,
        slot: &str,
        state: &mut ArchiveBuilder,
    ) -> Result<(), StateError> {
        let saved = VirtioState {
            device_type: device as u16,
            driver_features: self.driver_features,
            selects: (self.device_select, self.driver_select, self.queue_select),
            interrupts: self.interrupts.state(),
            queues: self.queues.iter().map(SavedQueue::of).collect(),
        };
        state.put(slot, &saved)
    }

    pub(super) fn restore(
        &mut self,
        device: DeviceType,
        slot: &str,
        state: &mut Archive,
    ) -> Result<(), StateError> {
        let saved: VirtioState = state.take(slot)?;
        let refuse = |reason: &str| Err(StateError::unsuitable::<VirtioState>(slot, reason));
        if saved.device_type != device as u16 {
            return refuse("it is another type of device");
        }
        if saved.driver_features & !self.device_features != 0 {
            return refuse("its driver uses features that are not offered here");
        }
        let known = |vector: &u16| *vector < self.vectors || *vector == NO_VECTOR;
        let interrupts = &saved.interrupts;
        if saved.queues.len() != self.queues.len()
            || interrupts.queue_vectors.len() != self.queues.len()
            || !interrupts.queue_vectors.iter().chain([&interrupts.config_vector]).all(known)
        {
            return refuse("it has another number of queues or interrupt vectors");
        }
        let queues = self.queues.iter().zip(&saved.queues);
        let queues: Result<Vec<_>, _> =
            queues.map(|(queue, saved)| saved.queue(queue.max_size())).collect();
        let Ok(queues) = queues else { return refuse("one of its queues is not possible") };
        self.queues = queues;
        self.driver_features = saved.driver_features;
        (self.device_select, self.driver_select, self.queue_select) = saved.selects;
        self.interrupts.set_state(interrupts);
        Ok(())
    }
}
