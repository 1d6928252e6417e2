//! The configuration ports 0xcf8 to 0xcff, for guests that do not (yet) use ECAM.

use std::sync::Arc;

use super::Bus;
use crate::legacy::{PortDevice, PowerRequest};

/// Ports 0xcf8 to 0xcff.
pub(crate) struct PciPorts {
    bus: Arc<Bus>,
}

impl PciPorts {
    /// The ports of `bus`.
    pub(crate) fn new(bus: Arc<Bus>) -> Self {
        Self { bus }
    }
}

impl PortDevice for PciPorts {
    fn read(&self, offset: u16, data: &mut [u8]) {
        self.bus.port_read(offset, data);
    }

    fn write(&self, offset: u16, data: &[u8]) -> Option<PowerRequest> {
        self.bus.port_write(offset, data);
        None
    }

    /// The bus is reset by the machine.
    fn reset(&self) {}
}
