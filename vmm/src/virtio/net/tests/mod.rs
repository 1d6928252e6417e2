//! The NIC under a fake driver and a pair of sockets in place of a tap.

mod arrivals;
mod control;
mod drain;
mod frames;
mod hostile;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::fake_driver::{EVENT_IDX, FakeDriver};

const RX: u16 = 0;
const TX: u16 = 1;
const RX_VECTOR: u16 = 1;
const MRG_RXBUF: u64 = 1 << 15;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_CSUM: u64 = 1 << 1;
/// Guest buffers are here; the rings end below.
const BUFFERS: u64 = 0x40_0000;
pub(in crate::virtio) const STATION: MacAddress = MacAddress([0x52, 0x54, 0, 1, 2, 3]);

/// One end of a socket pair that keeps frame boundaries, as a tap does.
pub(in crate::virtio) struct Wire {
    socket: OwnedFd,
    offloads: Arc<Mutex<ReceiveOffloads>>,
    capacity: u32,
}

impl Wire {
    pub(in crate::virtio) fn new(socket: OwnedFd) -> Self {
        Self { socket, offloads: Arc::default(), capacity: 1000 }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl FrameBackend for Wire {
    fn set_receive_offloads(&mut self, offloads: ReceiveOffloads) -> io::Result<()> {
        *self.offloads.lock().unwrap() = offloads;
        Ok(())
    }

    fn capacity(&self) -> u32 {
        self.capacity
    }

    fn dropped(&self) -> Option<u64> {
        Some(100)
    }
}

struct Setup {
    driver: FakeDriver,
    handle: NetHandle<Wire>,
    /// The other end of the wire.
    peer: OwnedFd,
    offloads: Arc<Mutex<ReceiveOffloads>>,
}

/// The two ends of a wire.
pub(in crate::virtio) fn wire() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// A frame as it goes over the wire.
pub(in crate::virtio) fn framed(frame: &[u8]) -> Vec<u8> {
    [&[0; HEADER_LEN], frame].concat()
}

fn setup() -> Setup {
    setup_over(1000)
}

/// The same on a wire that holds at most `capacity` frames.
fn setup_over(capacity: u32) -> Setup {
    let (socket, peer) = wire();
    let mut wire = Wire::new(socket);
    wire.capacity = capacity;
    let offloads = wire.offloads.clone();
    let net = Net::new("test", wire, STATION, 1500).unwrap();
    let handle = net.handle();
    Setup { driver: FakeDriver::new(Box::new(net)), handle, peer, offloads }
}

impl Setup {
    /// Started with the usual features and 256 entries.
    fn started() -> Self {
        Self::started_over(1000)
    }

    fn started_over(capacity: u32) -> Self {
        let mut setup = setup_over(capacity);
        setup.driver.start(MRG_RXBUF | EVENT_IDX | 1 << 5, 256);
        setup
    }

    /// Offers `count` receive buffers of `len` bytes, numbered from `first` on.
    fn offer(&mut self, first: u64, count: u64, len: u32) {
        for i in first..first + count {
            self.driver.add(RX, &[(buffer(i), len, true)]);
        }
        self.driver.kick(RX);
    }

    /// Sends a frame from the wire; panics when the wire is full.
    fn arrive(&self, payload: &[u8]) {
        assert!(self.try_arrive(payload));
    }

    fn try_arrive(&self, payload: &[u8]) -> bool {
        match rustix::net::send(&self.peer, &framed(payload), SendFlags::empty()) {
            Ok(_) => true,
            Err(rustix::io::Errno::AGAIN) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes a frame off the wire, header cut off.
    fn departed(&mut self) -> Vec<u8> {
        let mut frame = vec![0; 70_000];
        let mut len = 0;
        let Self { driver, peer, .. } = self;
        driver.wait_for("a frame on the wire", |_| {
            rustix::io::read(&*peer, &mut frame).is_ok_and(|read| {
                len = read;
                true
            })
        });
        frame[HEADER_LEN..len].to_vec()
    }

    fn read_ram(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.driver.ram().read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// Puts a frame at `address` behind an empty header; returns the length with header.
    fn place(&self, address: u64, payload: &[u8]) -> u32 {
        let ram = self.driver.ram();
        ram.write_slice(&[0; HEADER_LEN], GuestAddress(address)).unwrap();
        ram.write_slice(payload, GuestAddress(address + HEADER_LEN as u64)).unwrap();
        (HEADER_LEN + payload.len()) as u32
    }

    fn transmit(&mut self, number: u64, payload: &[u8]) -> u16 {
        let len = self.place(buffer(number), payload);
        self.driver.add(TX, &[(buffer(number), len, false)])
    }
}

/// Address of guest buffer `number`, 4 KiB apart.
fn buffer(number: u64) -> u64 {
    BUFFERS + 0x1000 * number
}

/// A frame to this station whose content depends on `tag`.
pub(in crate::virtio) fn unicast(tag: u8, len: usize) -> Vec<u8> {
    let mut frame = STATION.0.to_vec();
    frame.extend((6..len).map(|i| (i as u8).wrapping_mul(7) ^ tag));
    frame
}

/// A frame to a group.
fn multicast(tag: u8) -> Vec<u8> {
    let mut frame = unicast(tag, 64);
    frame[0] |= 1;
    frame
}
