//! A virtio device's life: reset, negotiate, set up queues, go.

use super::location::Locations;
use crate::os::{Os, Width};

// Common configuration structure (virtio 1.2, 4.1.4.3).
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_MSIX_VECTOR: u64 = 0x10;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;

// Device status bits (virtio 1.2, 2.1).
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;

/// Feature bit: not a legacy device (virtio 1.2, 6).
const F_VERSION_1: u64 = 1 << 32;

/// How long a reset may take, in milliseconds.
const RESET_MS: u32 = 2000;

/// Most tries to read a configuration that does not change meanwhile.
const STABLE_TRIES: u32 = 16;

/// What went wrong with a virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtioError {
    /// Not a modern virtio device.
    NotVirtio,
    /// The device did not finish its reset.
    NoReset,
    /// The device refused the features.
    FeaturesRefused,
    /// The device lacks a queue, or it is too small.
    NoQueue,
    /// The device could not assign a vector.
    NoVector,
}

impl VirtioError {
    /// What happened, for the log.
    pub const fn message(self) -> &'static str {
        match self {
            Self::NotVirtio => "not a modern virtio device",
            Self::NoReset => "device did not finish its reset",
            Self::FeaturesRefused => "device refused the features",
            Self::NoQueue => "device lacks a queue or it is too small",
            Self::NoVector => "device could not assign an interrupt vector",
        }
    }
}

/// Where a queue's parts are, as the device is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePlace {
    /// Number of entries.
    pub entries: u16,
    /// Device address of the descriptor area.
    pub descriptors: u64,
    /// Device address of the driver area.
    pub driver: u64,
    /// Device address of the device area.
    pub device: u64,
    /// MSI-X vector.
    pub vector: u16,
}

/// A virtio device.
#[derive(Clone, Copy, Debug)]
pub struct VirtioDevice {
    at: Locations,
}

impl VirtioDevice {
    /// Finds the device's structures.
    ///
    /// # Errors
    /// [`VirtioError::NotVirtio`]
    pub fn find(os: &impl Os) -> Result<Self, VirtioError> {
        Locations::find(os).map(|at| Self { at }).ok_or(VirtioError::NotVirtio)
    }

    /// Where its structures are.
    pub const fn locations(&self) -> &Locations {
        &self.at
    }

    /// Resets it and waits until it has (virtio 1.2, 4.1.4.3.1: status reads 0 then).
    ///
    /// # Errors
    /// [`VirtioError::NoReset`]
    pub fn reset(&self, os: &impl Os) -> Result<(), VirtioError> {
        self.at.common.write(os, DEVICE_STATUS, Width::Byte, 0);
        for _ in 0..RESET_MS {
            if self.status(os) == 0 {
                return Ok(());
            }
            os.sleep_ms(1);
        }
        Err(VirtioError::NoReset)
    }

    /// Negotiates: all that the device offers of `wanted`. Answers what was agreed.
    ///
    /// # Errors
    /// [`VirtioError::FeaturesRefused`]
    pub fn negotiate(&self, os: &impl Os, wanted: u64) -> Result<u64, VirtioError> {
        self.add_status(os, ACKNOWLEDGE);
        self.add_status(os, DRIVER);
        let common = &self.at.common;
        let mut offered = 0u64;
        for half in [1u32, 0] {
            common.write(os, DEVICE_FEATURE_SELECT, Width::Double, half);
            let bits = common.read(os, DEVICE_FEATURE, Width::Double);
            offered = offered << 32 | u64::from(bits);
        }
        let agreed = offered & wanted;
        if agreed & F_VERSION_1 == 0 {
            return Err(VirtioError::FeaturesRefused);
        }
        for (half, bits) in [(0, agreed as u32), (1, (agreed >> 32) as u32)] {
            common.write(os, DRIVER_FEATURE_SELECT, Width::Double, half);
            common.write(os, DRIVER_FEATURE, Width::Double, bits);
        }
        self.add_status(os, FEATURES_OK);
        if self.status(os) & FEATURES_OK == 0 {
            return Err(VirtioError::FeaturesRefused);
        }
        Ok(agreed)
    }

