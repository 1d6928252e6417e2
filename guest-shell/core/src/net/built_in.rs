//! The emulated path: the virtio-net plugin, linked into the shell, on the emulated queues, and
//! the device's control side.

use super::callbacks::shell_api;
use super::calls::NetCalls;
use super::path::{NetPath, RX_QUEUE, RxSlots, TX_QUEUE};
use super::shell::StartError;
use crate::os::NetOs;
use crate::plugin::{InstanceMemory, Layout, Place, enter_built_in};
use crate::virtio::{CommandError, Commands, QueuePlace, VirtioDevice, VirtioError};
use npa_abi::Class;
use npa_abi::net::{NetOps, RX_SEGMENTS_MAX};
use npa_abi::plugin::{OK, ShellApi};
use npa_abi::register::DEVICE_INFO_WORDS;
use npa_abi::shell_page::{QUEUES_MAX, QueueDescriptor};
use virtio_net_plugin::{
    FEATURES, HEADER, HEADER_LENGTH, QueueLayout, VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MRG_RXBUF, VirtioInfo,
};

// Control features and configuration of virtio-net (virtio 1.2, 5.1.3 and 5.1.4).
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_STATUS: u64 = 1 << 16;
const F_CTRL_VQ: u64 = 1 << 17;
const F_GUEST_ANNOUNCE: u64 = 1 << 21;
const CONFIG_MAC: u64 = 0;
const CONFIG_STATUS: u64 = 6;
const CONFIG_MTU: u64 = 10;
const STATUS_LINK_UP: u16 = 1;
const STATUS_ANNOUNCE: u16 = 2;

/// The control queue of a device with one pair of queues (virtio 1.2, 5.1.2).
const CONTROL_QUEUE: u16 = 2;
// Command of virtio 1.2, 5.1.6.5.4: class and number.
const CTRL_ANNOUNCE: u8 = 3;
const ANNOUNCE_ACK: u8 = 0;

/// Features by which the device hands over merged frames.
const MERGED: u64 = VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6;

/// Longest merged frame with its virtio header, in bytes: an IP packet, an Ethernet header and a
/// VLAN tag.
const MERGED_MAX: u32 = 65_535 + 14 + 4 + HEADER_LENGTH;

/// Entries that a ring gets where the device allows.
pub(super) const RING_ENTRIES: u32 = 256;

/// Entries that a VF's receive ring gets where the plugin allows. It holds what arrives between the
/// address's move to the VF and the end of the emulated path's frames, which may be a good part
/// of the host's deadline when the guest is short of CPU; a ring that is full then loses frames.
pub(super) const VF_RECEIVE_ENTRIES: u32 = 4096;

/// MTU where the device names none, in bytes.
const MTU_DEFAULT: u16 = 1500;

/// MSI-X vector of configuration changes and NPA events.
const CONFIG_VECTOR: u16 = 0;
/// MSI-X vector of the receive queue.
const RX_VECTOR: u16 = 1;
/// MSI-X vector of the transmit queue.
const TX_VECTOR: u16 = 2;

/// What the interface can have done for it, whichever path carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Transmit checksums.
    pub tx_checksum: bool,
    /// TCP/IPv4 segmentation.
    pub tx_tso4: bool,
    /// TCP/IPv6 segmentation.
    pub tx_tso6: bool,
    /// Receive checksums.
    pub rx_checksum: bool,
    /// Merged TCP frames may be received.
    pub rx_merged: bool,
}

/// Facts of a started interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// MAC address.
    pub mac: [u8; 6],
    /// MTU in bytes, without the Ethernet header.
    pub mtu: u16,
    /// Whether the link is up.
    pub link_up: bool,
    /// Offloads.
    pub offloads: Offloads,
    /// Entries of the receive ring.
    pub rx_entries: u16,
    /// Entries of the transmit ring.
    pub tx_entries: u16,
    /// Whether the device can be accelerated: it has NPA registers and a landing, and the host
    /// took the registration.
    pub accelerable: bool,
}

/// What the device says of itself at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceStatus {
    /// Whether the link is up.
    pub(super) link_up: bool,
    /// The network is to be told where this interface is; the device asks until it hears that it was.
    pub(super) announce: bool,
}

/// The emulated device.
#[derive(Clone, Copy, Debug)]
pub(super) struct BuiltIn {
    device: VirtioDevice,
    features: u64,
}

