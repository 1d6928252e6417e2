//! Scatter lists over guest memory for `readv` and `writev`: frames move between a backend and
//! the guest's buffers without a copy in between. Never leaves guest RAM: each piece is checked
//! when it is added, and the list keeps the memory mapped.

#![allow(unsafe_code)] // hands guest memory to the kernel by address

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use vm_memory::bitmap::Bitmap;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::queue::Buffer;
use crate::vm::GuestRam;

/// Most pieces that one system call takes (`IOV_MAX`).
pub(super) const MAX_PIECES: usize = 1024;

/// A list of pieces of guest memory, consumed from the front.
pub(super) struct GuestVectors {
    memory: Arc<GuestRam>,
    pieces: Vec<libc::iovec>,
    addresses: Vec<GuestAddress>,
    /// Pieces before this one are consumed.
    first: usize,
}

// SAFETY: the raw pointers lie in the mapping that `memory` keeps alive; nothing about them is
// bound to a thread.
unsafe impl Send for GuestVectors {}

impl GuestVectors {
    pub(super) fn new(memory: Arc<GuestRam>) -> Self {
        Self { memory, pieces: Vec::new(), addresses: Vec::new(), first: 0 }
    }

    /// Number of pieces in the list.
    pub(super) fn len(&self) -> usize {
        self.pieces.len() - self.first
    }

