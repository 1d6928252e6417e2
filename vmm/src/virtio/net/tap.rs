//! A tap interface of the host as frame carrier. Never creates or configures the interface: that
//! needs privilege, and belongs to whoever sets up the host.

#![allow(unsafe_code)] // ioctls on tap and socket descriptors

use std::ffi::c_ulong;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::backend::{FrameBackend, ReceiveOffloads};
use super::header::HEADER_LEN;

const TUN_DEVICE: &str = "/dev/net/tun";

// linux/if_tun.h
const TUN_F_CSUM: c_ulong = 0x01;
const TUN_F_TSO4: c_ulong = 0x02;
const TUN_F_TSO6: c_ulong = 0x04;
const TUN_F_TSO_ECN: c_ulong = 0x08;

/// Why a tap interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// An interface name is empty or too long.
    #[error("`{0}` is no interface name: it must have 1 to 15 bytes, without / or spaces")]
    Name(String),
    /// No tun driver.
    #[error(
        "cannot open {TUN_DEVICE}; load the driver with `modprobe tun` and check that this user may open it"
    )]
    Device(#[source] io::Error),
    /// There is no such interface.
    #[error(
        "there is no interface `{0}`; create it with `ip tuntap add {0} mode tap user $USER \
         vnet_hdr && ip link set {0} up`"
    )]
    Missing(String),
    /// Another process uses the interface.
    #[error("tap `{0}` is in use by another process; give each network card a tap of its own")]
    Busy(String),
    /// This user may not use the interface.
    #[error("no permission to use tap `{0}`; create it with `user $USER`, or run as its owner")]
    Permission(String),
    /// The interface exists but is not a tap, or was created with other flags.
    #[error(
        "interface `{0}` is no single-queue tap; name one, as `ip tuntap add NAME mode tap user \
         $USER vnet_hdr` creates it"
    )]
    NotTap(String),
    /// Any other refusal.
    #[error("cannot use tap `{name}` ({step})")]
    Io {
        /// The interface.
        name: String,
        /// What was tried.
        step: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

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
        let mut request = request_for(name)?;
        let failed = |step| move |source| TapError::Io { name: name.to_owned(), step, source };
        // Attaching to a name that does not exist would create it, for a privileged user, and
        // hide the mistake behind a NIC that leads nowhere.
        let mtu = read_interface(name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(TUN_DEVICE)
            .map_err(TapError::Device)?;

        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
        let attached = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
        if attached < 0 {
            let source = io::Error::last_os_error();
            return Err(match source.raw_os_error() {
                Some(libc::EBUSY) => TapError::Busy(name.to_owned()),
                Some(libc::EPERM | libc::EACCES) => TapError::Permission(name.to_owned()),
                Some(libc::EINVAL) => TapError::NotTap(name.to_owned()),
                _ => failed("attach")(source),
            });
        }
        let header = HEADER_LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &header) };
        if set < 0 {
            return Err(failed("set the header size")(io::Error::last_os_error()));
        }
        let dropped = File::open(format!("/sys/class/net/{name}/statistics/tx_dropped")).ok();
        let mut tap = Self { file, queue_length: mtu.1, mtu: mtu.0, dropped };
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

/// An `ifreq` for an interface name.
fn request_for(name: &str) -> Result<libc::ifreq, TapError> {
    let valid = (1..libc::IFNAMSIZ).contains(&name.len())
        && !name.bytes().any(|byte| byte == b'/' || byte == 0 || byte.is_ascii_whitespace());
    if !valid {
        return Err(TapError::Name(name.to_owned()));
    }
    // SAFETY: an ifreq is plain data, for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// MTU in bytes and queue length in frames of an interface.
fn read_interface(name: &str) -> Result<(u16, u32), TapError> {
    let failed = |step| move |source| TapError::Io { name: name.to_owned(), step, source };
    // SAFETY: no pointers are passed.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(failed("open a socket")(io::Error::last_os_error()));
    }
    // SAFETY: `socket` is a descriptor that nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let ask = |operation, step| {
        let mut request = request_for(name)?;
        // SAFETY: both operations read the name and write an int in the ifreq.
        if unsafe { libc::ioctl(socket.as_raw_fd(), operation, &mut request) } < 0 {
            let source = io::Error::last_os_error();
            return Err(match source.raw_os_error() {
                Some(libc::ENODEV) => TapError::Missing(name.to_owned()),
                _ => failed(step)(source),
            });
        }
        // SAFETY: an int was written there; ifr_qlen and ifr_mtu share their place.
        Ok(unsafe { request.ifr_ifru.ifru_mtu })
    };
    let mtu = ask(libc::SIOCGIFMTU, "read the MTU")?;
    let queue = ask(libc::SIOCGIFTXQLEN, "read the queue length")?;
    // The host may have a larger MTU than the 16 bits a guest can be told.
    Ok((mtu.clamp(68, 65_535) as u16, queue.max(1) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for bad in ["", "sixteen-bytes-xx", "a/b", "a b", "a\0b"] {
            assert!(matches!(Tap::open(bad), Err(TapError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_missing_interface_says_how_to_make_it() {
        let error = Tap::open("npa-no-such").unwrap_err();
        assert!(error.to_string().contains("ip tuntap add npa-no-such"), "{error}");
    }
}
