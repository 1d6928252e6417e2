//! A minimal KVM virtual machine monitor whose guests have devices with a replaceable data path.

mod acpi;
pub mod api;
mod background;
pub mod boot;
pub mod cli;
pub mod config;
pub mod interrupts;
mod legacy;
pub mod metrics;
pub mod migration;
pub mod npa;
pub mod pci;
pub mod sandbox;
pub mod serial;
pub mod state;
pub mod vfio;
pub mod virtio;
pub mod vm;
