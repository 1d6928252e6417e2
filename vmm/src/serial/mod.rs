//! The serial console: a 16550 on COM1, its output buffered and its other end on stdio, a file
//! or a Unix socket. A vCPU never waits for whoever reads the console.

mod backend;
mod console;
mod output;
mod saved;
mod target;
mod uart;

pub(crate) use console::Console;
pub use target::{ParseSerialTarget, SerialTarget};

/// A console that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SerialError {
    /// The file or socket cannot be made.
    #[error("cannot open serial console {target}; choose another --serial")]
    Open {
        /// What was asked for.
        target: SerialTarget,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Another process listens on the socket.
    #[error("serial socket {0} is in use by another process; choose another --serial")]
    InUse(String),
    /// No eventfd.
    #[error("cannot make an eventfd for the serial console")]
    EventFd(#[source] std::io::Error),
    /// The interrupt cannot be wired.
    #[error("cannot wire the serial interrupt")]
    Irq(#[from] crate::interrupts::IrqError),
    /// The event loop is gone.
    #[error(transparent)]
    EventLoop(#[from] crate::vm::EventLoopError),
}
