//! A network card (VIRTIO 1.2, section 5.1): one queue pair over a carrier of frames, with
//! checksum and segmentation offloads handed through, and a control queue. Frames go between carrier and guest memory
//! without a copy in this process. Filters nothing: what the carrier delivers, the guest gets.

mod backend;
mod config;
mod control;
mod header;
mod intake;
mod receive;
mod tap;
#[cfg(test)]
pub(super) mod tests;
mod transmit;
mod worker;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pf_control::vf_control::Offloads;

pub use backend::{FrameBackend, ReceiveOffloads};
pub use config::{MacAddress, MacError};
pub use header::HEADER_LEN;
pub use tap::Tap;

use self::config::NetConfig;
use self::worker::NetWorker;
use super::arrivals::{Arrival, Arrivals, Intake};
use super::device::{ActivateError, Activation, DeviceType, VirtioDevice};
use super::interrupt::Interrupts;
use super::path::{
    DrainError, Drained, EmulatedPath, LiveCounters, PathCounters, PathError, PathMode,
};
use super::queue::QueuePosition;
use super::worker::{CallError, WorkerThread};

/// Entries of each queue for frames.
pub const QUEUE_SIZE: u16 = 1024;

/// How long a control call waits for the I/O thread, whose work per wakeup takes well under a
/// millisecond per hundred frames.
const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// The network card.
pub struct Net<B: FrameBackend> {
    handle: NetHandle<B>,
}

/// A handle on a network card for other threads: its emulated path and its link.
pub struct NetHandle<B: FrameBackend> {
    id: Arc<str>,
    worker: Arc<WorkerThread<NetWorker<B>>>,
    shared: Arc<Shared>,
}