impl BuiltIn {
    /// Resets and negotiates.
    pub(super) fn begin<O: NetOs>(os: &O) -> Result<Self, StartError> {
        let device = VirtioDevice::find(os)?;
        let mut wanted = FEATURES | F_MTU | F_MAC | F_STATUS | F_CTRL_VQ | F_GUEST_ANNOUNCE;
        let longest = os.rx_buffer_length().saturating_mul(RX_SEGMENTS_MAX as u32);
        if longest < MERGED_MAX {
            wanted &= !MERGED;
        }
        device.reset(os)?;
        let mut features = device.negotiate(os, wanted)?;
        let needed = VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_GUEST_CSUM;
        if features & MERGED != 0 && features & needed != needed {
            // A merged frame needs several buffers and has no whole checksum.
            device.reset(os)?;
            features = device.negotiate(os, wanted & !MERGED)?;
        }
        Ok(Self { device, features })
    }

    /// The control queue, if the device has use for it.
    pub(super) fn commands<O: NetOs>(&self, os: &O) -> Result<Option<Commands>, StartError> {
        let needed = F_CTRL_VQ | F_GUEST_ANNOUNCE;
        if self.features & needed != needed {
            return Ok(None);
        }
        Commands::new(os, CONTROL_QUEUE).map(Some).ok_or(StartError::NoMemory)
    }

    /// Sets up the queues and their plugin, fills receive and lets the device go.
    pub(super) fn open_path<O: NetOs>(
        &self,
        os: &O,
        commands: Option<&Commands>,
    ) -> Result<NetPath, StartError> {
        let mut ops = EMPTY_OPS;
        if enter_built_in(virtio_net_plugin::entry, Class::Net, &mut ops) != OK {
            return Err(StartError::Plugin);
        }
        let calls =
            NetCalls::check(&ops, crate::plugin::Code::BuiltIn).ok_or(StartError::Plugin)?;
        let entries = self.entries(os)?;
        let layout = Layout {
            private_length: HEADER.private_length,
            queue_count: 2,
            role_count: 2,
            roles: HEADER.roles,
            entries,
        };
        let notify = self.device.locations().notify;
        let window =
            os.bar_memory(notify.bar, notify.offset, notify.length).ok_or(StartError::NoMemory)?;
        let buffer_length = os.rx_buffer_length();
        let place = Place {
            window,
            window_length: notify.length,
            buffer_length,
            vector_count: 2,
            device_info: self.device_info(os)?,
        };
        let instance =
            InstanceMemory::new(os, &layout, &place, api::<O>()).ok_or(StartError::NoMemory)?;
        let descriptors = instance.descriptors();
        let Some(slots) = RxSlots::new(os, entries[0], buffer_length) else {
            instance.free(os);
            return Err(StartError::NoMemory);
        };
        let mut path = NetPath::new(calls, instance, slots, false);
        match self.bring_up(os, &mut path, &descriptors, commands) {
            Ok(()) => Ok(path),
            Err(error) => {
                // Nobody may write to the memory that is freed now.
                if self.device.reset(os).is_ok() {
                    path.free(os);
                }
                Err(error)
            }
        }
    }

    fn bring_up<O: NetOs>(
        &self,
        os: &O,
        path: &mut NetPath,
        descriptors: &[QueueDescriptor; QUEUES_MAX],
        commands: Option<&Commands>,
    ) -> Result<(), StartError> {
        path.sw_init(os).map_err(|_| StartError::Plugin)?;
        path.reinit(os).map_err(|_| StartError::Plugin)?;
        self.device.set_config_vector(os, CONFIG_VECTOR)?;
        let queues = [(RX_QUEUE, RX_VECTOR), (TX_QUEUE, TX_VECTOR)];
        for ((queue, vector), memory) in queues.into_iter().zip(descriptors) {
            let layout = QueueLayout::new(memory.entries);
            let at = |offset: u64| memory.base.saturating_add(offset);
            let place = QueuePlace {
                entries: memory.entries as u16,
                descriptors: at(layout.descriptors),
                driver: at(layout.driver),
                device: at(layout.device),
                vector,
            };
            self.device.enable_queue(os, queue as u16, &place)?;
        }
        if let Some(commands) = commands {
            commands.enable(os, &self.device)?;
        }
        self.device.go(os);
        match path.fill(os) {
            Ok(0) => Err(StartError::NoMemory),
            Ok(_) => Ok(()),
            Err(_) => Err(StartError::Plugin),
        }
    }

