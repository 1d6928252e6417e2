//! VF-side vendor control: what the VMM does to a VF on the control page that it keeps from the
//! guest. Reset, the mailbox to the PF's driver, link state, counters.
//!
//! A vendor's module is written against [`ControlRegion`] and knows neither VFIO nor the VMM;
//! the VMM uses it as [`VfControl`] and knows no register. It never touches a ring and never
//! waits without a deadline.

pub mod igbvf;

use crate::ops::MacAddr;
use std::time::Duration;

/// 32-bit access to the registers of the BAR that holds the VF's control page.
///
/// Offsets count from the BAR's start. A module stays within the control regions of the VF,
/// except for the single write that re-arms its own interrupt vector (see
/// [`VfControl::rearm`]), which may lie in a data page; so the whole BAR must be reachable.
/// Accesses must reach the device in program order.
pub trait ControlRegion {
    /// Reads the register at `offset`; all ones where there is no device any more.
    fn read32(&self, offset: u32) -> u32;
    /// Writes the register at `offset`.
    fn write32(&self, offset: u32, value: u32);
}

impl<R: ControlRegion + ?Sized> ControlRegion for Box<R> {
    fn read32(&self, offset: u32) -> u32 {
        (**self).read32(offset)
    }

    fn write32(&self, offset: u32, value: u32) {
        (**self).write32(offset, value);
    }
}

/// How the VF is to be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfConfig {
    /// MTU in bytes, 68 to 9000.
    pub mtu: u16,
    /// Groups whose frames the VF receives, broadcast not counted. More than the device can
    /// filter makes it receive every group's.
    pub multicast: Vec<MacAddr>,
    /// VLAN ids, 1 to 4094, whose tagged frames it receives.
    pub vlans: Vec<u16>,
}

/// What the PF said of the VF in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VfIdentity {
    /// The address that the PF assigned; `None` when the administrator set none.
    pub mac: Option<MacAddr>,
}

/// Something that happened to the VF without the VMM's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VfEvent {
    /// The PF is being reset; the VF does nothing until [`VfEvent::ResetDone`]. The end of the
    /// reset need not interrupt: poll every some milliseconds until it comes.
    ResetBegan,
    /// Always after [`VfEvent::ResetBegan`]. The PF is back and has forgotten the VF: call [`VfControl::init`], then have the plugin
    /// set up its rings and interrupts again.
    ResetDone,
    /// The link went up or down.
    LinkChanged {
        /// Whether it is up now.
        up: bool,
    },
    /// The VF does not answer any more: it was taken out of the machine.
    Gone,
}

/// Counters of the VF, all queues together, since its reset. They wrap at 2^32 (frames) or 2^32
/// bytes, as the device's registers do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VfStats {
    /// Good frames received.
    pub rx_frames: u32,
    /// Good bytes received.
    pub rx_bytes: u32,
    /// Multicast frames received, counted in `rx_frames` too.
    pub rx_multicast: u32,
    /// Good frames sent.
    pub tx_frames: u32,
    /// Good bytes sent.
    pub tx_bytes: u32,
}

/// Why the VF's control page did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VfControlError {
    /// No module knows the device.
    #[error("no VF control module serves PCI device {vendor:04x}:{device:04x}")]
    Unknown {
        /// PCI vendor.
        vendor: u16,
        /// PCI device.
        device: u16,
    },
    /// The configuration is out of the device's range.
    #[error("the VF cannot be configured: {0}")]
    Config(String),
    /// A step did not end in time.
    #[error("{step} did not end within {} ms: is the PF's driver alive?", after.as_millis())]
    TimedOut {
        /// What was waited for.
        step: &'static str,
        /// The bound.
        after: Duration,
    },
    /// The PF refused a message.
    #[error("the PF's driver refused {message}")]
    Refused {
        /// The message.
        message: &'static str,
    },
    /// The PF was reset in the middle; the handshake must start again.
    #[error("the PF was reset during {during}")]
    PfReset {
        /// What was going on.
        during: &'static str,
    },
    /// The VF reads as all ones.
    #[error("the VF does not answer: it was removed")]
    Gone,
}

/// The control of one open VF. One thread at a time uses it.
pub trait VfControl: Send {
    /// Resets the VF, greets the PF and applies `config`. To be called once the VF is open, and
    /// after [`VfEvent::ResetDone`]. Afterwards the PF lets the VF send and receive, as soon as
    /// the plugin enables its queues. Takes some milliseconds; bounded by a deadline of 3 s.
    ///
    /// # Errors
    /// [`VfControlError`]; the VF is then to be closed and released.
    fn init(&mut self, config: &VfConfig) -> Result<VfIdentity, VfControlError>;

    /// Applies another multicast and VLAN set and MTU to a VF that runs, without a reset.
    ///
    /// # Errors
    /// [`VfControlError`]; the old values may be in force in part.
    fn reconfigure(&mut self, config: &VfConfig) -> Result<(), VfControlError>;

    /// Stops all DMA of the VF now, whatever the guest does to its queues, until the next
    /// [`VfControl::init`]. Never waits.
    fn force_quiesce(&mut self);

    /// The next event, if one is pending. To be called until `None` after each interrupt of the
    /// control vector, then [`VfControl::rearm`]; may be called at any other time.
    fn poll_event(&mut self) -> Option<VfEvent>;

    /// Lets the control vector interrupt again. One write to the interrupt page.
    fn rearm(&mut self);

    /// Whether the VF has a link.
    fn link_up(&self) -> bool;

    /// The counters.
    fn stats(&self) -> VfStats;
}

/// The module that serves PCI device `vendor:device`, on its control registers.
///
/// # Errors
/// [`VfControlError::Unknown`].
pub fn open<R>(vendor: u16, device: u16, region: R) -> Result<Box<dyn VfControl>, VfControlError>
where
    R: ControlRegion + Send + 'static,
{
    match (vendor, device) {
        igbvf::PCI_ID => Ok(Box::new(igbvf::IgbVf::new(region))),
        _ => Err(VfControlError::Unknown { vendor, device }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl ControlRegion for Nothing {
        fn read32(&self, _: u32) -> u32 {
            u32::MAX
        }

        fn write32(&self, _: u32, _: u32) {}
    }

    #[test]
    fn the_module_is_found_by_pci_id() {
        assert!(open(0x8086, 0x10ca, Nothing).is_ok());
        assert_eq!(
            open(0x8086, 0x1520, Nothing).err(),
            Some(VfControlError::Unknown { vendor: 0x8086, device: 0x1520 })
        );
    }
}
