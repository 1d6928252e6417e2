//! Network cards from their configuration.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use npa_abi::Class;
use pf_control::client::Client;

use super::Failure;
use crate::api::{Accelerated, ApiError, DeviceStatus, ErrorCode, FellBack, SwitchReport};
use crate::config::{Acceleration, Configuration, NetConfig};
use crate::migration::MovingDevice;
use crate::npa::inject::PluginDirectory;
use crate::npa::pool::{NetEndpoint, NetPool};
use crate::npa::{self, AcceleratedDevice, AccelerationConfig, Hardware};
use crate::vfio::VfioSpace;
use crate::virtio::EmulatedPath;
use crate::virtio::net::{MacAddress, Net, Tap};
use crate::virtio::pci::VirtioPci;
use crate::vm::Vm;

/// MSI-X vectors that a VF's plugin may use.
const VF_VECTORS: u16 = 8;

/// What all accelerated cards of a VM share.
pub(super) struct Accelerator {
    plugins: PathBuf,
    pf_control: PathBuf,
    allow_unsigned: bool,
    vfio: VfioSpace,
    /// RAM of the VM in bytes.
    memory: u64,
}

impl Accelerator {
    /// What the configuration gives for acceleration; why there is none otherwise.
    pub(super) fn new(vm: &Vm, configuration: &Configuration) -> Result<Self, Unaccelerated> {
        let context = vm.device_context();
        Ok(Self {
            plugins: configuration.plugins.clone().ok_or(Unaccelerated::NoPlugins)?,
            pf_control: configuration.pf_control.clone().ok_or(Unaccelerated::NoPfControl)?,
            allow_unsigned: configuration.allow_unsigned_plugins,
            memory: context.memory.ranges().iter().map(|range| range.len).sum(),
            vfio: VfioSpace::new(Arc::clone(&context.memory), Arc::clone(&context.hypervisor)),
        })
    }

    fn hardware(&self, net: &NetConfig, mac: MacAddress, mtu: u16, path: &Path) -> Hardware {
        let endpoint = NetEndpoint {
            vm: format!("vmm-{}", std::process::id()),
            device: net.id.clone(),
            mac: mac.0,
            mtu,
            port: net.tap.clone(),
            memory: self.memory,
            profile: net.profile.clone(),
        };
        let plugins = PluginDirectory::new(
            &self.plugins,
            AccelerationConfig::new(&net.id, Class::Net).landing_length,
            self.allow_unsigned,
        );
        Hardware {
            pool: Arc::new(NetPool::new(Client::new(&self.pf_control), endpoint)),
            opener: Box::new(self.vfio.clone()),
            plugins: Box::new(plugins),
            path: Arc::clone(path),
        }
    }
}

/// The emulated data path of a card.
type Path = Arc<dyn EmulatedPath>;

/// Why a card stays emulated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unaccelerated {
    Off,
    NoPlugins,
    NoPfControl,
}

impl Unaccelerated {
    fn hint(self) -> &'static str {
        match self {
            Self::Off => "start the VM with `accel=auto` in the card's `--net`",
            Self::NoPlugins => "start the VM with `--plugins DIR`, where the plugin images are",
            Self::NoPfControl => "start the VM with `--pf-control SOCKET`, which lends out VFs",
        }
    }
}

/// Adds the card `net` and returns its faces in the control interface and in a move.
pub(super) fn add(
    vm: &Vm,
    net: &NetConfig,
    pf_control: Option<&std::path::Path>,
    accelerator: &Result<Accelerator, Unaccelerated>,
) -> Result<MovingDevice, Failure> {
    let tap = open_tap(&net.tap, pf_control)?;
    let mac = match net.mac {
        Some(mac) => mac,
        None => random_mac()?,
    };
    let mtu = tap.mtu();
    let card = Net::new(&net.id, tap, mac, mtu)?;
    let card = if net.offloads { card } else { card.without_offloads() };
    let path: Path = Arc::new(card.handle());
    let arrivals = Arc::new(card.handle());
    let device = Box::new(card);
    tracing::info!(id = net.id, %mac, tap = net.tap, "network card");
    let accelerator = match (net.acceleration, accelerator) {
        (Acceleration::Auto | Acceleration::WhenFree, Ok(accelerator)) => Ok(accelerator),
        (Acceleration::Auto, Err(why)) => Err(*why),
        (Acceleration::WhenFree, Err(why)) => {
            let id = &net.id;
            return Err(format!("`{id}` is to be put on a VF and cannot be: {}", why.hint()).into());
        }
        (Acceleration::Off, _) => Err(Unaccelerated::Off),
    };
    let context = vm.device_context();
    match accelerator {
        Ok(accelerator) => {
            let (acceleration, extension) = npa::accelerate(
                AccelerationConfig::new(&net.id, Class::Net),
                accelerator.hardware(net, mac, mtu, &path),
                context.memory.ram().clone(),
                Arc::clone(&context.memory_slots),
            )?;
            let function = VirtioPci::new(context, device, VF_VECTORS, Some(Box::new(extension)))?;
            let exits = function.exits();
            vm.add_pci_device(Arc::new(Mutex::new(function)))?;
            let accelerated = Arc::new(AcceleratedDevice::new(acceleration, path, exits));
            Ok(MovingDevice { accelerated, arrivals })
        }
        Err(why) => {
            let function = VirtioPci::new(context, device, 0, None)?;
            let exits = function.exits();
            vm.add_pci_device(Arc::new(Mutex::new(function)))?;
            let accelerated = Arc::new(EmulatedCard { id: net.id.clone(), path, exits, why });
            Ok(MovingDevice { accelerated, arrivals })
        }
    }
}

/// The tap `name`: from the daemon, where there is one, so that this process needs no right to it.
fn open_tap(name: &str, pf_control: Option<&std::path::Path>) -> Result<Tap, Failure> {
    let Some(socket) = pf_control else { return Ok(Tap::open(name)?) };
    Ok(Tap::adopt(name, Client::new(socket).open_port(name)?)?)
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
    path: Path,
    exits: Arc<AtomicU64>,
    why: Unaccelerated,
}

impl EmulatedCard {
    fn refusal(&self) -> ApiError {
        let message = format!("the data path of `{}` cannot be switched", self.id);
        ApiError::new(ErrorCode::NotAccelerated, message).hint(self.why.hint())
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

    fn fall_back(&self) -> Result<FellBack, ApiError> {
        Ok(FellBack { had_vf: false, logged: true })
    }

    fn marks_writes(&self) -> bool {
        // There is no VF to write anything.
        true
    }

    fn log_began(&self) {}

    fn take_up(&self) -> Result<bool, ApiError> {
        Ok(false)
    }

    fn let_be(&self) {}

    fn attach(&self) -> Result<SwitchReport, ApiError> {
        Err(self.refusal())
    }

    fn attach_when_free(&self) -> Result<(), ApiError> {
        Err(self.refusal())
    }

    fn detach(&self) -> Result<SwitchReport, ApiError> {
        Err(self.refusal())
    }
}
