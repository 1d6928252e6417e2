//! Who may have which port. A tap says itself whom it is for (`ip tuntap add … user U group G`); one
//! that says nothing is for root and the daemon's user.

use super::tap::{self, TapError};
use crate::ops::{OpError, with_causes};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The process that asks, as the kernel says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// Its user.
    pub(crate) uid: Option<u32>,
    /// Its first group.
    pub(crate) gid: Option<u32>,
    /// Whether it may do what concerns others.
    pub(crate) is_admin: bool,
}

/// The host's taps.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    /// Where sysfs has the interfaces.
    interfaces: PathBuf,
}

impl Default for Ports {
    fn default() -> Self {
        Self { interfaces: "/sys/class/net".into() }
    }
}

impl Ports {
    /// Opens the tap `port` for the caller.
    ///
    /// # Errors
    /// [`OpError::Port`]: it is not there, in use, or not the caller's.
    pub(crate) fn open(&self, port: &str, caller: Caller) -> Result<OwnedFd, OpError> {
        self.check(port, caller)?;
        tap::attach(port).map_err(refused)
    }

    /// Whether the caller may have the tap `port`, or speak for it.
    ///
    /// # Errors
    /// [`OpError::Port`]: it is not there, or not the caller's.
    pub(crate) fn check(&self, port: &str, caller: Caller) -> Result<(), OpError> {
        if caller.is_admin {
            return Ok(());
        }
        // Which looks at the name too, before it becomes part of a path.
        tap::dimensions(port).map_err(refused)?;
        match self.is_for(port, caller) {
            true => Ok(()),
            false => Err(refused(TapError::Permission(port.to_owned()))),
        }
    }

    /// Whether the tap is for the caller.
    fn is_for(&self, port: &str, caller: Caller) -> bool {
        let is = |attribute: &str, id: Option<u32>| {
            let path = self.interfaces.join(port).join(attribute);
            let says = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
            // Without one, the kernel says -1.
            id.is_some() && says == id
        };
        is("owner", caller.uid) || is("group", caller.gid)
    }
}

fn refused(error: TapError) -> OpError {
    OpError::Port { reason: with_causes(&error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_is_for_whom_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let tap = |name: &str, owner: &str, group: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("owner"), owner).unwrap();
            std::fs::write(path.join("group"), group).unwrap();
        };
        tap("his", "990\n", "-1\n");
        tap("theirs", "-1\n", "50\n");
        tap("nobodys", "-1\n", "-1\n");
        std::fs::create_dir(folder.path().join("eth0")).unwrap();
        let ports = Ports { interfaces: folder.path().into() };
        let caller = |uid, gid| Caller { uid: Some(uid), gid: Some(gid), is_admin: false };
        for (port, caller, may) in [
            ("his", caller(990, 1), true),
            ("his", caller(991, 990), false),
            ("theirs", caller(1, 50), true),
            ("theirs", caller(50, 1), false),
            ("nobodys", caller(u32::MAX, u32::MAX), false),
            ("nobodys", Caller { uid: None, gid: None, is_admin: false }, false),
            ("eth0", caller(0, 0), false),
        ] {
            assert_eq!(ports.is_for(port, caller), may, "{port} for {caller:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_said_so() {
        for is_admin in [false, true] {
            let caller = Caller { uid: Some(1), gid: Some(1), is_admin };
            let error = Ports::default().open("npa-no-such", caller).unwrap_err();
            assert!(error.to_string().contains("there is no interface `npa-no-such`"), "{error}");
        }
    }

    #[test]
    fn only_an_admin_speaks_for_what_is_nobody_s() {
        // There everywhere, and a tap nowhere.
        let caller = |is_admin| Caller { uid: Some(1), gid: Some(1), is_admin };
        assert!(Ports::default().check("lo", caller(true)).is_ok());
        for port in ["lo", "../lo", "npa-no-such"] {
            let refused = Ports::default().check(port, caller(false));
            assert!(matches!(refused, Err(OpError::Port { .. })), "{port}: {refused:?}");
        }
    }
}
