//! What a vendor builds a data-path plugin against: the traits that a plugin implements, safe
//! access to the VF window and the queue memory, and [`net_plugin!`], which makes an image of it.
//!
//! A plugin written with this crate needs no `unsafe` and cannot reach memory that is not its
//! own: window accesses outside the window read ones, ring indices wrap. It keeps no state
//! outside what the shell gives it, so one image serves any number of devices.
//!
//! The same crate links as an ordinary library, for tests on the host ([`testbed`] behind the
//! feature of that name) or statically into a shell.
#![no_std]

#[cfg(feature = "testbed")]
extern crate std;

mod device;
mod header;
mod macros;
pub mod memory;
pub mod net;
#[cfg(feature = "testbed")]
pub mod testbed;
mod window;

pub use device::Device;
pub use header::{ImageInfo, pages};
pub use memory::{Memory, Ring};
pub use npa_abi as abi;
pub use window::Window;

use npa_abi::plugin::{ERR_ABI, ERR_CONFIG, ERR_DEVICE, ERR_QUEUE, Status};

/// Why an op failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The call tables are too small or of another ABI.
    Abi,
    /// The instance does not fit: queues, window, private memory.
    Config,
    /// The device does not answer as it must.
    Device,
    /// No such queue.
    Queue,
}

impl Error {
    /// The status that crosses the call.
    pub const fn status(self) -> Status {
        match self {
            Self::Abi => ERR_ABI,
            Self::Config => ERR_CONFIG,
            Self::Device => ERR_DEVICE,
            Self::Queue => ERR_QUEUE,
        }
    }
}
