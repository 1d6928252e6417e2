//! `vmm run`: puts a machine together from its configuration and runs it to its end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clap::Args;

use super::machine::RunningMachine;
use super::network::{self, Accelerator};
use super::{Failure, signals};
use crate::api::{Accelerated, Server, Services};
use crate::boot::BootConfig;
use crate::config::{ConfigError, Configuration, Settings};
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
    /// File and options together.
    pub(super) fn configuration(self) -> Result<Configuration, ConfigError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        self.settings.over(file).resolve()
    }
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let configuration = arguments.configuration()?;
    if let Some(plugins) = &configuration.plugins {
        readable_folder(plugins)?;
    }
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
    })?);
    let devices = add_devices(&vm, &configuration)?;

    let machine = Arc::new(RunningMachine::new(Arc::clone(&vm), &configuration));
    let server = configuration
        .api_socket
        .as_deref()
        .map(|path| Server::start(path, Services { machine, devices }))
        .transpose()?;
    signals::stop_on_signals({
        let vm = Arc::clone(&vm);
        move || vm.stop()
    })?;
    vm.start()?;
    let exit = vm.wait()?;
    drop(server);
    match exit {
        VmExit::PowerOff | VmExit::Stopped | VmExit::HandedOver => Ok(()),
        VmExit::Crashed(reason) => Err(format!("the guest crashed: {reason}").into()),
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
fn add_devices(
    vm: &Vm,
    configuration: &Configuration,
) -> Result<Vec<Arc<dyn Accelerated>>, Failure> {
    let mut switchable: Vec<Arc<dyn Accelerated>> = Vec::new();
    let accelerator = Accelerator::new(vm, configuration);
    for net in &configuration.nets {
        switchable.push(network::add(vm, net, &accelerator)?);
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
