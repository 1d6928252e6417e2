//! The disk's I/O thread. One request at a time: the host's page cache is what makes it fast.

use std::os::fd::RawFd;
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;

use super::disk::Disk;
use super::request::Request;
use crate::virtio::device::Activation;
use crate::virtio::interrupt::Interrupts;
use crate::virtio::queue::{Chain, DeviceQueue, QueueError, QueuePosition};
use crate::virtio::worker::{Progress, Wake, Worker};

/// Requests served before a call from another thread gets its turn.
const BUDGET: u32 = 16;

/// State of the I/O thread.
pub(super) struct BlockWorker {
    disk: Disk,
    running: Option<Running>,
}

struct Running {
    queue: DeviceQueue,
    request: Request,
    popped: Chain,
    interrupts: Arc<Interrupts>,
}

impl BlockWorker {
    pub(super) fn new(disk: Disk) -> Self {
        Self { disk, running: None }
    }

    fn serve(&mut self) -> Result<Progress, QueueError> {
        let Some(Running { queue, request, popped, .. }) = &mut self.running else {
            return Ok(Progress::Idle);
        };
        queue.suppress_kicks()?;
        for _ in 0..BUDGET {
            if !queue.pop(popped)? {
                if queue.request_kicks()? {
                    continue;
                }
                return Ok(Progress::Idle);
            }
            let written = request.serve(&self.disk, popped)?;
            queue.push_used(&[(popped.head, written)])?;
            // Requests take long compared to an interrupt: each is reported at once.
            queue.signal_used()?;
        }
        Ok(Progress::More)
    }
}

impl Worker for BlockWorker {
    fn sources(&self) -> Vec<(RawFd, EventSet)> {
        Vec::new()
    }

    fn start(&mut self, activation: Activation) {
        let Some(queue) = activation.queues.into_iter().next().flatten() else { return };
        let request = Request::new(activation.memory);
        let interrupts = activation.interrupts;
        self.running = Some(Running { queue, request, popped: Chain::new(), interrupts });
    }

    fn stop(&mut self) -> Vec<QueuePosition> {
        self.running.take().map(|running| running.queue.stand()).into_iter().collect()
    }

    fn run(&mut self, _wake: Wake) -> Progress {
        self.serve().unwrap_or_else(|error| {
            tracing::warn!(%error, "the guest's disk driver broke its queue; the disk stops");
            if let Some(running) = self.running.take() {
                running.interrupts.needs_reset();
            }
            Progress::Idle
        })
    }
}
