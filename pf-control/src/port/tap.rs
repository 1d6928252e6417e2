//! Opens tap interfaces that exist. Never creates or configures one: that is the matter of whoever
//! sets up the host.

#![allow(unsafe_code)] // ioctls on tap and socket descriptors

use std::ffi::c_int;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

const TUN_DEVICE: &str = "/dev/net/tun";

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

/// Opens the existing tap `name`: single queue, with a virtio-net header before each frame,
/// non-blocking.
///
/// # Errors
/// [`TapError`], which says what to do.
pub fn attach(name: &str) -> Result<OwnedFd, TapError> {
    let mut request = request_for(name)?;
    // Attaching to a name that does not exist would create it, for a privileged user, and
    // hide the mistake behind a NIC that leads nowhere.
    dimensions(name)?;
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
            _ => TapError::Io { name: name.to_owned(), step: "attach", source },
        });
    }
    Ok(file.into())
}

/// MTU in bytes, 68 to 65535, and queue length in frames, at least 1, of the interface `name`.
///
/// # Errors
/// [`TapError`]: no such interface, or the kernel's refusal.
pub fn dimensions(name: &str) -> Result<(u16, u32), TapError> {
    let failed = |step| move |source| TapError::Io { name: name.to_owned(), step, source };
    // SAFETY: no pointers are passed.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(failed("open a socket")(io::Error::last_os_error()));
    }
    // SAFETY: `socket` is a descriptor that nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let ask = |operation, step| -> Result<c_int, TapError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for bad in ["", "sixteen-bytes-xx", "a/b", "a b", "a\0b"] {
            assert!(matches!(attach(bad), Err(TapError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_missing_interface_says_how_to_make_it() {
        let error = attach("npa-no-such").unwrap_err();
        assert!(error.to_string().contains("ip tuntap add npa-no-such"), "{error}");
    }
}
