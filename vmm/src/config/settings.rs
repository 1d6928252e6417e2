//! The settings as they come from the command line or a file, each optional, and how the two
//! become one configuration.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::{
    Acceleration, ConfigError, Configuration, DiskConfig, MAX_CPUS, MemorySize, NetConfig,
};
use crate::migration::Endpoint;
use crate::sandbox::SandboxMode;
use crate::serial::SerialTarget;

const DEFAULT_CMDLINE: &str = "console=ttyS0";
const DEFAULT_MEMORY_MIB: u64 = 512;

/// Settings of a VM. A configuration file has the same names, without the dashes in front.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Kernel: a bzImage or an uncompressed ELF vmlinux
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,

    /// Kernel command line [default: console=ttyS0]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,

    /// Number of virtual CPUs, 1 to 254 [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,

    /// Guest memory, like 512M or 2G [default: 512M]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<MemorySize>,

    /// A disk: path=FILE[,readonly] (repeatable)
    #[arg(long = "disk", value_name = "FIELDS")]
    #[serde(rename = "disk")]
    pub disks: Vec<DiskConfig>,

    /// A network card: id=NAME,tap=INTERFACE[,mac=ADDRESS][,accel=auto|when-free|off][,offloads=on|off][,profile=NAME]
    /// (repeatable)
    #[arg(long = "net", value_name = "FIELDS")]
    #[serde(rename = "net")]
    pub nets: Vec<NetConfig>,

    /// Serial console: stdio, file:PATH, socket:PATH or none [default: stdio]
    #[arg(long, value_name = "WHERE")]
    #[serde(deserialize_with = "serial")]
    pub serial: Option<SerialTarget>,

    /// Serve the control interface on this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub api_socket: Option<PathBuf>,

    /// Directory of plugin images
    #[arg(long, value_name = "DIR")]
    pub plugins: Option<PathBuf>,

    /// Socket of pf-control, which lends out VFs
    #[arg(long, value_name = "SOCKET")]
    pub pf_control: Option<PathBuf>,

    /// Accept plugin images without a trusted signature
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub allow_unsigned_plugins: Option<bool>,

    /// Folder in which snapshots may be made [default: none may]
    #[arg(long, value_name = "DIR")]
    pub snapshots: Option<PathBuf>,

    /// How much of the sandbox there is [default: on]
    #[arg(long, value_name = "MODE", value_enum)]
    pub sandbox: Option<SandboxMode>,

    /// Run even as root
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub allow_root: Option<bool>,

    /// Go on from the snapshot in this folder instead of booting
    #[arg(long, value_name = "DIR")]
    pub restore: Option<PathBuf>,

    /// Wait for a VM that another host moves here: tcp:HOST:PORT, tls:HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL")]
    #[serde(deserialize_with = "endpoint")]
    pub incoming: Option<Endpoint>,

    /// This host's certificate (PEM), for moves over TLS in either direction
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Who signs the certificates of hosts that are trusted (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
}

fn serial<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<SerialTarget>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn endpoint<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Endpoint>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

