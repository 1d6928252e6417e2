//! A tap interface of the host as frame carrier. Never creates or configures the interface: that
//! needs privilege, and belongs to whoever sets up the host.

#![allow(unsafe_code)] // ioctls on tap and socket descriptors

use std::ffi::c_ulong;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use pf_control::port::{self, TapError};

use super::backend::{FrameBackend, ReceiveOffloads};
use super::header::HEADER_LEN;

// linux/if_tun.h
const TUN_F_CSUM: c_ulong = 0x01;
const TUN_F_TSO4: c_ulong = 0x02;
const TUN_F_TSO6: c_ulong = 0x04;
const TUN_F_TSO_ECN: c_ulong = 0x08;

/// An opened tap interface.
#[derive(Debug)]
pub struct Tap {
    file: File,
    queue_length: u32,
    mtu: u16,
    /// The interface's count of frames that its queue had no room for, where that can be read.
    dropped: Option<File>,
}

impl Tap {
    /// Opens the existing interface `name`.
    ///
    /// # Errors
    /// [`TapError`], which says what to do.
    pub fn open(name: &str) -> Result<Self, TapError> {
        Self::adopt(name, port::attach(name)?)
    }

    /// Takes over the interface `name`, which `file` is the open one of.
    ///
    /// # Errors
    /// [`TapError`], which says what to do.
    pub fn adopt(name: &str, file: OwnedFd) -> Result<Self, TapError> {
        let failed = |step| move |source| TapError::Io { name: name.to_owned(), step, source };
        let (mtu, queue_length) = port::dimensions(name)?;
        let header = HEADER_LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &header) };
        if set < 0 {
            return Err(failed("set the header size")(io::Error::last_os_error()));
        }
        let dropped = File::open(format!("/sys/class/net/{name}/statistics/tx_dropped")).ok();
        let mut tap = Self { file: file.into(), queue_length, mtu, dropped };
        tap.set_receive_offloads(ReceiveOffloads::default()).map_err(failed("set offloads"))?;
        Ok(tap)
    }

    /// Largest payload in bytes that the interface carries.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl FrameBackend for Tap {
    fn set_receive_offloads(&mut self, offloads: ReceiveOffloads) -> io::Result<()> {
        let mut bits = 0;
        if offloads.checksum {
            bits |= TUN_F_CSUM;
            // The driver refuses segmentation without checksum offload.
            bits |= if offloads.tso4 { TUN_F_TSO4 } else { 0 };
            bits |= if offloads.tso6 { TUN_F_TSO6 } else { 0 };
            let ecn = offloads.ecn && (offloads.tso4 || offloads.tso6);
            bits |= if ecn { TUN_F_TSO_ECN } else { 0 };
        }
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let set = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, bits) };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn capacity(&self) -> u32 {
        self.queue_length
    }

    fn dropped(&self) -> Option<u64> {
        let mut text = [0; 24];
        let len = self.dropped.as_ref()?.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..len]).ok()?.trim().parse().ok()
    }
}
