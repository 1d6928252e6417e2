//! One request of the guest: header, data and status as they lie in a chain (VIRTIO 1.2, section
//! 5.2.6). Takes any framing: only the order of bytes counts.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};

use super::disk::Disk;
use crate::virtio::iovec::GuestVectors;
use crate::virtio::queue::{Chain, QueueError};
use crate::vm::GuestRam;

const HEADER_LEN: usize = 16;

/// Shown to the guest as the disk's serial number.
const SERIAL: &[u8] = b"npa-disk";

/// Buffers of the request in hand, reused from one to the next.
pub(super) struct Request {
    readable: GuestVectors,
    writable: GuestVectors,
}

impl Request {
    pub(super) fn new(memory: Arc<GuestRam>) -> Self {
        Self { readable: GuestVectors::new(memory.clone()), writable: GuestVectors::new(memory) }
    }

    /// Serves the request in `chain` and returns the number of bytes written to the guest.
    ///
    /// # Errors
    /// When the chain holds no request. What the disk refuses goes to the guest as a status.
    pub(super) fn serve(&mut self, disk: &Disk, chain: &Chain) -> Result<u32, QueueError> {
        let head = chain.head;
        let outside = |address: vm_memory::GuestAddress| QueueError::OutsideMemory {
            head,
            address: address.0,
        };
        self.readable.clear();
        self.writable.clear();
        for buffer in &chain.buffers {
            let list = if buffer.writable { &mut self.writable } else { &mut self.readable };
            list.push(buffer).map_err(outside)?;
        }
        let mut header = [0; HEADER_LEN];
        let room = self.writable.bytes();
        if self.readable.bytes() < HEADER_LEN as u64 || room == 0 {
            return Err(QueueError::TooShort { head });
        }
        self.readable.copy_out(0, &mut header).map_err(outside)?;
        self.readable.skip_bytes(HEADER_LEN as u64);
        let data_room = room - 1;

        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([a, b, c, d]);
        let sector = u64::from_le_bytes(sector);
        let (status, filled) = self.execute(disk, kind, sector, data_room);
        self.writable.copy_in(data_room as usize, &[status as u8]).map_err(outside)?;
        // A chain is shorter than 4 GiB.
        Ok((filled + 1) as u32)
    }

    /// Status and the number of data bytes written to the guest.
    fn execute(&mut self, disk: &Disk, kind: u32, sector: u64, data_room: u64) -> (u32, u64) {
        match kind {
            VIRTIO_BLK_T_IN => match disk.position(sector, data_room) {
                Some(position) => {
                    let fd = disk.as_raw_fd();
                    let read = self.writable.read_exact_at(fd, position, data_room);
                    (status(read, "read"), data_room)
                }
                None => (VIRTIO_BLK_S_IOERR, 0),
            },
            VIRTIO_BLK_T_OUT => {
                let len = self.readable.bytes();
                match disk.position(sector, len) {
                    Some(position) if !disk.is_read_only() => {
                        let fd = disk.as_raw_fd();
                        (status(self.readable.write_all_at(fd, position), "write"), 0)
                    }
                    _ => (VIRTIO_BLK_S_IOERR, 0),
                }
            }
            VIRTIO_BLK_T_FLUSH => (status(disk.flush(), "flush"), 0),
            VIRTIO_BLK_T_GET_ID => {
                let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
                id[..SERIAL.len()].copy_from_slice(SERIAL);
                let len = id.len().min(data_room as usize);
                match self.writable.copy_in(0, &id[..len]) {
                    Ok(()) => (VIRTIO_BLK_S_OK, len as u64),
                    Err(_) => (VIRTIO_BLK_S_IOERR, 0),
                }
            }
            _ => (VIRTIO_BLK_S_UNSUPP, 0),
        }
    }
}

fn status(result: std::io::Result<()>, operation: &str) -> u32 {
    match result {
        Ok(()) => VIRTIO_BLK_S_OK,
        Err(error) => {
            tracing::warn!(%error, operation, "the disk image refused a request");
            VIRTIO_BLK_S_IOERR
        }
    }
}
