//! The NIC's I/O thread: both queues of the pair, the control queue, the path mode, and drains in
//! progress.

use std::num::Wrapping;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::epoll::EventSet;

use super::Shared;
use super::backend::FrameBackend;
use super::config::{self, MacAddress};
use super::control::{Command, ControlQueue, Verdict};
use super::header::{HEADER_LEN, LONGEST};
use super::intake::{self, Copies, Pending, Stragglers};
use super::receive::{ReceiveQueue, Received};
use super::transmit::{Sent, TransmitQueue};
use crate::virtio::arrivals::{Arrival, Intake};
use crate::virtio::device::Activation;
use crate::virtio::interrupt::Interrupts;
use crate::virtio::path::{Drained, LiveCounters, PathMode};
use crate::virtio::queue::{QueueError, QueuePosition};
use crate::virtio::worker::{Progress, Wake, Worker};

/// Number of the transmit queue; the receive queue is 0.
const TRANSMIT: usize = 1;
/// Number of the control queue.
const CONTROL: usize = 2;

/// State of the I/O thread.
pub(super) struct NetWorker<B> {
    backend: B,
    mtu: u16,
    counters: Arc<LiveCounters>,
    shared: Arc<Shared>,
    mode: PathMode,
    running: Option<Running>,
    pending: Pending,
    /// Frames that `pending` had no room for.
    overflown: u64,
    /// Copies of handed-over frames that may still come.
    stragglers: Option<Stragglers>,
    drains: Vec<Drain>,
}

/// What exists while the guest's driver runs.
struct Running {
    receive: ReceiveQueue,
    transmit: TransmitQueue,
    /// If the driver uses it.
    control: Option<ControlQueue>,
    /// The driver announces itself when asked.
    announces: bool,
    /// The backend took no more frames; it says when it does.
    backend_full: bool,
    interrupts: Arc<Interrupts>,
}

/// A drain in progress.
struct Drain {
    id: u64,
    /// Ring position that sending must reach.
    send_until: Wrapping<u16>,
    /// Frames taken, kept ones and then the backend's, at which receiving is done even if more keep
    /// coming.
    receive_until: u64,
    /// The backend was seen empty since the drain began.
    seen_empty: bool,
    received_before: u64,
    sent_before: u64,
    reply: SyncSender<Drained>,
}

/// What a drain that is given up had not moved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remains {
    pub(super) unsent: u32,
    pub(super) undelivered: bool,
    pub(super) moved: Drained,
}