    /// Resets the device: it touches no memory any more.
    pub(super) fn reset<O: NetOs>(&self, os: &O) -> Result<(), VirtioError> {
        self.device.reset(os)
    }

    /// MAC address.
    pub(super) fn mac<O: NetOs>(&self, os: &O) -> [u8; 6] {
        self.device.config(os, CONFIG_MAC)
    }

    /// MTU in bytes.
    pub(super) fn mtu<O: NetOs>(&self, os: &O) -> u16 {
        if self.features & F_MTU == 0 {
            return MTU_DEFAULT;
        }
        u16::from_le_bytes(self.device.config(os, CONFIG_MTU))
    }

    /// What the device says of itself now.
    pub(super) fn status<O: NetOs>(&self, os: &O) -> DeviceStatus {
        if self.features & F_STATUS == 0 {
            return DeviceStatus { link_up: true, announce: false };
        }
        let status = u16::from_le_bytes(self.device.config(os, CONFIG_STATUS));
        DeviceStatus {
            link_up: status & STATUS_LINK_UP != 0,
            announce: status & STATUS_ANNOUNCE != 0,
        }
    }

    /// Tells the device that the network was told where this interface is.
    pub(super) fn announced<O: NetOs>(
        &self,
        os: &O,
        commands: &mut Commands,
    ) -> Result<(), CommandError> {
        commands.give(os, &self.device, CTRL_ANNOUNCE, ANNOUNCE_ACK)
    }

    /// What was negotiated for the stack.
    pub(super) const fn offloads(&self) -> Offloads {
        Offloads {
            tx_checksum: self.features & VIRTIO_NET_F_CSUM != 0,
            tx_tso4: self.features & VIRTIO_NET_F_HOST_TSO4 != 0,
            tx_tso6: self.features & VIRTIO_NET_F_HOST_TSO6 != 0,
            rx_checksum: self.features & VIRTIO_NET_F_GUEST_CSUM != 0,
            rx_merged: self.features & MERGED != 0,
        }
    }

    /// Ring entries by role: what the plugin and the device both can.
    pub(super) fn entries<O: NetOs>(&self, os: &O) -> Result<[u32; 2], StartError> {
        let mut entries = [0; 2];
        for ((entry, role), queue) in entries.iter_mut().zip(&HEADER.roles).zip([0, 1]) {
            let offered = u32::from(self.device.queue_size(os, queue));
            let most = offered.min(RING_ENTRIES).min(u32::from(role.max_entries));
            // The largest power of two within.
            let size = most.checked_ilog2().map_or(0, |log| 1u32 << log);
            if size < u32::from(role.min_entries) {
                return Err(VirtioError::NoQueue.into());
            }
            *entry = size;
        }
        Ok(entries)
    }

    fn device_info<O: NetOs>(&self, os: &O) -> Result<[u32; DEVICE_INFO_WORDS], StartError> {
        let mut doorbells = [0; QUEUES_MAX];
        for (offset, queue) in doorbells.iter_mut().zip(0..2u16) {
            *offset = self.device.doorbell(os, queue)?;
        }
        let mut words = [0; DEVICE_INFO_WORDS];
        VirtioInfo::new(self.features, doorbells).write(&mut words);
        let [m0, m1, m2, m3, m4, m5] = self.mac(os);
        let [mtu0, mtu1] = self.mtu(os).to_le_bytes();
        // Words 0 and 1 of `npa_abi::net::DeviceInfo`.
        let class =
            [u32::from_le_bytes([m0, m1, m2, m3]), u32::from_le_bytes([m4, m5, mtu0, mtu1])];
        for (word, value) in words.iter_mut().zip(class) {
            *word = value;
        }
        Ok(words)
    }
}

/// An ops table for an entry to fill.
pub(super) const EMPTY_OPS: NetOps = NetOps {
    size: 0,
    abi: 0,
    sw_init: None,
    reinit_rx_ring: None,
    reinit_tx_ring: None,
    enable_interrupt: None,
    disable_interrupt: None,
    add_frames_to_tx_ring: None,
    check_tx_ring: None,
    check_rx_ring: None,
    add_buffers_to_rx_ring: None,
    quiesce: None,
};

/// The callbacks for an operating system `O`.
pub(super) fn api<O: NetOs>() -> &'static ShellApi {
    const { &shell_api::<O>() }
}
