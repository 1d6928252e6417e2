//! The data path of an Intel 82576 virtual function: descriptor rings, doorbells, interrupts.
//!
//! It never resets the function and never talks to the physical function: those registers are
//! on a page that the guest does not get. No loop waits on the device without bound, and a
//! device that reads ones costs an error at most.
#![no_std]

#[cfg(test)]
extern crate std;

mod interrupt;
mod offload;
mod register;
mod rx;
mod tx;

use npa_abi::image::{Licence, PciId, RingNeed};
use npa_plugin_sdk::net::{Armed, NetPlugin, RxSink, RxSource, SendFrames};
use npa_plugin_sdk::{Device, Error, ImageInfo, Memory, net_plugin, pages};

use register::{RX_VECTOR, TX_VECTOR};

/// Bytes of a descriptor.
const DESCRIPTOR: u32 = 16;

/// The plugin. The device's registers hold all that queues share.
#[derive(Debug)]
pub struct IgbVf;

net_plugin!(IgbVf);

impl NetPlugin for IgbVf {
    type Rx = rx::Receive;
    type Tx = tx::Transmit;

    const IMAGE: ImageInfo = ImageInfo {
        name: "igbvf",
        version: env!("CARGO_PKG_VERSION"),
        licence: Licence::Gpl2OrMit,
        pci_ids: &[PciId { vendor: 0x8086, device: 0x10ca }],
        // Interrupts, receive, transmit. Page 0, reset and mailbox, stays with the hypervisor.
        regions: &[pages(0, 1, 3, 0)],
        vectors: 2,
        role_vectors: [RX_VECTOR as u16, TX_VECTOR as u16],
        roles: [
            RingNeed {
                per_entry: DESCRIPTOR,
                fixed: 0,
                align: 128,
                min_entries: 64,
                max_entries: 4096,
            },
            RingNeed {
                per_entry: DESCRIPTOR + tx::BOOKS,
                fixed: 0,
                align: 128,
                min_entries: 64,
                max_entries: 1024,
            },
        ],
        queues_per_role: 1,
    };

    fn new(device: &Device<'_>) -> Result<Self, Error> {
        let regions: u64 = Self::IMAGE.regions.iter().map(|region| region.length).sum();
        let vectors = u32::from(Self::IMAGE.vectors);
        if (device.window().length() as u64) < regions || device.vector_count() < vectors {
            return Err(Error::Config);
        }
        Ok(Self)
    }

    fn new_rx(&self, device: &Device<'_>, _: u32, memory: Memory) -> Result<Self::Rx, Error> {
        rx::Receive::new(memory, device.buffer_length())
    }

    fn new_tx(&self, _: &Device<'_>, _: u32, memory: Memory) -> Result<Self::Tx, Error> {
        tx::Transmit::new(memory)
    }

    fn reinit_rx(&self, device: &Device<'_>, rx: &mut Self::Rx) -> Result<(), Error> {
        interrupt::route(device.window());
        rx.reinit(device.window())
    }

    fn reinit_tx(&self, device: &Device<'_>, tx: &mut Self::Tx) -> Result<(), Error> {
        interrupt::route(device.window());
        tx.reinit(device.window())
    }

    fn arm_rx(&self, device: &Device<'_>, rx: &mut Self::Rx) -> Armed {
        rx.arm(device.window())
    }

    fn arm_tx(&self, device: &Device<'_>, tx: &mut Self::Tx) -> Armed {
        tx.arm(device.window())
    }

    fn disarm_rx(&self, device: &Device<'_>, rx: &mut Self::Rx) {
        rx.disarm(device.window());
    }

    fn disarm_tx(&self, device: &Device<'_>, tx: &mut Self::Tx) {
        tx.disarm(device.window());
    }

    fn send(&self, device: &Device<'_>, tx: &mut Self::Tx, frames: &SendFrames<'_>) -> u32 {
        tx.send(device.window(), frames)
    }

    fn reap(&self, _: &Device<'_>, tx: &mut Self::Tx) -> u32 {
        tx.reap()
    }

    fn receive(&self, device: &Device<'_>, rx: &mut Self::Rx, budget: u32, sink: &mut RxSink<'_>) {
        rx.receive(device.window(), budget, device.mac(), sink);
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

    /// Both queues are stopped even if the first does not answer.
    fn quiesce(&self, device: &Device<'_>) -> Result<(), Error> {
        let window = device.window();
        interrupt::mask_all(window);
        let tx = tx::stop(window);
        let rx = rx::stop(window);
        tx.and(rx)
    }
}
