//! VF-side vendor control: what the VMM does to a VF on the control page that it keeps from the
//! guest. Reset, the mailbox to the PF's driver, link state, counters.
//!
//! A vendor's module is written against [`ControlRegion`] and knows neither VFIO nor the VMM;
//! the VMM uses it as [`VfControl`] and knows no register. It never touches a ring and never
//! waits without a deadline.

pub mod igbvf;
pub mod virtio;

use crate::ops::{MacAddr, limits};
use std::time::Duration;

/// Access to the registers of the BAR that holds the VF's control page, and to the function's
/// configuration space.
///
/// Offsets count from the BAR's start. A module stays within the control regions of the VF,
/// except for the write that re-arms its own interrupt vector (see [`VfControl::rearm`]) and for
/// doorbells, which may lie in a data page; so the whole BAR must be reachable. Accesses must reach
/// the device in program order, each as one of its width: 1, 2 or 4 bytes, little endian.
pub trait ControlRegion {
    /// Reads the register at `offset`; all ones where there is no device any more.
    fn read(&self, offset: u32, bytes: &mut [u8]);
    /// Writes the register at `offset`.
    fn write(&self, offset: u32, bytes: &[u8]);
    /// Reads configuration space at `offset`, 0 to 255.
    fn read_config(&self, offset: u16, bytes: &mut [u8]);

    /// A register of 8 bits.
    fn read8(&self, offset: u32) -> u8 {
        let mut bytes = [0];
        self.read(offset, &mut bytes);
        bytes[0]
    }

    /// A register of 16 bits.
    fn read16(&self, offset: u32) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// A register of 32 bits.
    fn read32(&self, offset: u32) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// A register of 8 bits.
    fn write8(&self, offset: u32, value: u8) {
        self.write(offset, &[value]);
    }

    /// A register of 16 bits.
    fn write16(&self, offset: u32, value: u16) {
        self.write(offset, &value.to_le_bytes());
    }

    /// A register of 32 bits.
    fn write32(&self, offset: u32, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }
}

impl<R: ControlRegion + ?Sized> ControlRegion for Box<R> {
    fn read(&self, offset: u32, bytes: &mut [u8]) {
        (**self).read(offset, bytes);
    }

    fn write(&self, offset: u32, bytes: &[u8]) {
        (**self).write(offset, bytes);
    }

    fn read_config(&self, offset: u16, bytes: &mut [u8]) {
        (**self).read_config(offset, bytes);
    }
}

/// What a network device does for frames that are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Fills in layer 4 checksums.
    pub checksum: bool,
    /// Cuts TCP over IPv4 into segments.
    pub tso4: bool,
    /// Cuts TCP over IPv6 into segments.
    pub tso6: bool,
}

impl Offloads {
    /// All of it.
    pub const ALL: Self = Self { checksum: true, tso4: true, tso6: true };

    /// The names of what is here and not in `other`.
    pub fn beyond(self, other: Self) -> Vec<&'static str> {
        let each = [
            (self.checksum && !other.checksum, "checksums"),
            (self.tso4 && !other.tso4, "TCP segmentation over IPv4"),
            (self.tso6 && !other.tso6, "TCP segmentation over IPv6"),
        ];
        each.into_iter().filter_map(|(lacks, name)| lacks.then_some(name)).collect()
    }
}

/// The memory of one queue, in the guest's RAM, where the VF's DMA reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueMemory {
    /// Where, for the VF.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// Entries of the ring, which the plugin has laid out in it.
    pub entries: u32,
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

    /// Writes what the plugin must know of the VF, and only the VF can tell, into the vendor's
    /// words (8 and up) of its device information. After [`VfControl::init`].
    fn describe(&self, _words: &mut [u32; limits::DEVICE_INFO_WORDS]) {}

    /// Most entries that its rings can have: receive, transmit. After [`VfControl::init`].
    fn ring_limits(&self) -> [u16; 2] {
        [u16::MAX; 2]
    }

    /// What it does for frames that are sent. After [`VfControl::init`].
    fn offloads(&self) -> Offloads {
        Offloads::ALL
    }

    /// Tells the VF where its queues are, for devices whose queues are set up on the control side:
    /// the plugin has set the rings up, receive and transmit by turns, and filled receive.
    ///
    /// # Errors
    /// [`VfControlError`]; the VF is then to be closed and released.
    fn start(&mut self, _queues: &[QueueMemory]) -> Result<(), VfControlError> {
        Ok(())
    }

    /// Lets frames reach the VF, for devices with no switch before them that would do so. Just
    /// before forwarding moves to it.
    ///
    /// # Errors
    /// [`VfControlError`]; the VF is then to be closed and released.
    fn admit(&mut self) -> Result<(), VfControlError> {
        Ok(())
    }

    /// Lets no more frames reach it, once forwarding has moved away and the plugin's transmits are
    /// done. What it has received stays in its ring.
    ///
    /// # Errors
    /// [`VfControlError`]; the VF is then taken away by force.
    fn dismiss(&mut self) -> Result<(), VfControlError> {
        Ok(())
    }

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
        virtio::PCI_ID => Ok(Box::new(virtio::VirtioNet::new(region))),
        _ => Err(VfControlError::Unknown { vendor, device }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl ControlRegion for Nothing {
        fn read(&self, _: u32, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }

        fn write(&self, _: u32, _: &[u8]) {}

        fn read_config(&self, _: u16, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }
    }

    #[test]
    fn the_module_is_found_by_pci_id() {
        assert!(open(0x8086, 0x10ca, Nothing).is_ok());
        assert!(open(0x1af4, 0x1041, Nothing).is_ok());
        assert_eq!(
            open(0x8086, 0x1520, Nothing).err(),
            Some(VfControlError::Unknown { vendor: 0x8086, device: 0x1520 })
        );
    }
}
