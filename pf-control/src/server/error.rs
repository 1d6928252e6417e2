//! Why the daemon does not serve.

use crate::capability::ProfileError;
use crate::inventory::InventoryError;
use crate::port::PolicyError;
use crate::state::StateError;
use crate::switch::SwitchError;
use crate::vendor::virtio::FunctionError;
use crate::vendor::{FamilyError, NoModule, VendorError};
use std::io;
use std::path::PathBuf;

/// Where the kernel names the present boot (proc(5)).
pub(super) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A reason not to serve; each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another daemon listens.
    #[error(
        "another pf-control serves at {}: stop it, or choose another socket (--socket)",
        socket.display()
    )]
    SocketInUse {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket cannot be made.
    #[error(
        "cannot listen at {}; choose a directory that exists and is writable",
        socket.display()
    )]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The group does not exist, or cannot be looked up.
    #[error("there is no group '{group}': make it (groupadd), or name another one (--group)")]
    Group {
        /// Its name.
        group: String,
        /// Why it cannot be looked up.
        source: Option<io::Error>,
    },
    /// A PF or VF is not usable as it is.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// No module for a PF.
    #[error(transparent)]
    NoModule(#[from] NoModule),
    /// A function on its own is not usable.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// A PF's driver refused.
    #[error(transparent)]
    Vendor(#[from] VendorError),
    /// The switch is not usable as it is.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The profiles make no sense.
    #[error(transparent)]
    Profiles(#[from] ProfileError),
    /// The policies of ports make no sense.
    #[error(transparent)]
    Ports(#[from] PolicyError),
    /// The families make no sense.
    #[error(transparent)]
    Families(#[from] FamilyError),
    /// What a former daemon knew cannot be read, or nothing can be written down.
    #[error(transparent)]
    State(#[from] StateError),
    /// The kernel does not tell its boot.
    #[error("cannot read {BOOT_ID}")]
    Boot(#[source] io::Error),
    /// No netlink.
    #[error("cannot open a netlink socket")]
    Netlink(#[source] io::Error),
    /// The runtime failed.
    #[error("the daemon's runtime failed")]
    Runtime(#[source] io::Error),
}