impl Settings {
    /// Reads a configuration file. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// [`ConfigError::Read`] and [`ConfigError::Parse`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut settings: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        settings.anchor(path.parent().unwrap_or(Path::new("")));
        Ok(settings)
    }

    fn anchor(&mut self, directory: &Path) {
        let paths = [&mut self.kernel, &mut self.initrd, &mut self.plugins, &mut self.pf_control];
        let more = [&mut self.api_socket, &mut self.restore, &mut self.tls_cert];
        let tls = [&mut self.tls_key, &mut self.tls_ca, &mut self.snapshots];
        for path in paths.into_iter().chain(more).chain(tls).flatten() {
            *path = directory.join(&path);
        }
        for disk in &mut self.disks {
            disk.path = directory.join(&disk.path);
        }
        if let Some(Endpoint::Unix(path)) = &mut self.incoming {
            *path = directory.join(&path);
        }
        if let Some(SerialTarget::File(path) | SerialTarget::Socket(path)) = &mut self.serial {
            *path = directory.join(&path);
        }
    }

    /// These settings, with those of `file` where these say nothing. A list of devices here
    /// replaces the one in the file.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            kernel: self.kernel.or(file.kernel),
            initrd: self.initrd.or(file.initrd),
            cmdline: self.cmdline.or(file.cmdline),
            cpus: self.cpus.or(file.cpus),
            memory: self.memory.or(file.memory),
            disks: if self.disks.is_empty() { file.disks } else { self.disks },
            nets: if self.nets.is_empty() { file.nets } else { self.nets },
            serial: self.serial.or(file.serial),
            api_socket: self.api_socket.or(file.api_socket),
            plugins: self.plugins.or(file.plugins),
            pf_control: self.pf_control.or(file.pf_control),
            allow_unsigned_plugins: self.allow_unsigned_plugins.or(file.allow_unsigned_plugins),
            snapshots: self.snapshots.or(file.snapshots),
            sandbox: self.sandbox.or(file.sandbox),
            allow_root: self.allow_root.or(file.allow_root),
            restore: self.restore.or(file.restore),
            incoming: self.incoming.or(file.incoming),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            tls_ca: self.tls_ca.or(file.tls_ca),
        }
    }

    /// These settings, with those of the environment where these say nothing: `NPA_PF_CONTROL` is the
    /// socket of pf-control, `NPA_PROFILE` the profile of each card that may be on a VF. A
    /// cluster's device plugin sets them.
    #[must_use]
    pub fn or_environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        self.pf_control = self.pf_control.or_else(|| variable("NPA_PF_CONTROL").map(PathBuf::from));
        let profile = variable("NPA_PROFILE");
        for net in self.nets.iter_mut().filter(|net| net.acceleration != Acceleration::Off) {
            net.profile = net.profile.take().or_else(|| profile.clone());
        }
        self
    }

    /// Fills in defaults and checks that all fits together.
    ///
    /// # Errors
    /// [`ConfigError`], which says what to do.
    pub fn resolve(self) -> Result<Configuration, ConfigError> {
        let cpus = self.cpus.unwrap_or(1);
        if !(1..=MAX_CPUS).contains(&cpus) {
            return Err(ConfigError::Cpus(cpus));
        }
        if self.restore.is_some() && self.incoming.is_some() {
            return Err(ConfigError::TwoBeginnings);
        }
        let (mut ids, mut taps, mut macs) = (HashSet::new(), HashSet::new(), HashSet::new());
        for net in &self.nets {
            if !ids.insert(&net.id) {
                return Err(ConfigError::SameId(net.id.clone()));
            }
            if !taps.insert(&net.tap) {
                return Err(ConfigError::SameTap(net.tap.clone()));
            }
            if let Some(mac) = net.mac.filter(|mac| !macs.insert(*mac)) {
                return Err(ConfigError::SameMac(mac));
            }
        }
        Ok(Configuration {
            kernel: self.kernel.ok_or(ConfigError::NoKernel)?,
            initrd: self.initrd,
            cmdline: self.cmdline.unwrap_or_else(|| DEFAULT_CMDLINE.to_owned()),
            cpus,
            memory: self.memory.unwrap_or(MemorySize::from_mib(DEFAULT_MEMORY_MIB)),
            disks: self.disks,
            nets: self.nets,
            serial: self.serial.unwrap_or_default(),
            api_socket: self.api_socket,
            plugins: self.plugins,
            pf_control: self.pf_control,
            allow_unsigned_plugins: self.allow_unsigned_plugins.unwrap_or(false),
            snapshots: self.snapshots,
            sandbox: self.sandbox.unwrap_or_default(),
            allow_root: self.allow_root.unwrap_or(false),
            restore: self.restore,
            incoming: self.incoming,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            tls_ca: self.tls_ca,
        })
    }
}
