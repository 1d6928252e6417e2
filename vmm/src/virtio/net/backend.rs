//! What the NIC needs from whatever carries its frames. A frame on the descriptor is one
//! `readv`/`writev`: a 12-byte `virtio_net_hdr` and the Ethernet frame.

use std::io;
use std::os::fd::AsFd;

/// Carrier of Ethernet frames. Its descriptor is non-blocking and keeps frame boundaries.
pub trait FrameBackend: AsFd + Send + 'static {
    /// Sets which offloads the guest can take on received frames, by the negotiated features.
    ///
    /// # Errors
    /// When the host refuses them.
    fn set_receive_offloads(&mut self, offloads: ReceiveOffloads) -> io::Result<()>;

    /// Most frames that the backend holds for the guest at one time. A drain that has read this
    /// many frames has read all that were there when it began.
    fn capacity(&self) -> u32;

    /// Frames for the guest that found no room in the backend, since it exists; `None` if it does
    /// not count them.
    fn dropped(&self) -> Option<u64>;
}

/// Offloads of received frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveOffloads {
    /// Frames may have a partial checksum.
    pub checksum: bool,
    /// Frames may be TCP segments over IPv4 larger than the MTU.
    pub tso4: bool,
    /// Frames may be TCP segments over IPv6 larger than the MTU.
    pub tso6: bool,
    /// Such segments may have ECN bits.
    pub ecn: bool,
}