    /// Assigns the vector of configuration changes.
    ///
    /// # Errors
    /// [`VirtioError::NoVector`]
    pub fn set_config_vector(&self, os: &impl Os, vector: u16) -> Result<(), VirtioError> {
        let common = &self.at.common;
        common.write(os, CONFIG_MSIX_VECTOR, Width::Word, vector.into());
        if common.read(os, CONFIG_MSIX_VECTOR, Width::Word) == u32::from(vector) {
            Ok(())
        } else {
            Err(VirtioError::NoVector)
        }
    }

    /// Most entries of queue `queue`, 0 if there is none.
    pub fn queue_size(&self, os: &impl Os, queue: u16) -> u16 {
        self.at.common.write(os, QUEUE_SELECT, Width::Word, queue.into());
        self.at.common.read(os, QUEUE_SIZE, Width::Word) as u16
    }

    /// Offset of a queue's doorbell in the notify structure, in bytes.
    ///
    /// # Errors
    /// [`VirtioError::NoQueue`] if it lies outside.
    pub fn doorbell(&self, os: &impl Os, queue: u16) -> Result<u32, VirtioError> {
        self.at.common.write(os, QUEUE_SELECT, Width::Word, queue.into());
        self.at
            .common
            .read(os, QUEUE_NOTIFY_OFF, Width::Word)
            .checked_mul(self.at.notify_multiplier)
            .filter(|offset| u64::from(*offset).saturating_add(2) <= self.at.notify.length)
            .ok_or(VirtioError::NoQueue)
    }

    /// Rings the doorbell of queue `queue`, which is at `offset` (see [`VirtioDevice::doorbell`]).
    pub fn ring(&self, os: &impl Os, offset: u32, queue: u16) {
        self.at.notify.write(os, offset.into(), Width::Word, queue.into());
    }

    /// Sets up queue `queue` and enables it.
    ///
    /// # Errors
    /// [`VirtioError::NoQueue`], [`VirtioError::NoVector`]
    pub fn enable_queue(
        &self,
        os: &impl Os,
        queue: u16,
        place: &QueuePlace,
    ) -> Result<(), VirtioError> {
        if self.queue_size(os, queue) < place.entries {
            return Err(VirtioError::NoQueue);
        }
        let common = &self.at.common;
        common.write(os, QUEUE_SIZE, Width::Word, place.entries.into());
        common.write(os, QUEUE_MSIX_VECTOR, Width::Word, place.vector.into());
        if common.read(os, QUEUE_MSIX_VECTOR, Width::Word) != u32::from(place.vector) {
            return Err(VirtioError::NoVector);
        }
        let addresses = [
            (QUEUE_DESC, place.descriptors),
            (QUEUE_DRIVER, place.driver),
            (QUEUE_DEVICE, place.device),
        ];
        for (offset, address) in addresses {
            common.write(os, offset, Width::Double, address as u32);
            common.write(os, offset.saturating_add(4), Width::Double, (address >> 32) as u32);
        }
        common.write(os, QUEUE_ENABLE, Width::Word, 1);
        Ok(())
    }

    /// The driver is ready: the device may work.
    pub fn go(&self, os: &impl Os) {
        self.add_status(os, DRIVER_OK);
    }

    /// Reads `N` bytes of the device-specific configuration at `offset`, all of one generation
    /// (virtio 1.2, 2.5.1).
    pub fn config<const N: usize>(&self, os: &impl Os, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        for _ in 0..STABLE_TRIES {
            let before = self.at.common.read(os, CONFIG_GENERATION, Width::Byte);
            for (byte, at) in bytes.iter_mut().zip(offset..) {
                *byte = self.at.device.read(os, at, Width::Byte) as u8;
            }
            if self.at.common.read(os, CONFIG_GENERATION, Width::Byte) == before {
                break;
            }
        }
        bytes
    }

    fn status(&self, os: &impl Os) -> u32 {
        self.at.common.read(os, DEVICE_STATUS, Width::Byte)
    }

    fn add_status(&self, os: &impl Os, bits: u32) {
        let status = self.status(os) | bits;
        self.at.common.write(os, DEVICE_STATUS, Width::Byte, status);
    }
}