impl<B: FrameBackend> NetWorker<B> {
    pub(super) fn new(
        backend: B,
        mtu: u16,
        counters: Arc<LiveCounters>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            backend,
            mtu,
            counters,
            shared,
            mode: PathMode::Serving,
            running: None,
            pending: Pending::new(),
            overflown: 0,
            stragglers: None,
            drains: Vec::new(),
        }
    }

    pub(super) fn set_mode(&mut self, mode: PathMode) {
        self.mode = mode;
    }

    pub(super) fn set_intake(&mut self, intake: Intake) {
        self.pending.intake = intake;
        if intake == Intake::Discard {
            self.discard();
        }
    }

    fn discard(&mut self) {
        let discarded = intake::discard_all(&self.backend);
        tracing::trace!(discarded, "frames for a VM that is elsewhere");
    }

    fn keep(&mut self) {
        let arrivals = intake::read_all(&self.backend);
        self.deliver(arrivals);
    }

    /// What has arrived and was not delivered.
    pub(super) fn collect(&mut self) -> Vec<Arrival> {
        let mut arrivals = self.pending.take();
        arrivals.extend(intake::read_all(&self.backend));
        arrivals
    }

    pub(super) fn deliver(&mut self, arrivals: Vec<Arrival>) {
        let lost = self.pending.append(arrivals);
        self.overflown += lost;
        LiveCounters::add(&self.counters.received_dropped, lost);
    }

    pub(super) fn put_back(&mut self, arrivals: Vec<Arrival>) {
        let since = self.pending.take();
        self.deliver(arrivals);
        self.deliver(since);
    }

    pub(super) fn lost(&self) -> Option<u64> {
        Some(self.backend.dropped()? + self.overflown)
    }

    pub(super) fn undelivered(&mut self) -> usize {
        self.pending.len()
    }

    pub(super) fn open_after(&mut self, late: Vec<Arrival>, seen: &[Arrival]) {
        let mut copies = Copies::of(late.iter().chain(seen));
        let held = copies.strip(intake::read_all(&self.backend));
        self.stragglers = copies.stragglers(&late, Instant::now());
        self.deliver(late);
        self.deliver(held);
        self.pending.intake = Intake::Open;
    }

    /// For a moment after the intake was opened: takes what has arrived, less copies of what the
    /// source has handed over.
    fn drop_stragglers(&mut self) {
        if self.pending.intake == Intake::Open
            && let Some(mut stragglers) = self.stragglers.take()
        {
            let arrived = stragglers.strip(intake::read_all(&self.backend));
            self.deliver(arrived);
            self.stragglers = Some(stragglers).filter(|some| !some.are_over(Instant::now()));
        }
    }

    pub(super) fn announce(&mut self, mac: MacAddress) {
        if let Err(error) = intake::announce(&self.backend, mac) {
            tracing::warn!(%error, %mac, "the network was not told where the card is now");
        }
        match &self.running {
            Some(running) if running.announces => {
                self.shared.change(|config| config.announce = true);
            }
            Some(_) => {}
            // Its driver is held: it is asked when it goes on.
            None => self.shared.config().announce = true,
        }
    }

    /// Begins a drain, which answers through `reply` when it is complete.
    pub(super) fn begin_drain(&mut self, id: u64, reply: SyncSender<Drained>) {
        let Some(running) = &self.running else {
            let _ = reply.send(Drained::default());
            return;
        };
        let (position, backlog) = match running.transmit.backlog() {
            Ok(backlog) => backlog,
            Err(error) => return self.fail(&error),
        };
        self.drains.push(Drain {
            id,
            send_until: position + Wrapping(backlog),
            receive_until: running.receive.frames_read()
                + self.pending.len() as u64
                + u64::from(self.backend.capacity()),
            seen_empty: false,
            received_before: running.receive.frames_read(),
            sent_before: self.counters.snapshot(0).sent,
            reply,
        });
    }

    /// Gives up a drain and says what it had not moved; `None` when it was complete after all.
    pub(super) fn abandon_drain(&mut self, id: u64) -> Option<Remains> {
        let index = self.drains.iter().position(|drain| drain.id == id)?;
        let drain = self.drains.swap_remove(index);
        let running = self.running.as_ref()?;
        let unsent = (drain.send_until - running.transmit.position()).0;
        Some(Remains {
            unsent: if is_before(running.transmit.position(), drain.send_until) {
                u32::from(unsent)
            } else {
                0
            },
            undelivered: !drain.received_all(running),
            moved: self.moved(&drain, running),
        })
    }

    fn moved(&self, drain: &Drain, running: &Running) -> Drained {
        Drained {
            received: running.receive.frames_read() - drain.received_before,
            sent: self.counters.snapshot(0).sent - drain.sent_before,
        }
    }

    /// Runs the queues asked for, then answers the drains that this completed.
    fn serve(&mut self, transmits: bool, receives: bool) -> Result<Progress, QueueError> {
        let sent = if transmits { self.transmit()? } else { Progress::Idle };
        let received = if receives { self.receive()? } else { Progress::Idle };
        self.finish_drains();
        Ok(if sent == Progress::More { sent } else { received })
    }

    fn receive(&mut self) -> Result<Progress, QueueError> {
        self.drop_stragglers();
        let Some(running) = &mut self.running else { return Ok(Progress::Idle) };
        let fd = self.backend.as_fd().as_raw_fd();
        Ok(match running.receive.run(fd, &mut self.pending, self.mode, &self.counters)? {
            Received::Budget => Progress::More,
            Received::RingFull => {
                // Only a drain wants to know whether anything waits for the room.
                let waits = || self.pending.front().is_some() || has_frames(&self.backend);
                if !self.drains.is_empty() && !waits() {
                    self.seen_empty();
                }
                Progress::Idle
            }
            Received::Empty => {
                self.seen_empty();
                Progress::Idle
            }
        })
    }

    fn seen_empty(&mut self) {
        for drain in &mut self.drains {
            drain.seen_empty = true;
        }
    }

    fn transmit(&mut self) -> Result<Progress, QueueError> {
        let Some(running) = &mut self.running else { return Ok(Progress::Idle) };
        let outcome = running.transmit.run(self.backend.as_fd().as_raw_fd(), &self.counters)?;
        running.backend_full = outcome == Sent::BackendFull;
        Ok(match outcome {
            Sent::Budget => Progress::More,
            Sent::Empty | Sent::BackendFull => Progress::Idle,
        })
    }

    fn control(&mut self) -> Result<Progress, QueueError> {
        let Some(Running { control: Some(control), .. }) = &mut self.running else {
            return Ok(Progress::Idle);
        };
        control.run(|command| match command {
            Command::AnnounceAck => {
                // Not a change that the driver wants to hear of: it is the one who made it.
                self.shared.config().announce = false;
                Verdict::Done
            }
            Command::Unknown { class, number } => {
                tracing::debug!(class, number, "the driver gave a command that is not offered");
                Verdict::Refused
            }
        })
    }

    fn finish_drains(&mut self) {
        let Some(running) = &self.running else { return };
        let mut index = 0;
        while let Some(drain) = self.drains.get(index) {
            if drain.received_all(running) && drain.sent_all(running) {
                let moved = self.moved(drain, running);
                let drain = self.drains.swap_remove(index);
                // The caller may have given up by now.
                let _ = drain.reply.try_send(moved);
            } else {
                index += 1;
            }
        }
    }

    /// The driver broke a ring: stop, and ask it for a reset.
    fn fail(&mut self, error: &QueueError) {
        tracing::warn!(%error, "the guest's network driver broke a queue; the card stops");
        if let Some(running) = self.running.take() {
            running.interrupts.needs_reset();
        }
        self.drains.clear();
    }
}

