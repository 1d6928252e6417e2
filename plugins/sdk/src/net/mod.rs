//! The net class: what a NIC's plugin implements, and the calls that lead there.

mod frames;
mod ops;
mod state;

pub use frames::{RxSink, RxSource, SendFrame, SendFrames, plain};
pub use ops::entry;

use npa_abi::Class;
use npa_abi::image::PluginHeader;

use crate::{Device, Error, ImageInfo, Memory, header as image};

/// What `enable_interrupt` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// Armed, and nothing was waiting.
    Idle,
    /// Work waits already; the interrupt may come as well.
    WorkWaits,
}

/// The data path of a NIC. `Self` holds what all queues share and does not change after
/// [`NetPlugin::new`]; [`NetPlugin::Rx`] and [`NetPlugin::Tx`] hold one queue's state. All three
/// live in the instance's private memory and are never dropped.
///
/// Different queues may be served on different CPUs at once; one queue never is. No function may
/// wait on the device without bound.
pub trait NetPlugin: Sized + Sync {
    /// State of a receive queue.
    type Rx: Send;
    /// State of a transmit queue.
    type Tx: Send;

    /// What the plugin says of itself.
    const IMAGE: ImageInfo;

    /// Makes the shared state, touching no register.
    ///
    /// # Errors
    /// [`Error::Config`] when the device's description does not fit.
    fn new(device: &Device<'_>) -> Result<Self, Error>;

    /// Makes the state of the receive queue with index `queue`, touching no register.
    ///
    /// # Errors
    /// [`Error::Config`] when its memory or the buffers do not fit.
    fn new_rx(&self, device: &Device<'_>, queue: u32, memory: Memory) -> Result<Self::Rx, Error>;

    /// Makes the state of the transmit queue with index `queue`, touching no register.
    ///
    /// # Errors
    /// [`Error::Config`] when its memory does not fit.
    fn new_tx(&self, device: &Device<'_>, queue: u32, memory: Memory) -> Result<Self::Tx, Error>;

    /// Zeroes the receive ring and programs it, empty and enabled. Buffers in it are forgotten.
    ///
    /// # Errors
    /// [`Error::Device`] when the device does not answer.
    fn reinit_rx(&self, device: &Device<'_>, rx: &mut Self::Rx) -> Result<(), Error>;

    /// The same for the transmit ring.
    ///
    /// # Errors
    /// [`Error::Device`] when the device does not answer.
    fn reinit_tx(&self, device: &Device<'_>, tx: &mut Self::Tx) -> Result<(), Error>;

    /// Arms the receive queue's interrupt.
    fn arm_rx(&self, device: &Device<'_>, rx: &mut Self::Rx) -> Armed;

    /// Arms the transmit queue's interrupt.
    fn arm_tx(&self, device: &Device<'_>, tx: &mut Self::Tx) -> Armed;

    /// Disarms the receive queue's interrupt.
    fn disarm_rx(&self, device: &Device<'_>, rx: &mut Self::Rx);

    /// Disarms the transmit queue's interrupt.
    fn disarm_tx(&self, device: &Device<'_>, tx: &mut Self::Tx);

    /// Puts frames on the ring, in order, with one doorbell at the end. Answers how many were
    /// taken: fewer only because the ring is full.
    fn send(&self, device: &Device<'_>, tx: &mut Self::Tx, frames: &SendFrames<'_>) -> u32;

    /// Answers how many frames, the oldest outstanding ones, are finished since the last call.
    fn reap(&self, device: &Device<'_>, tx: &mut Self::Tx) -> u32;

    /// Hands up to `budget` frames to `sink`.
    fn receive(&self, device: &Device<'_>, rx: &mut Self::Rx, budget: u32, sink: &mut RxSink<'_>);

    /// Fills up to `count` empty slots with buffers from `source`, with one doorbell at the end.
    /// Answers how many.
    fn refill(
        &self,
        device: &Device<'_>,
        rx: &mut Self::Rx,
        count: u32,
        source: &mut RxSource<'_>,
    ) -> u32;

    /// Stops DMA and interrupts of all queues. Afterwards [`NetPlugin::receive`] is called once
    /// more, for the frames that the device had finished.
    ///
    /// # Errors
    /// [`Error::Device`] when the device does not answer.
    fn quiesce(&self, device: &Device<'_>) -> Result<(), Error>;
}

/// The image header of plugin `P`, before it is sealed.
pub const fn header<P: NetPlugin>() -> PluginHeader {
    let length = state::length::<P>(P::IMAGE.queues_per_role as usize);
    image::header(Class::Net, &P::IMAGE, length)
}
