//! An entropy source (VIRTIO 1.2, section 5.4): fills the guest's buffers from the host's
//! random generator.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::RawFd;
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;

use super::device::{ActivateError, Activation, DeviceType, VirtioDevice};
use super::interrupt::Interrupts;
use super::iovec::GuestVectors;
use super::queue::{Chain, DeviceQueue, QueueError, QueuePosition};
use super::worker::{CallError, Progress, Wake, Worker, WorkerThread};

const SOURCE: &str = "/dev/urandom";
const QUEUE_SIZE: u16 = 64;

/// Most bytes given for one buffer; the guest asks again for more. Keeps one request short.
const MOST_BYTES: usize = 4096;
/// Requests served per wakeup.
const BUDGET: u32 = 16;

/// The entropy device.
pub struct Rng {
    worker: WorkerThread<RngWorker>,
}

impl Rng {
    /// Opens the host's random generator.
    ///
    /// # Errors
    /// When it cannot be opened, or the host has no thread left.
    pub fn new() -> io::Result<Self> {
        let worker = RngWorker { source: File::open(SOURCE)?, running: None };
        Ok(Self { worker: WorkerThread::spawn("rng", worker)? })
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> DeviceType {
        DeviceType::Rng
    }

    fn identity(&self) -> String {
        "entropy source".to_owned()
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if activation.queues.first().is_none_or(Option::is_none) {
            return Err(ActivateError::QueueDisabled(0));
        }
        Ok(self.worker.activate(activation)?)
    }

    fn reset(&mut self) {
        if let Err(error) = self.worker.deactivate() {
            tracing::error!(%error, "the entropy device's thread did not stop for a reset");
        }
    }

    fn suspend(&mut self) -> Result<Vec<QueuePosition>, CallError> {
        self.worker.deactivate()
    }
}

struct RngWorker {
    source: File,
    running: Option<Running>,
}

struct Running {
    queue: DeviceQueue,
    vectors: GuestVectors,
    popped: Chain,
    interrupts: Arc<Interrupts>,
}

impl RngWorker {
    fn serve(&mut self) -> Result<Progress, QueueError> {
        let Some(Running { queue, vectors, popped, .. }) = &mut self.running else {
            return Ok(Progress::Idle);
        };
        let mut bytes = [0; MOST_BYTES];
        for _ in 0..BUDGET {
            if !queue.pop(popped)? {
                if queue.request_kicks()? {
                    continue;
                }
                queue.signal_used()?;
                return Ok(Progress::Idle);
            }
            let head = popped.head;
            vectors.clear();
            for buffer in popped.buffers.iter().filter(|buffer| buffer.writable) {
                vectors
                    .push(buffer)
                    .map_err(|address| QueueError::OutsideMemory { head, address: address.0 })?;
            }
            let len = vectors.bytes().min(MOST_BYTES as u64) as usize;
            let filled = self.source.read(&mut bytes[..len]).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot read {SOURCE}");
                0
            });
            vectors
                .copy_in(0, &bytes[..filled])
                .map_err(|address| QueueError::OutsideMemory { head, address: address.0 })?;
            queue.push_used(&[(head, filled as u32)])?;
        }
        queue.signal_used()?;
        Ok(Progress::More)
    }
}

impl Worker for RngWorker {
    fn sources(&self) -> Vec<(RawFd, EventSet)> {
        Vec::new()
    }

    fn start(&mut self, activation: Activation) {
        let Some(queue) = activation.queues.into_iter().next().flatten() else { return };
        let vectors = GuestVectors::new(activation.memory);
        let interrupts = activation.interrupts;
        self.running = Some(Running { queue, vectors, popped: Chain::new(), interrupts });
    }

    fn stop(&mut self) -> Vec<QueuePosition> {
        self.running.take().map(|running| running.queue.stand()).into_iter().collect()
    }

    fn run(&mut self, _wake: Wake) -> Progress {
        self.serve().unwrap_or_else(|error| {
            tracing::warn!(%error, "the guest's entropy driver broke its queue; the device stops");
            if let Some(running) = self.running.take() {
                running.interrupts.needs_reset();
            }
            Progress::Idle
        })
    }
}
