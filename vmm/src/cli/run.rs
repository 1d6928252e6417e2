//! `vmm run`: puts a machine together from its configuration and runs it to its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use clap::Args;

use super::arrival;
use super::machine::RunningMachine;
use super::moving::Mover;
use super::network::{self, Accelerator};
use super::{Failure, signals};
use crate::api::{Server, Services};
use crate::background::make_way;
use crate::boot::BootConfig;
use crate::config::{Acceleration, ConfigError, Configuration, Settings};
use crate::migration::transport::{Identity, IdentityError};
use crate::migration::{Listener, MovingDevice, snapshot};
use crate::sandbox::{self, Role};
use crate::virtio::VirtioDevice;
use crate::virtio::block::Block;
use crate::virtio::pci::VirtioPci;
use crate::virtio::rng::Rng;
use crate::vm::{Vm, VmConfig, VmExit};

#[derive(Args)]
pub(super) struct Arguments {
    /// Read settings from a TOML file; options given here win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

impl Arguments {
    /// Options, file and environment together.
    pub(super) fn configuration(self) -> Result<Configuration, ConfigError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        self.settings.over(file).or_environment(|name| std::env::var(name).ok()).resolve()
    }
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let configuration = arguments.configuration()?;
    sandbox::refuse_root(configuration.allow_root)?;
    sandbox::confine(&configuration)?;
    if let Some(plugins) = &configuration.plugins {
        readable_folder(plugins)?;
    }
    let identity = identity(&configuration)?;
    let listener = configuration
        .incoming
        .clone()
        .map(|endpoint| Listener::bind(endpoint, identity.clone()))
        .transpose()?;
    let vm = Arc::new(Vm::new(VmConfig {
        boot: BootConfig {
            kernel: configuration.kernel.clone(),
            initrd: configuration.initrd.clone(),
            cmdline: configuration.cmdline.clone(),
        },
        // Checked to fit one byte.
        cpus: configuration.cpus as u8,
        memory_mib: configuration.memory.mib(),
        serial: configuration.serial.clone(),
        memory_from: configuration.restore.as_deref().map(snapshot::memory_file),
    })?);
    let devices = add_devices(&vm, &configuration)?;

    let faces = devices.iter().map(|device| Arc::clone(&device.accelerated)).collect();
    let mover = Arc::new(Mover::new(Arc::clone(&vm), devices, identity));
    let incoming = Arc::new(AtomicBool::new(listener.is_some()));
    let machine = Arc::new(RunningMachine::new(
        Arc::clone(&vm),
        &configuration,
        Arc::clone(&mover),
        Arc::clone(&incoming),
    ));
    let server = configuration
        .api_socket
        .as_deref()
        .map(|path| Server::start(path, Services { machine, devices: faces }))
        .transpose()?;
    signals::stop_on_signals({
        let vm = Arc::clone(&vm);
        move || vm.stop()
    })?;
    let arrival = match (&configuration.restore, listener) {
        (Some(folder), _) => {
            snapshot::restore(&vm, mover.devices(), folder)?;
            None
        }
        (None, Some(listener)) => {
            Some(arrival::expect(Arc::clone(&vm), Arc::clone(&mover), listener, incoming)?)
        }
        (None, None) => {
            wish_for_vfs(&configuration, mover.devices())?;
            vm.start()?;
            None
        }
    };
    sandbox::enter(Role::Operator);
    let exit = vm.wait()?;
    // Giving all of RAM back takes its time, and the VM may already run elsewhere on this machine.
    make_way();
    drop(server);
    if let Some(failure) = arrival.and_then(|arrival| arrival.failure()) {
        return Err(failure);
    }
    match exit {
        VmExit::PowerOff | VmExit::Stopped | VmExit::HandedOver => Ok(()),
        VmExit::Crashed(reason) => Err(format!("the guest crashed: {reason}").into()),
    }
}

/// Cards that are to be on a VF as soon as there is one. A VM that comes from elsewhere brings its
/// wishes with it.
fn wish_for_vfs(configuration: &Configuration, devices: &[MovingDevice]) -> Result<(), Failure> {
    for (net, device) in configuration.nets.iter().zip(devices) {
        if net.acceleration == Acceleration::WhenFree {
            device.accelerated.attach_when_free()?;
        }
    }
    Ok(())
}

/// The certificates, when there are any.
fn identity(configuration: &Configuration) -> Result<Option<Identity>, IdentityError> {
    let Configuration { tls_cert, tls_key, tls_ca, .. } = configuration;
    match (tls_cert, tls_key, tls_ca) {
        (Some(certificate), Some(key), Some(authority)) => {
            Identity::read(certificate, key, authority).map(Some)
        }
        (None, None, None) => Ok(None),
        _ => Err(IdentityError::Missing),
    }
}

/// A misspelt folder is told of now, not at the first attach.
fn readable_folder(plugins: &Path) -> Result<(), Failure> {
    std::fs::read_dir(plugins).map(drop).map_err(|error| {
        let path = plugins.display();
        format!("cannot read {path}: {error}; name the folder of plugin images with --plugins")
            .into()
    })
}

/// Adds the configured devices in the order in which the guest finds them.
fn add_devices(vm: &Vm, configuration: &Configuration) -> Result<Vec<MovingDevice>, Failure> {
    let mut switchable = Vec::new();
    let accelerator = Accelerator::new(vm, configuration);
    for net in &configuration.nets {
        switchable.push(network::add(vm, net, configuration.pf_control.as_deref(), &accelerator)?);
    }
    for disk in &configuration.disks {
        add_plain(vm, Box::new(Block::open(&disk.path, disk.read_only)?))?;
    }
    add_plain(vm, Box::new(Rng::new()?))?;
    Ok(switchable)
}

fn add_plain(vm: &Vm, device: Box<dyn VirtioDevice>) -> Result<(), Failure> {
    let function = VirtioPci::new(vm.device_context(), device, 0, None)?;
    vm.add_pci_device(Arc::new(Mutex::new(function)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_plugins_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(readable_folder(folder.path()).is_ok());
        let file = folder.path().join("igbvf.npa");
        std::fs::write(&file, "x").unwrap();
        for bad in [folder.path().join("nowhere"), file] {
            let said = readable_folder(&bad).unwrap_err().to_string();
            assert!(said.contains(&bad.display().to_string()) && said.contains("--plugins"));
        }
    }
}
