//! A named thread that waits for file descriptors and calls their subscribers: all device I/O
//! outside vCPU threads. Never runs a timer, so an idle VM wakes nobody.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use event_manager::{EventManager, MutEventSubscriber, RemoteEndpoint, SubscriberId};

use crate::sandbox::{self, Role};

/// What an event loop calls.
pub type Subscriber = Arc<Mutex<dyn MutEventSubscriber + Send>>;

/// An event loop that could not be started or reached.
#[derive(Debug, thiserror::Error)]
pub enum EventLoopError {
    /// The event manager refused.
    #[error("event loop: {0}")]
    Manager(#[from] event_manager::Error),
    /// No thread.
    #[error("cannot start event loop thread")]
    Thread(#[source] io::Error),
}

/// A handle to an event loop thread; clones name the same loop. The thread ends when the last
/// handle is dropped.
#[derive(Clone)]
pub struct EventLoop {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: RemoteEndpoint<Subscriber>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts a thread called `name`.
    pub fn spawn(name: &str) -> Result<Self, EventLoopError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (send, receive) = std::sync::mpsc::channel();
        let stopping = stop.clone();
        // The manager is not `Send` while it owns subscribers behind locks, so it is made on
        // its own thread and only its endpoint leaves.
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || match EventManager::<Subscriber>::new() {
                Ok(mut manager) => {
                    sandbox::enter(Role::Device);
                    if send.send(Ok(manager.remote_endpoint())).is_ok() {
                        run(&mut manager, &stopping);
                    }
                }
                Err(error) => drop(send.send(Err(error))),
            })
            .map_err(EventLoopError::Thread)?;
        let endpoint = receive.recv().map_err(|_| event_manager::Error::ChannelRecv)??;
        Ok(Self { inner: Arc::new(Inner { endpoint, stop, thread: Some(thread) }) })
    }

    /// Adds a subscriber; its `init` runs on the loop's thread before this returns. Must not be
    /// called from the loop's own thread.
    pub fn add(&self, subscriber: Subscriber) -> Result<SubscriberId, EventLoopError> {
        self.inner
            .endpoint
            .call_blocking(move |ops| Ok::<_, event_manager::Error>(ops.add_subscriber(subscriber)))
            .map_err(EventLoopError::Manager)
    }

    /// Removes a subscriber; on return it is not being called and never will be. Must not be
    /// called from the loop's own thread.
    pub fn remove(&self, id: SubscriberId) -> Result<(), EventLoopError> {
        self.inner
            .endpoint
            .call_blocking(move |ops| ops.remove_subscriber(id).map(drop))
            .map_err(EventLoopError::Manager)
    }

    /// The endpoint, for closures that must run on the loop's thread.
    pub fn endpoint(&self) -> RemoteEndpoint<Subscriber> {
        self.inner.endpoint.clone()
    }
}

fn run(manager: &mut EventManager<Subscriber>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        match manager.run() {
            Ok(_) => {}
            Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => {}
            Err(error) => {
                tracing::error!(%error, "event loop ends");
                return;
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // An empty call wakes the loop, which then sees the flag.
        let woken = self.endpoint.call_blocking(|_| Ok::<(), event_manager::Error>(()));
        let Some(thread) = self.thread.take() else { return };
        // The last handle may die on the loop itself (a subscriber owned it).
        if woken.is_ok() && thread.thread().id() != std::thread::current().id() {
            drop(thread.join());
        }
    }
}
