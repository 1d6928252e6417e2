//! The host's software switch, which carries a VM's frames while it is emulated.
//!
//! The daemon only moves the forwarding entry of a VM's address between the uplink, behind which
//! the VF is, and the port of the VM's emulated path. It never creates bridges or ports.

mod bridge;

pub use bridge::Bridge;

use crate::netlink::NetlinkError;
use crate::ops::MacAddr;

/// Why the switch did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// No such bridge.
    #[error("there is no bridge '{bridge}': create it with 'ip link add {bridge} type bridge'")]
    NoBridge {
        /// The name.
        bridge: String,
    },
    /// The interface is no port of the switch.
    #[error("'{port}' is no port of bridge '{bridge}': run 'ip link set {port} master {bridge}'")]
    NotAPort {
        /// The interface.
        port: String,
        /// The switch.
        bridge: String,
    },
    /// The kernel took the request, but the entry is not what was asked for.
    #[error(
        "the forwarding entry of {mac} does not stay where it was put: does another program manage '{bridge}'?"
    )]
    Contested {
        /// The address.
        mac: MacAddr,
        /// The switch.
        bridge: String,
    },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// A switch with an uplink. Calls block; each is bounded in time and returns when it is in force.
pub trait Switch: Send + Sync {
    /// Whether `port` is one of the switch's.
    ///
    /// # Errors
    /// [`SwitchError::NotAPort`], or the kernel's refusal.
    fn check_port(&self, port: &str) -> Result<(), SwitchError>;

    /// Sends frames for `mac` to the uplink with interface index `uplink`, and learns nothing
    /// else for it.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn forward_to_uplink(&self, mac: MacAddr, uplink: u32) -> Result<(), SwitchError>;

    /// Sends frames for `mac` to `port`, and learns nothing else for it. With `None`, or a port
    /// that is gone, every port gets them until the switch has learned the address.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn forward_to_port(&self, mac: MacAddr, port: Option<&str>) -> Result<(), SwitchError>;

    /// Lets the switch learn and age the address by itself again. Frames go on to the port where
    /// they went, so that nothing is flooded, unless that is the uplink `uplink`.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn forget(&self, mac: MacAddr, uplink: u32) -> Result<(), SwitchError>;
}
