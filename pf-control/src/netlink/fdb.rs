//! The forwarding database of a Linux bridge.

use super::{Netlink, NetlinkError};
use crate::ops::MacAddr;
use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

/// Who may change an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdbKind {
    /// Nobody but us: it does not age (`NUD_NOARP`), and a frame with that source address that
    /// comes in elsewhere does not move it (`NTF_STICKY`).
    Fixed,
    /// The bridge: it ages and follows the station, as if it had been learned (`NUD_REACHABLE`).
    Learned,
}

/// An entry that sends an address to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbEntry {
    /// The port's interface index.
    pub port: u32,
    /// Who may change it.
    pub kind: FdbKind,
}

impl Netlink {
    /// Makes the bridge of `port` send `mac` to `port`, in one step when an entry exists.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn fdb_replace(&self, port: u32, mac: MacAddr, kind: FdbKind) -> Result<(), NetlinkError> {
        let (state, flags) = match kind {
            FdbKind::Fixed => {
                (NeighbourState::Noarp, NeighbourFlags::Controller | NeighbourFlags::Sticky)
            }
            FdbKind::Learned => (NeighbourState::Reachable, NeighbourFlags::Controller),
        };
        let work = self
            .handle
            .neighbours()
            .add_bridge(port, &mac.0)
            .state(state)
            .flags(flags)
            .replace()
            .execute();
        self.run(|| format!("forwarding {mac} to port {port}"), work)
    }

    /// Removes the entry of `mac` at `port`; none is no error.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn fdb_delete(&self, port: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port;
        message.header.flags = NeighbourFlags::Controller;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let work = self.handle.neighbours().del(message).execute();
        match self.run(|| format!("removing the entry of {mac} at port {port}"), work) {
            Err(error) if error.is_absent() => Ok(()),
            other => other,
        }
    }

    /// Where `bridge` sends `mac`, if it knows.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn fdb_entry(&self, bridge: u32, mac: MacAddr) -> Result<Option<FdbEntry>, NetlinkError> {
        let work = async {
            let mut entries =
                self.handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
            let mut found = None;
            // The dump is read to its end: a request given up half-way would hold up the next.
            while let Some(message) = entries.try_next().await? {
                if is_entry(&message, bridge, mac) {
                    let sticky = message.header.flags.contains(NeighbourFlags::Sticky);
                    let kind = if sticky { FdbKind::Fixed } else { FdbKind::Learned };
                    found = Some(FdbEntry { port: message.header.ifindex, kind });
                }
            }
            Ok(found)
        };
        self.run(|| format!("reading the forwarding entry of {mac}"), work)
    }
}

fn is_entry(message: &NeighbourMessage, bridge: u32, mac: MacAddr) -> bool {
    let has = |wanted: NeighbourAttribute| message.attributes.contains(&wanted);
    has(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()))
        && has(NeighbourAttribute::Controller(bridge))
        && !message.header.flags.contains(NeighbourFlags::Own)
}
