//! The thread of a device: an event loop that waits for doorbells and backend descriptors and
//! takes calls from other threads. Knows nothing of what the device does.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use event_manager::{
    EventManager, EventOps, Events, MutEventSubscriber, RemoteEndpoint, SubscriberId, SubscriberOps,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::Activation;
use super::queue::QueuePosition;

use crate::sandbox::{self, Role};

/// How long a call from the transport may take. A worker's work per wakeup is bounded, so only a
/// host in trouble (a disk that does not answer) comes near it.
pub const TRANSPORT_DEADLINE: Duration = Duration::from_secs(10);

/// Why a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The guest rang the doorbell of this queue.
    Queue(usize),
    /// Something happened on this descriptor of the backend.
    Source(RawFd),
    /// Its last run stopped before all was done, or a call changed something.
    Again,
}

/// Whether a worker wants to run again at once, after others had their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to do until the next event.
    Idle,
    /// There is more to do.
    More,
}

/// The device-specific part of a worker thread.
pub trait Worker: Send + 'static {
    /// Descriptors to watch for the life of the thread, edge-triggered.
    fn sources(&self) -> Vec<(RawFd, EventSet)>;

    /// Takes the queues. The worker is run with [`Wake::Again`] afterwards.
    fn start(&mut self, activation: Activation);

    /// Gives up the queues and everything in guest memory. Answers where it stands in each queue,
    /// nothing being popped and not used; with nothing if it has no queues.
    fn stop(&mut self) -> Vec<QueuePosition>;

    /// Does a bounded amount of work.
    fn run(&mut self, wake: Wake) -> Progress;
}

/// Why a call to a worker had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The deadline passed.
    #[error("no answer within the deadline")]
    Deadline,
    /// The thread is gone.
    #[error("the thread has ended")]
    Ended,
}

/// A running worker thread; dropping it ends the thread.
pub struct WorkerThread<W: Worker> {
    endpoint: RemoteEndpoint<Subscriber<W>>,
    id: SubscriberId,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Worker> std::fmt::Debug for WorkerThread<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerThread").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<W: Worker> WorkerThread<W> {
    /// Starts a thread called `name` (at most 15 bytes are shown by the system).
    ///
    /// # Errors
    /// When the host has no descriptors or threads left.
    pub fn spawn(name: &str, worker: W) -> std::io::Result<Self> {
        let again = EventFd::new(EFD_NONBLOCK)?;
        let ended = Arc::new(AtomicBool::new(false));
        let (ready, started) = sync_channel(1);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn({
            let ended = Arc::clone(&ended);
            move || {
                let subscriber = Subscriber { worker, again, kicks: Vec::new() };
                // Not made outside the thread: an event loop is not `Send`.
                let mut events = match EventManager::new() {
                    Ok(events) => events,
                    Err(error) => {
                        let _ = ready.send(Err(std::io::Error::other(error)));
                        return;
                    }
                };
                let id = events.add_subscriber(subscriber);
                sandbox::enter(Role::Device);
                if ready.send(Ok((events.remote_endpoint(), id))).is_err() {
                    return;
                }
                while !ended.load(Ordering::Acquire) {
                    if let Err(error) = events.run() {
                        tracing::error!(%error, "a device's event loop failed");
                        break;
                    }
                }
            }
        })?;
        let (endpoint, id) = started.recv().map_err(std::io::Error::other)??;
        Ok(Self { endpoint, id, ended, thread: Some(thread) })
    }