impl<B: FrameBackend> Clone for NetHandle<B> {
    fn clone(&self) -> Self {
        Self {
            id: Arc::clone(&self.id),
            worker: Arc::clone(&self.worker),
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared {
    config: Mutex<NetConfig>,
    mode: AtomicU8,
    counters: Arc<LiveCounters>,
    drains: AtomicU64,
    /// What the card does for frames that are sent.
    offloads: OnceLock<Offloads>,
    /// Known from the first driver run on.
    interrupts: Mutex<Option<Arc<Interrupts>>>,
}

impl<B: FrameBackend> Net<B> {
    /// A network card `id` with address `mac` and maximum payload `mtu` (bytes, 68 to 65535) over
    /// `backend`. Its link is up.
    ///
    /// # Errors
    /// When the host has no thread or descriptors left.
    pub fn new(id: &str, backend: B, mac: MacAddress, mtu: u16) -> std::io::Result<Self> {
        let counters = Arc::new(LiveCounters::default());
        let config = NetConfig { mac, link_up: true, announce: false, queue_pairs: 1, mtu };
        let shared = Arc::new(Shared {
            config: Mutex::new(config),
            mode: AtomicU8::new(PathMode::Serving as u8),
            counters: Arc::clone(&counters),
            drains: AtomicU64::new(0),
            offloads: OnceLock::new(),
            interrupts: Mutex::new(None),
        });
        let worker = NetWorker::new(backend, mtu, counters, Arc::clone(&shared));
        let worker = Arc::new(WorkerThread::spawn(&format!("net-{id}"), worker)?);
        Ok(Self { handle: NetHandle { id: id.into(), worker, shared } })
    }

    /// The card leaves checksums and segmentation of frames that are sent to the guest, so that its
    /// frames can be carried by devices that do neither.
    #[must_use]
    pub fn without_offloads(self) -> Self {
        // Nobody has asked before the card is there.
        let _ = self.handle.shared.offloads.set(Offloads::default());
        self
    }

    /// A handle for other threads.
    pub fn handle(&self) -> NetHandle<B> {
        self.handle.clone()
    }
}

impl<B: FrameBackend> NetHandle<B> {
    /// The card's address.
    pub fn mac(&self) -> MacAddress {
        self.shared.config().mac
    }

    /// Sets the link state that the guest sees and tells the guest.
    pub fn set_link_up(&self, up: bool) {
        self.shared.change(|config| config.link_up = up);
    }
}

impl Shared {
    /// Changes the configuration space and tells the driver.
    fn change(&self, change: impl FnOnce(&mut NetConfig)) {
        change(&mut self.config());
        if let Some(interrupts) = &*self.interrupts() {
            interrupts.config_changed();
        }
    }

    // A panic while one of these is held leaves plain data, valid as it is.
    fn config(&self) -> std::sync::MutexGuard<'_, NetConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupts(&self) -> std::sync::MutexGuard<'_, Option<Arc<Interrupts>>> {
        self.interrupts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: FrameBackend> VirtioDevice for Net<B> {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }

    fn identity(&self) -> String {
        let config = self.handle.shared.config();
        let offloads = match self.handle.offers() {
            Offloads::ALL => "",
            _ => ", without offloads",
        };
        format!("network card {}, MTU {}{offloads}", config.mac, config.mtu)
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, control::QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        match self.handle.offers() {
            Offloads::ALL => config::FEATURES,
            _ => config::FEATURES & !config::SEND_OFFLOADS,
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.handle.shared.config().bytes();
        super::device::read_bytes(&bytes, offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let needed = if config::controls(activation.features) { 3 } else { 2 };
        if let Some(index) = activation.queues.iter().take(needed).position(Option::is_none) {
            return Err(ActivateError::QueueDisabled(index as u16));
        }
        *self.handle.shared.interrupts() = Some(Arc::clone(&activation.interrupts));
        Ok(self.handle.worker.activate(activation)?)
    }

    fn reset(&mut self) {
        if let Err(error) = self.handle.worker.deactivate() {
            tracing::error!(%error, "the network card's thread did not stop for a reset");
        }
        // A new driver reads the configuration anyway.
        self.handle.shared.config().announce = false;
    }

    fn suspend(&mut self) -> Result<Vec<QueuePosition>, CallError> {
        self.handle.worker.deactivate()
    }
}

impl<B: FrameBackend> Arrivals for NetHandle<B> {
    fn id(&self) -> &str {
        &self.id
    }

    fn set_intake(&self, intake: Intake) -> Result<(), CallError> {
        self.worker.call(CALL_DEADLINE, move |worker| worker.set_intake(intake))
    }

    fn collect(&self) -> Result<Vec<Arrival>, CallError> {
        self.worker.call(CALL_DEADLINE, NetWorker::collect)
    }

    fn deliver(&self, arrivals: Vec<Arrival>) -> Result<(), CallError> {
        self.worker.call(CALL_DEADLINE, move |worker| worker.deliver(arrivals))
    }

    fn put_back(&self, arrivals: Vec<Arrival>) -> Result<(), CallError> {
        self.worker.call(CALL_DEADLINE, move |worker| worker.put_back(arrivals))
    }

    fn undelivered(&self) -> Result<usize, CallError> {
        self.worker.call(CALL_DEADLINE, |worker| worker.undelivered())
    }

    fn lost(&self) -> Result<Option<u64>, CallError> {
        self.worker.call(CALL_DEADLINE, |worker| worker.lost())
    }

    fn open_after(&self, late: Vec<Arrival>, seen: Vec<Arrival>) -> Result<(), CallError> {
        self.worker.call(CALL_DEADLINE, move |worker| worker.open_after(late, &seen))
    }

    fn announce(&self) -> Result<(), CallError> {
        let mac = self.mac();
        self.worker.call(CALL_DEADLINE, move |worker| worker.announce(mac))
    }
}

impl<B: FrameBackend> EmulatedPath for NetHandle<B> {
    fn offers(&self) -> Offloads {
        *self.shared.offloads.get_or_init(|| Offloads::ALL)
    }

    fn mode(&self) -> PathMode {
        match self.shared.mode.load(Ordering::Acquire) {
            mode if mode == PathMode::Standby as u8 => PathMode::Standby,
            _ => PathMode::Serving,
        }
    }

    fn set_mode(&self, mode: PathMode) -> Result<(), PathError> {
        self.worker.call(CALL_DEADLINE, move |worker| worker.set_mode(mode))?;
        self.shared.mode.store(mode as u8, Ordering::Release);
        Ok(())
    }

    fn drain(&self, deadline: Duration) -> Result<Drained, DrainError> {
        let started = Instant::now();
        let id = self.shared.drains.fetch_add(1, Ordering::Relaxed);
        let (reply, done) = sync_channel(1);
        self.worker.call(deadline, move |worker| worker.begin_drain(id, reply))?;
        match done.recv_timeout(deadline.saturating_sub(started.elapsed())) {
            Ok(drained) => Ok(drained),
            // The driver was reset meanwhile: nothing is left to move.
            Err(RecvTimeoutError::Disconnected) => Ok(Drained::default()),
            Err(RecvTimeoutError::Timeout) => {
                let remains =
                    self.worker.call(CALL_DEADLINE, move |worker| worker.abandon_drain(id))?;
                match remains {
                    Some(left) => Err(DrainError::Deadline {
                        unsent: left.unsent,
                        undelivered: left.undelivered,
                        moved: left.moved,
                    }),
                    None => done.try_recv().map_err(|_| CallError::Deadline.into()),
                }
            }
        }
    }

    fn counters(&self) -> PathCounters {
        let raised = self.shared.interrupts().as_ref().map_or(0, |interrupts| interrupts.raised());
        self.shared.counters.snapshot(raised)
    }
}
