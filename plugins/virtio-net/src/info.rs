//! What the plugin must be told of its virtio device.

use npa_abi::register::DEVICE_INFO_WORDS;
use npa_abi::shell_page::QUEUES_MAX;
use npa_plugin_sdk::Device;

/// Feature bit: the device computes a sent frame's checksum (virtio 1.2, 5.1.3).
pub const VIRTIO_NET_F_CSUM: u64 = 1 << 0;
/// Feature bit: the driver takes frames with a partial checksum.
pub const VIRTIO_NET_F_GUEST_CSUM: u64 = 1 << 1;
/// Feature bit: the driver takes merged TCP/IPv4 frames.
pub const VIRTIO_NET_F_GUEST_TSO4: u64 = 1 << 7;
/// Feature bit: the driver takes merged TCP/IPv6 frames.
pub const VIRTIO_NET_F_GUEST_TSO6: u64 = 1 << 8;
/// Feature bit: the device cuts TCP/IPv4 segments.
pub const VIRTIO_NET_F_HOST_TSO4: u64 = 1 << 11;
/// Feature bit: the device cuts TCP/IPv6 segments.
pub const VIRTIO_NET_F_HOST_TSO6: u64 = 1 << 12;
/// Feature bit: a received frame may fill several buffers.
pub const VIRTIO_NET_F_MRG_RXBUF: u64 = 1 << 15;
/// Feature bit: interrupts and doorbells are asked for by index (virtio 1.2, 2.7.10).
pub const VIRTIO_F_RING_EVENT_IDX: u64 = 1 << 29;
/// Feature bit: not a legacy device. The plugin needs it.
pub const VIRTIO_F_VERSION_1: u64 = 1 << 32;

/// Data-path features that this plugin can work with; whoever negotiates takes the device's
/// offer within this set, and control features of its own beside it.
pub const FEATURES: u64 = VIRTIO_NET_F_CSUM
    | VIRTIO_NET_F_GUEST_CSUM
    | VIRTIO_NET_F_GUEST_TSO4
    | VIRTIO_NET_F_GUEST_TSO6
    | VIRTIO_NET_F_HOST_TSO4
    | VIRTIO_NET_F_HOST_TSO6
    | VIRTIO_NET_F_MRG_RXBUF
    | VIRTIO_F_RING_EVENT_IDX
    | VIRTIO_F_VERSION_1;

/// The vendor words of [`npa_abi::plugin::Instance::device_info`], from
/// [`VirtioInfo::FIRST_WORD`] on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioInfo {
    /// Negotiated features, bits 0-31.
    pub features_low: u32,
    /// Negotiated features, bits 32-63.
    pub features_high: u32,
    /// By queue index: offset of its doorbell in the window, in bytes
    /// (`queue_notify_off * notify_off_multiplier`, virtio 1.2, 4.1.4.4).
    pub notify_offset: [u32; QUEUES_MAX],
}

impl VirtioInfo {
    /// First word of the vendor's part.
    pub const FIRST_WORD: usize = 8;

    /// What `features` and the queues' doorbell offsets make.
    pub const fn new(features: u64, notify_offset: [u32; QUEUES_MAX]) -> Self {
        Self {
            features_low: features as u32,
            features_high: (features >> 32) as u32,
            notify_offset,
        }
    }

    /// All negotiated features.
    pub const fn features(&self) -> u64 {
        self.features_low as u64 | (self.features_high as u64) << 32
    }

    /// Whether all of `features` were negotiated.
    pub(crate) const fn has(&self, features: u64) -> bool {
        self.features() & features == features
    }

    /// Writes it to the words of an instance.
    pub fn write(&self, words: &mut [u32; DEVICE_INFO_WORDS]) {
        let own = [self.features_low, self.features_high].into_iter().chain(self.notify_offset);
        for (word, value) in words.iter_mut().skip(Self::FIRST_WORD).zip(own) {
            *word = value;
        }
    }

    /// Reads what the instance was given.
    pub(crate) fn read(device: &Device<'_>) -> Self {
        let mut info = Self {
            features_low: device.info(Self::FIRST_WORD),
            features_high: device.info(Self::FIRST_WORD + 1),
            ..Self::default()
        };
        for (index, offset) in info.notify_offset.iter_mut().enumerate() {
            *offset = device.info(Self::FIRST_WORD + 2 + index);
        }
        info
    }

    /// Offset of the doorbell of queue `queue`, modulo the number of queues.
    pub(crate) fn doorbell(&self, queue: u32) -> usize {
        self.notify_offset[queue as usize % QUEUES_MAX] as usize
    }
}