    /// Runs `call` on the worker's thread and returns its result. The worker is run with
    /// [`Wake::Again`] afterwards.
    ///
    /// # Errors
    /// [`CallError`] when there is no answer by the deadline; `call` may then still run later.
    pub fn call<R: Send + 'static>(
        &self,
        deadline: Duration,
        call: impl FnOnce(&mut W) -> R + Send + 'static,
    ) -> Result<R, CallError> {
        self.send(deadline, |ops, id| {
            let subscriber = ops.subscriber_mut(id).ok()?;
            let result = call(&mut subscriber.worker);
            subscriber.run_again();
            Some(result)
        })
    }

    /// Hands the queues over and watches their doorbells.
    ///
    /// # Errors
    /// [`CallError`] when there is no answer by [`TRANSPORT_DEADLINE`].
    pub fn activate(&self, mut activation: Activation) -> Result<(), CallError> {
        self.send(TRANSPORT_DEADLINE, |ops, id| {
            let kicks = std::mem::take(&mut activation.kicks);
            let mut events = ops.event_ops(id).ok()?;
            for (index, kick) in kicks.iter().enumerate() {
                let data = FIRST_QUEUE + index as u32;
                watch(&mut events, Events::with_data(kick, data, EDGE_IN));
            }
            let subscriber = ops.subscriber_mut(id).ok()?;
            subscriber.kicks = kicks;
            subscriber.worker.start(activation);
            subscriber.run_again();
            Some(())
        })
    }

    /// Takes the queues away; afterwards the worker touches no guest memory. Answers where it stood
    /// in them.
    ///
    /// # Errors
    /// [`CallError`] when there is no answer by [`TRANSPORT_DEADLINE`].
    pub fn deactivate(&self) -> Result<Vec<QueuePosition>, CallError> {
        self.send(TRANSPORT_DEADLINE, |ops, id| {
            let subscriber = ops.subscriber_mut(id).ok()?;
            let positions = subscriber.worker.stop();
            let kicks = std::mem::take(&mut subscriber.kicks);
            let mut events = ops.event_ops(id).ok()?;
            for kick in &kicks {
                if let Err(error) = events.remove(Events::empty(kick)) {
                    tracing::error!(%error, "cannot stop watching a doorbell");
                }
            }
            Some(positions)
        })
    }

    fn send<R: Send + 'static>(
        &self,
        deadline: Duration,
        call: impl FnOnce(&mut Ops<W>, SubscriberId) -> Option<R> + Send + 'static,
    ) -> Result<R, CallError> {
        let (reply, answer) = sync_channel(1);
        let id = self.id;
        let fired = self.endpoint.fire(move |ops: &mut Ops<W>| {
            // No value means no subscriber: the dropped sender says that the thread is done.
            if let Some(result) = call(ops, id) {
                // A caller past its deadline has gone; the result is of no use then.
                let _ = reply.send(result);
            }
        });
        fired.map_err(|_| CallError::Ended)?;
        answer.recv_timeout(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => CallError::Deadline,
            RecvTimeoutError::Disconnected => CallError::Ended,
        })
    }
}

impl<W: Worker> Drop for WorkerThread<W> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = self.endpoint.kick();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a device's thread panicked");
        }
    }
}

type Ops<'a, W> = dyn SubscriberOps<Subscriber = Subscriber<W>> + 'a;

const EDGE_IN: EventSet = EventSet::IN.union(EventSet::EDGE_TRIGGERED);

// Event data that say which descriptor an event is for.
const AGAIN: u32 = 0;
const SOURCE: u32 = 1;
const FIRST_QUEUE: u32 = 2;

/// The worker with its event descriptors. All are edge-triggered and never read: each write to
/// an eventfd is a new edge, so a doorbell costs no second system call.
struct Subscriber<W> {
    worker: W,
    again: EventFd,
    kicks: Vec<EventFd>,
}

impl<W: Worker> Subscriber<W> {
    fn run_again(&self) {
        if let Err(error) = self.again.write(1) {
            tracing::error!(%error, "cannot wake a device's own thread");
        }
    }
}

impl<W: Worker> MutEventSubscriber for Subscriber<W> {
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        let wake = match events.data() {
            AGAIN => Wake::Again,
            SOURCE => Wake::Source(events.fd()),
            queue => Wake::Queue((queue - FIRST_QUEUE) as usize),
        };
        if self.worker.run(wake) == Progress::More {
            self.run_again();
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, Events::with_data(&self.again, AGAIN, EDGE_IN));
        for (fd, set) in self.worker.sources() {
            let set = set | EventSet::EDGE_TRIGGERED;
            watch(ops, Events::with_data_raw(fd, SOURCE, set));
        }
    }
}

fn watch(ops: &mut EventOps<'_>, events: Events) {
    if let Err(error) = ops.add(events) {
        tracing::error!(%error, "cannot watch a descriptor of a device");
    }
}

#[cfg(test)]
#[path = "worker_test.rs"]
mod tests;