impl Drain {
    fn received_all(&self, running: &Running) -> bool {
        self.seen_empty || running.receive.frames_read() >= self.receive_until
    }

    fn sent_all(&self, running: &Running) -> bool {
        !is_before(running.transmit.position(), self.send_until)
    }
}

/// Whether the backend holds a frame to read now. When that cannot be found out, it may.
fn has_frames(backend: &impl FrameBackend) -> bool {
    let mut fds = [PollFd::new(backend, PollFlags::IN)];
    match poll(&mut fds, Some(&Timespec::default())) {
        Ok(_) => fds[0].revents().contains(PollFlags::IN),
        Err(_) => true,
    }
}

/// Whether ring position `a` lies before `b`; they are at most a queue length apart.
fn is_before(a: Wrapping<u16>, b: Wrapping<u16>) -> bool {
    let ahead = (b - a).0;
    ahead != 0 && ahead <= 0x8000
}

impl<B: FrameBackend> Worker for NetWorker<B> {
    fn sources(&self) -> Vec<(RawFd, EventSet)> {
        vec![(self.backend.as_fd().as_raw_fd(), EventSet::IN | EventSet::OUT)]
    }

    fn start(&mut self, activation: Activation) {
        let Activation { features, queues, interrupts, .. } = activation;
        let mut queues = queues.into_iter();
        let (Some(Some(receive)), Some(Some(transmit))) = (queues.next(), queues.next()) else {
            return;
        };
        let control = queues.next().flatten().filter(|_| config::controls(features));
        let offloads = config::receive_offloads(features);
        if let Err(error) = self.backend.set_receive_offloads(offloads) {
            tracing::warn!(%error, "the backend refused the negotiated offloads");
            interrupts.needs_reset();
            return;
        }
        let longest = match offloads.tso4 || offloads.tso6 {
            true => LONGEST,
            false => (HEADER_LEN + 14) as u64 + u64::from(self.mtu),
        };
        let announces = config::announces(features);
        if std::mem::take(&mut self.shared.config().announce) && announces {
            self.shared.change(|config| config.announce = true);
        }
        self.running = Some(Running {
            receive: ReceiveQueue::new(receive, config::mergeable(features), longest),
            transmit: TransmitQueue::new(transmit),
            control: control.map(ControlQueue::new),
            announces,
            backend_full: false,
            interrupts,
        });
    }

    fn stop(&mut self) -> Vec<QueuePosition> {
        // Their callers see the channel close: nothing is left that could be moved.
        self.drains.clear();
        let Some(running) = self.running.take() else { return Vec::new() };
        let frames = [running.receive.stop(), running.transmit.stop()];
        frames.into_iter().chain(running.control.map(ControlQueue::stop)).collect()
    }

    fn run(&mut self, wake: Wake) -> Progress {
        match self.pending.intake {
            Intake::Discard => self.discard(),
            Intake::Keep => self.keep(),
            Intake::Open | Intake::Hold => {}
        }
        if matches!(wake, Wake::Queue(_)) {
            LiveCounters::add(&self.counters.kicks, 1);
        }
        let (transmits, receives, controls) = match wake {
            Wake::Queue(TRANSMIT) => (true, false, false),
            Wake::Queue(CONTROL) => (false, false, true),
            Wake::Queue(_) => (false, true, false),
            // The backend is writable nearly always, which says nothing unless it was full.
            Wake::Source(_) => {
                (self.running.as_ref().is_some_and(|running| running.backend_full), true, false)
            }
            Wake::Again => (true, true, true),
        };
        let controlled = if controls { self.control() } else { Ok(Progress::Idle) };
        match controlled.and_then(|control| Ok((control, self.serve(transmits, receives)?))) {
            Ok((Progress::Idle, served)) => served,
            Ok(_) => Progress::More,
            Err(error) => {
                self.fail(&error);
                Progress::Idle
            }
        }
    }
}
