//! A minimal KVM virtual machine monitor whose guests have devices with a replaceable data path.

pub mod interrupts;
pub mod pci;
pub mod virtio;
pub mod vm;