    /// Bytes in the list.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces[self.first..].iter().map(|piece| piece.iov_len as u64).sum()
    }

    /// Appends a buffer and returns how many pieces it became: one, or more when it spans RAM
    /// regions, or none when it is empty.
    ///
    /// # Errors
    /// The first guest address that is not RAM. The list is then unchanged.
    pub(super) fn push(&mut self, buffer: &Buffer) -> Result<usize, GuestAddress> {
        let before = self.pieces.len();
        let mut address = buffer.address;
        for slice in self.memory.get_slices(buffer.address, buffer.len as usize) {
            let Ok(slice) = slice else {
                self.pieces.truncate(before);
                self.addresses.truncate(before);
                return Err(address);
            };
            self.pieces.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
            self.addresses.push(address);
            // Cannot wrap: the slice exists, so its end is at most the end of RAM.
            address.0 = address.0.wrapping_add(slice.len() as u64);
        }
        Ok(self.pieces.len() - before)
    }

    /// Drops the first `count` pieces.
    pub(super) fn consume(&mut self, count: usize) {
        self.first = (self.first + count).min(self.pieces.len());
        if self.first == self.pieces.len() {
            self.clear();
        } else if self.first >= MAX_PIECES {
            self.pieces.drain(..self.first);
            self.addresses.drain(..self.first);
            self.first = 0;
        }
    }

    /// Drops the first `count` bytes.
    pub(super) fn skip_bytes(&mut self, mut count: u64) {
        while self.len() > 0 {
            let piece = &mut self.pieces[self.first];
            if piece.iov_len as u64 > count {
                // Stays inside the piece, whose length is a usize.
                let skipped = count as usize;
                piece.iov_base = piece.iov_base.cast::<u8>().wrapping_add(skipped).cast();
                piece.iov_len -= skipped;
                self.addresses[self.first].0 += count;
                return;
            }
            count -= piece.iov_len as u64;
            self.consume(1);
        }
    }

    /// Drops all pieces.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.addresses.clear();
        self.first = 0;
    }

    /// Reads from `fd` into the first `count` pieces, at most [`MAX_PIECES`], and marks what was
    /// written as dirty. Returns the number of bytes.
    pub(super) fn read_from(&mut self, fd: RawFd, count: usize) -> io::Result<usize> {
        let pieces = self.front(count);
        // SAFETY: every piece lies in guest RAM, which `memory` keeps mapped; the guest may
        // change it at any time, and no reference to it exists on this side.
        let read = unsafe { libc::readv(fd, pieces.as_ptr(), pieces.len() as libc::c_int) };
        let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        self.mark_dirty(read);
        Ok(read)
    }

    /// Writes the first `count` pieces, at most [`MAX_PIECES`], to `fd`.
    pub(super) fn write_to(&self, fd: RawFd, count: usize) -> io::Result<usize> {
        let pieces = self.front(count);
        // SAFETY: as in `read_from`; the kernel copies from the pieces during the call.
        let written = unsafe { libc::writev(fd, pieces.as_ptr(), pieces.len() as libc::c_int) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    /// Reads the bytes of the file `fd` from `position` on into the first `len` bytes.
    ///
    /// # Errors
    /// Of the system; `UnexpectedEof` when the file ends before.
    pub(super) fn read_exact_at(&self, fd: RawFd, position: u64, len: u64) -> io::Result<()> {
        self.transfer(position, len, |pieces, at| {
            // SAFETY: as in `read_from`.
            unsafe { libc::preadv64(fd, pieces.as_ptr(), pieces.len() as libc::c_int, at) }
        })?;
        // Checked against RAM before, and `transfer` filled all of it.
        self.mark_dirty(len as usize);
        Ok(())
    }

    /// Writes all bytes of the list to the file `fd` from `position` on.
    ///
    /// # Errors
    /// Of the system; `UnexpectedEof` when the file takes no more.
    pub(super) fn write_all_at(&self, fd: RawFd, position: u64) -> io::Result<()> {
        self.transfer(position, self.bytes(), |pieces, at| {
            // SAFETY: as in `write_to`.
            unsafe { libc::pwritev64(fd, pieces.as_ptr(), pieces.len() as libc::c_int, at) }
        })
    }

    /// Repeats a positioned transfer of the first `len` bytes until all are done.
    fn transfer(
        &self,
        position: u64,
        len: u64,
        mut call: impl FnMut(&[libc::iovec], i64) -> isize,
    ) -> io::Result<()> {
        let mut done = 0;
        let mut rest = Vec::with_capacity(self.len().min(MAX_PIECES));
        while done < len {
            self.window(done, len - done, &mut rest);
            let at = i64::try_from(position + done).map_err(io::Error::other)?;
            match call(&rest, at) {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                moved if moved > 0 => done += moved as u64,
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Lists the pieces that make up `len` bytes from `offset` on, at most [`MAX_PIECES`].
    fn window(&self, mut offset: u64, mut len: u64, window: &mut Vec<libc::iovec>) {
        window.clear();
        for piece in &self.pieces[self.first..] {
            if len == 0 || window.len() == MAX_PIECES {
                return;
            }
            let piece_len = piece.iov_len as u64;
            if offset >= piece_len {
                offset -= piece_len;
                continue;
            }
            let run = len.min(piece_len - offset);
            window.push(libc::iovec {
                iov_base: piece.iov_base.cast::<u8>().wrapping_add(offset as usize).cast(),
                iov_len: run as usize,
            });
            offset = 0;
            len -= run;
        }
    }

    /// Copies `data` to `offset` bytes behind the start of the list.
    ///
    /// # Errors
    /// The guest address at which the list ended or memory could not be written.
    pub(super) fn copy_in(&self, offset: usize, data: &[u8]) -> Result<(), GuestAddress> {
        let mut done = 0;
        self.walk(offset, data.len(), |address, len| {
            let written = self.memory.write_slice(&data[done..done + len], address);
            done += len;
            written.map_err(|_| address)
        })
    }

    /// Copies from `offset` bytes behind the start of the list into `data`.
    ///
    /// # Errors
    /// As [`GuestVectors::copy_in`].
    pub(super) fn copy_out(&self, offset: usize, data: &mut [u8]) -> Result<(), GuestAddress> {
        let mut done = 0;
        self.walk(offset, data.len(), |address, len| {
            let read = self.memory.read_slice(&mut data[done..done + len], address);
            done += len;
            read.map_err(|_| address)
        })
    }

    fn front(&self, count: usize) -> &[libc::iovec] {
        let pieces = &self.pieces[self.first..];
        &pieces[..count.min(pieces.len()).min(MAX_PIECES)]
    }

    fn mark_dirty(&self, len: usize) {
        // Walking what was just written cannot fail.
        let _ = self.walk(0, len, |address, len| {
            if let Ok(slice) = self.memory.get_slice(address, len) {
                slice.bitmap().mark_dirty(0, len);
            }
            Ok(())
        });
    }

    /// Calls `visit` for each run of guest memory that makes up `len` bytes from `offset` on.
    fn walk(
        &self,
        mut offset: usize,
        mut len: usize,
        mut visit: impl FnMut(GuestAddress, usize) -> Result<(), GuestAddress>,
    ) -> Result<(), GuestAddress> {
        let front = self.pieces[self.first..].iter().zip(&self.addresses[self.first..]);
        for (piece, &address) in front {
            if len == 0 {
                return Ok(());
            }
            if offset >= piece.iov_len {
                offset -= piece.iov_len;
                continue;
            }
            let run = len.min(piece.iov_len - offset);
            visit(GuestAddress(address.0 + offset as u64), run)?;
            offset = 0;
            len -= run;
        }
        let end = self.addresses.last().copied().unwrap_or(GuestAddress(0));
        if len == 0 { Ok(()) } else { Err(end) }
    }
}
