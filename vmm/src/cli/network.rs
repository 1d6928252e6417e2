//! Network cards from their configuration.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::Failure;
use crate::api::{Accelerated, ApiError, DeviceStatus, ErrorCode, SwitchReport};
use crate::config::{Configuration, NetConfig};
use crate::virtio::EmulatedPath;
use crate::virtio::net::{MacAddress, Net, NetHandle, Tap};
use crate::virtio::pci::VirtioPci;
use crate::vm::Vm;

/// Adds the card `net` and returns its face in the control interface.
pub(super) fn add(
    vm: &Vm,
    net: &NetConfig,
    _configuration: &Configuration,
) -> Result<Arc<dyn Accelerated>, Failure> {
    let tap = Tap::open(&net.tap)?;
    let mac = match net.mac {
        Some(mac) => mac,
        None => random_mac()?,
    };
    let mtu = tap.mtu();
    let card = Net::new(&net.id, tap, mac, mtu)?;
    let path = card.handle();
    let function = VirtioPci::new(vm.device_context(), Box::new(card), 0, None)?;
    let exits = function.exits();
    vm.add_pci_device(Arc::new(Mutex::new(function)))?;
    tracing::info!(id = net.id, %mac, tap = net.tap, "network card");
    Ok(Arc::new(EmulatedCard { id: net.id.clone(), path, exits }))
}

/// An address that the standards leave to local administration.
fn random_mac() -> std::io::Result<MacAddress> {
    let mut bytes = [0x52, 0x54, 0, 0, 0, 0];
    File::open("/dev/urandom")?.read_exact(&mut bytes[2..])?;
    Ok(MacAddress(bytes))
}

/// A card that stays emulated.
struct EmulatedCard {
    id: String,
    path: NetHandle<Tap>,
    exits: Arc<AtomicU64>,
}

impl EmulatedCard {
    fn refusal(&self) -> ApiError {
        ApiError::new(ErrorCode::NotAccelerated, format!("`{}` is emulated for good", self.id))
            .hint("start the VM with `accel=auto` in the card's `--net`")
    }
}

impl Accelerated for EmulatedCard {
    fn id(&self) -> &str {
        &self.id
    }

    fn status(&self) -> DeviceStatus {
        let mut status = DeviceStatus::emulated(&self.id, "net", self.path.counters());
        status.exits = self.exits.load(Ordering::Relaxed);
        status
    }

    fn attach(&self) -> Result<SwitchReport, ApiError> {
        Err(self.refusal())
    }

    fn detach(&self) -> Result<SwitchReport, ApiError> {
        Err(self.refusal())
    }
}
