//! The port address space: finds the device behind a port. Unclaimed ports read as ones.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::PowerRequest;

/// A device behind ports. Called from vCPU threads; must not wait.
pub(crate) trait PortDevice: Send + Sync {
    /// A read at `offset` from the device's first port; fills `data` (string instructions make
    /// it longer than the access: the same port again and again).
    fn read(&self, offset: u16, data: &mut [u8]);

    /// A write; returns what the guest asks for by it.
    fn write(&self, offset: u16, data: &[u8]) -> Option<PowerRequest>;

    /// Back to the state after construction.
    fn reset(&self);
}

/// All ports of a VM.
#[derive(Default)]
pub(crate) struct Ports {
    devices: Vec<(RangeInclusive<u16>, Arc<dyn PortDevice>)>,
}

impl Ports {
    /// Gives a device `len` ports from `first`. The first device added to a port keeps it.
    pub(crate) fn add(&mut self, first: u16, len: u16, device: Arc<dyn PortDevice>) {
        self.devices.push((first..=first + (len - 1), device));
    }

    fn find(&self, port: u16) -> Option<(&dyn PortDevice, u16)> {
        self.devices
            .iter()
            .find(|(range, _)| range.contains(&port))
            .map(|(range, device)| (device.as_ref(), port - range.start()))
    }

    /// A guest read.
    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match self.find(port) {
            Some((device, offset)) => device.read(offset, data),
            None => tracing::trace!(port, "read of an unclaimed port"),
        }
    }

    /// A guest write.
    pub(crate) fn write(&self, port: u16, data: &[u8]) -> Option<PowerRequest> {
        match self.find(port) {
            Some((device, offset)) => device.write(offset, data),
            None => {
                tracing::trace!(port, "write to an unclaimed port");
                None
            }
        }
    }

    /// Resets all devices.
    pub(crate) fn reset(&self) {
        self.devices.iter().for_each(|(_, device)| device.reset());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Keyboard, PowerRegisters, port};
    use super::*;

    fn ports() -> Ports {
        let mut ports = Ports::default();
        ports.add(port::RESET_CONTROL, 1, Arc::new(PowerRegisters::reset_control()));
        ports.add(port::SLEEP_CONTROL, 2, Arc::new(PowerRegisters::sleep()));
        ports.add(port::KEYBOARD_COMMAND, 1, Arc::new(Keyboard));
        ports
    }

    #[test]
    fn unclaimed_ports_read_ones() {
        let mut data = [0; 4];
        ports().read(0x71, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(ports().write(0x80, &[0]), None);
        ports().read(0xffff, &mut data);
    }

    #[test]
    fn resets() {
        assert_eq!(ports().write(0xcf9, &[0x06]), Some(PowerRequest::Reset));
        assert_eq!(ports().write(0xcf9, &[0x02]), None);
        assert_eq!(ports().write(0x64, &[0xfe]), Some(PowerRequest::Reset));
        assert_eq!(ports().write(0x64, &[0xd1]), None);
    }

    #[test]
    fn soft_off_needs_type_and_enable() {
        let sleep = |value| ports().write(0x600, &[value]);
        assert_eq!(sleep(5 << 2 | 1 << 5), Some(PowerRequest::PowerOff));
        assert_eq!(sleep(5 << 2), None);
        assert_eq!(sleep(3 << 2 | 1 << 5), None);
        assert_eq!(ports().write(0x601, &[5 << 2 | 1 << 5]), None);
        let mut status = [0xff];
        ports().read(0x601, &mut status);
        assert_eq!(status, [0]);
    }

    #[test]
    fn the_keyboard_controller_is_never_busy() {
        let mut status = [0xff];
        ports().read(0x64, &mut status);
        assert_eq!(status, [0]);
    }
}
