//! VF control for the Intel 82576 ("igbvf"): BAR0's page 0.
//!
//! Source: Intel 82576EB Datasheet, 7.10 (virtualization) and 8.0 (registers), and the public
//! PF driver's behaviour.

mod control;
mod mailbox;
mod registers;

#[cfg(test)]
mod fake_pf;

pub use control::IgbVf;

use std::time::Duration;

/// PCI vendor and device of the VF.
pub const PCI_ID: (u16, u16) = (0x8086, 0x10ca);

/// How long to wait for what. The PF's driver answers in an interrupt, normally within 2 ms, but
/// a busy host may be late.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Pause between two looks at a register.
    pub(crate) poll: Duration,
    /// Bound of one message and its reply.
    pub(crate) exchange: Duration,
    /// Bound of a whole [`VfControl::init`](super::VfControl::init).
    pub(crate) init: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Duration::from_micros(100),
            exchange: Duration::from_millis(500),
            init: Duration::from_secs(3),
        }
    }
}
