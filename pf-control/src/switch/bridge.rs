//! A Linux bridge as the switch.

use super::{Switch, SwitchError};
use crate::netlink::{FdbEntry, FdbKind, Link, Netlink};
use crate::ops::MacAddr;

/// A Linux bridge, by name.
pub struct Bridge {
    name: String,
    netlink: Netlink,
}

impl Bridge {
    /// The bridge called `name`.
    ///
    /// # Errors
    /// [`SwitchError::NoBridge`], or the kernel's refusal.
    pub fn open(name: &str, netlink: Netlink) -> Result<Self, SwitchError> {
        let bridge = Self { name: name.to_owned(), netlink };
        bridge.link()?;
        Ok(bridge)
    }

    fn link(&self) -> Result<Link, SwitchError> {
        self.netlink.link(&self.name).map_err(|error| {
            if error.is_absent() {
                SwitchError::NoBridge { bridge: self.name.clone() }
            } else {
                error.into()
            }
        })
    }

    fn port(&self, name: &str) -> Result<Link, SwitchError> {
        let not_a_port =
            || SwitchError::NotAPort { port: name.to_owned(), bridge: self.name.clone() };
        let bridge = self.link()?.index;
        match self.netlink.link(name) {
            Ok(link) if link.controller == Some(bridge) => Ok(link),
            Ok(_) => Err(not_a_port()),
            Err(error) if error.is_absent() => Err(not_a_port()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a fixed entry.
    ///
    /// The kernel writes the port first and the sticky mark after it, and a frame with that
    /// source address that arrives between the two moves the entry back, where the mark then
    /// holds it. So the request goes twice: by the second time the mark is there and learning is
    /// off for the entry, whichever port it has.
    fn put(&self, mac: MacAddr, port: u32) -> Result<(), SwitchError> {
        self.netlink.fdb_replace(port, mac, FdbKind::Fixed)?;
        self.netlink.fdb_replace(port, mac, FdbKind::Fixed)?;
        match self.netlink.fdb_entry(self.link()?.index, mac)? {
            Some(entry) if entry == (FdbEntry { port, kind: FdbKind::Fixed }) => Ok(()),
            _ => Err(SwitchError::Contested { mac, bridge: self.name.clone() }),
        }
    }

    fn remove(&self, mac: MacAddr) -> Result<(), SwitchError> {
        if let Some(entry) = self.netlink.fdb_entry(self.link()?.index, mac)? {
            self.netlink.fdb_delete(entry.port, mac)?;
        }
        Ok(())
    }
}

impl Switch for Bridge {
    fn check_port(&self, port: &str) -> Result<(), SwitchError> {
        self.port(port).map(drop)
    }

    fn forward_to_uplink(&self, mac: MacAddr, uplink: u32) -> Result<(), SwitchError> {
        self.put(mac, uplink)
    }

    fn forward_to_port(&self, mac: MacAddr, port: Option<&str>) -> Result<(), SwitchError> {
        let Some(port) = port else { return self.remove(mac) };
        match self.port(port) {
            Ok(link) => self.put(mac, link.index),
            // The VM is gone, and its port with it.
            Err(SwitchError::NotAPort { .. }) => self.remove(mac),
            Err(error) => Err(error),
        }
    }

    fn forget(&self, mac: MacAddr, uplink: u32) -> Result<(), SwitchError> {
        match self.netlink.fdb_entry(self.link()?.index, mac)? {
            Some(entry) if entry.port == uplink => Ok(self.netlink.fdb_delete(uplink, mac)?),
            Some(FdbEntry { port, kind: FdbKind::Fixed }) => {
                match self.netlink.fdb_replace(port, mac, FdbKind::Learned) {
                    // A port without carrier, as a tap that nobody holds open, learns nothing,
                    // and nothing need be sent there.
                    Err(error) if error.is_not_permitted() => {
                        Ok(self.netlink.fdb_delete(port, mac)?)
                    }
                    outcome => Ok(outcome?),
                }
            }
            Some(FdbEntry { kind: FdbKind::Learned, .. }) | None => Ok(()),
        }
    }
}
