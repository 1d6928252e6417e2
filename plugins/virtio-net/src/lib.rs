//! The data path of virtio-net: split virtqueues (virtio 1.2, 2.7) behind the plugin API.
//!
//! Linked statically into the shell it drives the emulated queues; built as an image it drives a
//! hardware virtio function. It never touches virtio's control side: whoever does learns from
//! [`QueueLayout`] which addresses to program, and says by [`VirtioInfo`] what was negotiated.
#![no_std]

mod frame_header;
mod info;
mod layout;
mod queue;
mod rx;
mod tx;

pub use frame_header::HEADER_LENGTH;
pub use info::{
    FEATURES, VIRTIO_F_RING_EVENT_IDX, VIRTIO_F_VERSION_1, VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MRG_RXBUF, VirtioInfo,
};
pub use layout::QueueLayout;

use npa_abi::image::{Licence, PciId};
use npa_abi::plugin::LOG_ERROR;
use npa_plugin_sdk::net::{Armed, NetPlugin, RxSink, RxSource, SendFrames};
use npa_plugin_sdk::{Device, Error, ImageInfo, Memory, net_plugin, pages};

/// Queue pairs that one instance drives: as many as the shell sets up.
const PAIRS_MAX: u16 = 1;

/// The plugin: what was negotiated, the same for all queues.
#[derive(Debug)]
pub struct VirtioNet {
    info: VirtioInfo,
}

net_plugin!(VirtioNet);

impl NetPlugin for VirtioNet {
    type Rx = rx::Receive;
    type Tx = tx::Transmit;

    const IMAGE: ImageInfo = ImageInfo {
        name: "virtio-net",
        version: env!("CARGO_PKG_VERSION"),
        licence: Licence::Gpl2OrMit,
        pci_ids: &[
            PciId { vendor: 0x1af4, device: 0x1041 },
            PciId { vendor: 0x1af4, device: 0x1000 },
        ],
        // The doorbells: one page, where the device's notify capability says. Page 3 of BAR 4 is
        // the place that the common device models use.
        regions: &[pages(4, 3, 1, 0)],
        vectors: 2 * PAIRS_MAX,
        role_vectors: [0, 1],
        roles: [layout::RX_NEED, layout::TX_NEED],
        queues_per_role: PAIRS_MAX,
    };

    fn new(device: &Device<'_>) -> Result<Self, Error> {
        let info = VirtioInfo::read(device);
        if !info.has(VIRTIO_F_VERSION_1) {
            return Err(Error::Config);
        }
        Ok(Self { info })
    }

    fn new_rx(&self, device: &Device<'_>, queue: u32, memory: Memory) -> Result<Self::Rx, Error> {
        let receive = rx::Receive::new(&self.info, queue, memory, device.buffer_length());
        if receive.is_err() {
            device.log(LOG_ERROR, "receive buffers or ring too small for the negotiated features");
        }
        receive
    }

    fn new_tx(&self, _: &Device<'_>, queue: u32, memory: Memory) -> Result<Self::Tx, Error> {
        tx::Transmit::new(&self.info, queue, memory)
    }

    fn reinit_rx(&self, _: &Device<'_>, rx: &mut Self::Rx) -> Result<(), Error> {
        rx.reset();
        Ok(())
    }

    fn reinit_tx(&self, _: &Device<'_>, tx: &mut Self::Tx) -> Result<(), Error> {
        tx.reset();
        Ok(())
    }

    fn arm_rx(&self, _: &Device<'_>, rx: &mut Self::Rx) -> Armed {
        rx.arm()
    }

    fn arm_tx(&self, _: &Device<'_>, tx: &mut Self::Tx) -> Armed {
        tx.arm()
    }

    fn disarm_rx(&self, _: &Device<'_>, rx: &mut Self::Rx) {
        rx.disarm();
    }

    fn disarm_tx(&self, _: &Device<'_>, tx: &mut Self::Tx) {
        tx.disarm();
    }

    fn send(&self, device: &Device<'_>, tx: &mut Self::Tx, frames: &SendFrames<'_>) -> u32 {
        tx.send(device.window(), frames)
    }

    fn reap(&self, _: &Device<'_>, tx: &mut Self::Tx) -> u32 {
        tx.reap()
    }

    fn receive(&self, _: &Device<'_>, rx: &mut Self::Rx, budget: u32, sink: &mut RxSink<'_>) {
        rx.receive(budget, sink);
    }

    fn refill(
        &self,
        device: &Device<'_>,
        rx: &mut Self::Rx,
        count: u32,
        source: &mut RxSource<'_>,
    ) -> u32 {
        rx.refill(device.window(), count, source)
    }

    /// A virtqueue is stopped on the control side only; here nothing is left to do. The shell
    /// disarms both interrupts before.
    fn quiesce(&self, _: &Device<'_>) -> Result<(), Error> {
        Ok(())
    }
}
