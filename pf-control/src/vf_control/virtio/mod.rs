//! Control of a virtio network function in hardware: its common configuration, which stays with the
//! VMM. The guest's plugin has the doorbells and nothing else.
//!
//! There is no switch in front of such a function that the host commands, and its control queue is
//! not used: it would lie in the same IOMMU domain as the guest's queues, where the guest could
//! have the function write over it. So the gate is `DRIVER_OK`: before it, the function neither
//! sends nor receives; at the end it is reset.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, 3.1 (initialisation), 4.1.4 (PCI layout), 5.1 (network).

pub mod capabilities;
mod control;
mod registers;

#[cfg(test)]
mod fake_function;

pub use control::VirtioNet;

/// PCI vendor and device of a virtio network function that is not legacy (4.1.2.1).
pub const PCI_ID: (u16, u16) = (0x1af4, 0x1041);
