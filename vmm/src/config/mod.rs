//! What a user asks for: command line and configuration file, merged and checked. Opens nothing:
//! that a kernel or tap exists is found out, and said, by those who use it.

mod disk;
mod fields;
mod net;
mod settings;
mod size;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use disk::DiskConfig;
pub use net::{Acceleration, NetConfig};
pub use settings::Settings;
pub use size::{MemorySize, SizeError};

use crate::migration::Endpoint;
use crate::sandbox::SandboxMode;
use crate::serial::SerialTarget;
use crate::virtio::net::MacError;

/// Most vCPUs of a VM: what one legacy APIC id byte can name, less the broadcast id.
pub const MAX_CPUS: u32 = 254;

/// A complete, consistent configuration.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// bzImage or ELF kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: String,
    /// Number of vCPUs, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// Guest RAM.
    pub memory: MemorySize,
    /// Disks, in the guest's order.
    pub disks: Vec<DiskConfig>,
    /// Network cards, in the guest's order, with distinct ids and taps.
    pub nets: Vec<NetConfig>,
    /// Other end of the serial console.
    pub serial: SerialTarget,
    /// Socket of the control interface; none is served without.
    pub api_socket: Option<PathBuf>,
    /// Directory of plugin images.
    pub plugins: Option<PathBuf>,
    /// Socket of pf-control.
    pub pf_control: Option<PathBuf>,
    /// Whether plugin images without a trusted signature are accepted.
    pub allow_unsigned_plugins: bool,
    /// Folder in which snapshots may be made.
    pub snapshots: Option<PathBuf>,
    /// How much of the sandbox there is.
    pub sandbox: SandboxMode,
    /// Whether root may run it.
    pub allow_root: bool,
    /// Folder of the snapshot to go on from, instead of booting.
    pub restore: Option<PathBuf>,
    /// Where a VM is expected from another host, instead of booting.
    pub incoming: Option<Endpoint>,
    /// This host's certificate, for moves over TLS.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// Who signs the certificates of hosts that are trusted.
    pub tls_ca: Option<PathBuf>,
}

/// A configuration that makes no VM.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No kernel.
    #[error("no kernel given; add `--kernel FILE` (a bzImage or vmlinux)")]
    NoKernel,
    /// Too few or too many vCPUs.
    #[error("{0} vCPUs are not possible; use 1 to {MAX_CPUS}")]
    Cpus(u32),
    /// Two ways to begin.
    #[error("a VM is either restored or comes from another host; use --restore or --incoming")]
    TwoBeginnings,
    /// Two cards with one name.
    #[error("two network cards are called `{0}`; give each its own `id=`")]
    SameId(String),
    /// Two cards on one tap.
    #[error("two network cards use tap `{0}`; give each its own `tap=`")]
    SameTap(String),
    /// Two cards with one address.
    #[error("two network cards have the address {0}; give each its own `mac=`")]
    SameMac(crate::virtio::net::MacAddress),
    /// A device needs a key that is missing.
    #[error("`{option} {text}` lacks `{key}=`; write it like `{option} {example}`")]
    Missing {
        /// The option.
        option: &'static str,
        /// Its text.
        text: String,
        /// What is missing.
        key: &'static str,
        /// How it could look.
        example: &'static str,
    },
    /// A device has a key that does not exist.
    #[error("`{option}` knows no `{key}`; it knows {known}")]
    UnknownKey {
        /// The option.
        option: &'static str,
        /// The key.
        key: String,
        /// Keys that exist.
        known: &'static str,
    },
    /// A key came twice.
    #[error("`{option}` has `{key}` twice")]
    Twice {
        /// The option.
        option: &'static str,
        /// The key.
        key: String,
    },
    /// A key has a value that it cannot have.
    #[error("`{option}` cannot have `{key}={value}`; use {allowed}")]
    Value {
        /// The option.
        option: &'static str,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// Values that it can have.
        allowed: &'static str,
    },
    /// A bad MAC address.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// The configuration file cannot be read.
    #[error("cannot read configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is not understood.
    #[error("cannot understand configuration {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
}
