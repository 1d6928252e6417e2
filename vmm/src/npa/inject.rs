//! Plugins on the host: finds one by name, verifies it, and decides whether it fits the device,
//! the VF and the landing. Never touches the guest.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use npa_abi::image::{PluginHeader, REGION_DATA, RingNeed};
use npa_abi::shell_page::QueueDescriptor;
use npa_plugin::image::{FILE_LENGTH_MAX, Image, ImageError, Limits, Signature};
use pf_control::ops::{Acquired, RegionKind};

use super::hardware::{Plugin, PluginStore};

/// Why a plugin cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// A name that cannot be a file's.
    #[error("'{name}' is no plugin name; plugin names are made of a-z, 0-9 and '-'")]
    Name {
        /// The name.
        name: String,
    },
    /// No such file, or not readable.
    #[error("cannot read plugin {}: put it there or name its directory with --plugins", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// It breaks a rule.
    #[error("plugin {} is refused", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The rule.
        #[source]
        source: ImageError,
    },
    /// Nobody vouches for it, and policy asks for it.
    #[error("plugin {} is not signed; allow unsigned plugins or have it signed", path.display())]
    Unsigned {
        /// The file.
        path: PathBuf,
    },
    /// The file holds another plugin.
    #[error("plugin file {} holds '{found}'", path.display())]
    OtherName {
        /// The file.
        path: PathBuf,
        /// The name in its header.
        found: String,
    },
    /// It is for another kind of device.
    #[error("plugin '{plugin}' is for device class {found}, the device is of class {wanted}")]
    Class {
        /// The plugin.
        plugin: String,
        /// Its class code.
        found: u16,
        /// The device's.
        wanted: u16,
    },
    /// It does not serve the VF.
    #[error("plugin '{plugin}' does not serve PCI device {vendor:04x}:{device:04x}")]
    PciId {
        /// The plugin.
        plugin: String,
        /// The VF's vendor.
        vendor: u16,
        /// The VF's device.
        device: u16,
    },
    /// It and the guest's shell have no ABI version in common.
    #[error("plugin '{plugin}' speaks ABI {min} to {max}, the guest's shell speaks {shell}")]
    Abi {
        /// The plugin.
        plugin: String,
        /// Oldest.
        min: u16,
        /// Newest.
        max: u16,
        /// The shell's choice.
        shell: u16,
    },
    /// A region that may not be given to a guest.
    #[error(
        "plugin '{plugin}' asks for {length:#x} bytes at {offset:#x} of BAR {bar}, which are not \
         data pages of this VF"
    )]
    Region {
        /// The plugin.
        plugin: String,
        /// BAR.
        bar: u8,
        /// Offset in the BAR.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// More vectors than there are.
    #[error("plugin '{plugin}' needs {wanted} interrupt vectors, {available} are available")]
    Vectors {
        /// The plugin.
        plugin: String,
        /// Needed.
        wanted: u16,
        /// Those that VF and device have.
        available: u16,
    },
}

/// A directory of plugin images, `NAME.npa` each.
#[derive(Clone, Debug)]
pub struct PluginDirectory {
    path: PathBuf,
    allow_unsigned: bool,
    limits: Limits,
}

/// What plugin files end in.
pub const PLUGIN_SUFFIX: &str = "npa";

impl PluginDirectory {
    /// Plugins in `path`, for landings of `landing_length` bytes. Images that nobody signed are
    /// taken only with `allow_unsigned`.
    pub fn new(path: impl Into<PathBuf>, landing_length: u32, allow_unsigned: bool) -> Self {
        let limits = Limits { landing: landing_length.into() };
        Self { path: path.into(), allow_unsigned, limits }
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, InjectError> {
        let failed = |source| InjectError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        File::open(path)
            .map_err(failed)?
            .take(FILE_LENGTH_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(bytes)
    }
}

impl PluginStore for PluginDirectory {
    fn load(&self, name: &str) -> Result<Box<dyn Plugin>, InjectError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(InjectError::Name { name: name.to_owned() });
        }
        let path = self.path.join(name).with_extension(PLUGIN_SUFFIX);
        let image = Image::parse_within(&self.read(&path)?, &self.limits)
            .map_err(|source| InjectError::Image { path: path.clone(), source })?;
        if image.signature() == Signature::Unsigned && !self.allow_unsigned {
            return Err(InjectError::Unsigned { path });
        }
        if image.name() != name {
            return Err(InjectError::OtherName { path, found: image.name().to_owned() });
        }
        Ok(Box::new(image))
    }
}

impl Plugin for Image {
    fn header(&self) -> &PluginHeader {
        Image::header(self)
    }

    fn name(&self) -> &str {
        Image::name(self)
    }

    fn version(&self) -> &str {
        Image::version(self)
    }

    fn relocate(&self, base: u64) -> Vec<u8> {
        Image::relocate(self, base)
    }
}

/// What the device offers a plugin, beside the VF.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Class code of the device.
    pub class: u16,
    /// ABI version that the shell chose.
    pub abi: u16,
    /// MSI-X vectors of the device for its VF.
    pub vectors: u16,
}

/// A data region of the VF, and where it appears in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Offset in the window, in bytes.
    pub window_offset: u64,
    /// BAR of the VF.
    pub bar: u8,
    /// Offset in the BAR, in bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// How a plugin sits on a VF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// What goes into the window.
    pub placements: Vec<Placement>,
    /// Bytes of the window that are used, from its start.
    pub window_length: u32,
    /// Vectors used: the first so many of those that the VF has for plugins.
    pub vectors: u16,
    /// Queue roles and their needs.
    pub queues: QueueNeeds,
}

/// What a plugin needs of the queues that the guest sets up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueNeeds {
    roles: Vec<RingNeed>,
    per_role: usize,
}

impl QueueNeeds {
    /// How many queues there may be.
    pub fn count(&self) -> std::ops::RangeInclusive<usize> {
        self.roles.len()..=self.roles.len() * self.per_role
    }

    /// Whether queue `index` may look like this.
    pub fn fits(&self, index: usize, queue: &QueueDescriptor) -> bool {
        let Some(role) = self.roles.get(index % self.roles.len().max(1)) else { return false };
        (u32::from(role.min_entries)..=role.max_entries.into()).contains(&queue.entries)
            && u64::from(queue.length) >= role.bytes(queue.entries)
            && queue.base.is_multiple_of(u64::from(role.align).max(1))
    }
}

/// Decides whether and how `plugin` sits on the VF. The daemon's word on which pages are data
/// pages is final; the plugin only chooses among them.
///
/// # Errors
/// [`InjectError`] names the first thing that does not fit.
pub fn fit(plugin: &dyn Plugin, vf: &Acquired, host: &Host) -> Result<Fit, InjectError> {
    let header = plugin.header();
    let name = || plugin.name().to_owned();
    if header.class != host.class {
        return Err(InjectError::Class { plugin: name(), found: header.class, wanted: host.class });
    }
    if !(header.abi_min..=header.abi_max).contains(&host.abi) {
        let (min, max) = (header.abi_min, header.abi_max);
        return Err(InjectError::Abi { plugin: name(), min, max, shell: host.abi });
    }
    let (vendor, device) = (vf.pci_ids.vendor, vf.pci_ids.device);
    let ids = header.pci_ids.iter().take(header.pci_id_count.into());
    if !ids.into_iter().any(|id| (id.vendor, id.device) == (vendor, device)) {
        return Err(InjectError::PciId { plugin: name(), vendor, device });
    }
    let available = host.vectors.min(vf.vectors.plugin.len() as u16);
    if header.vectors > available {
        return Err(InjectError::Vectors { plugin: name(), wanted: header.vectors, available });
    }
    let regions = &header.regions[..usize::from(header.region_count).min(header.regions.len())];
    let mut placements = Vec::with_capacity(regions.len());
    for region in regions {
        let given = vf.regions.iter().any(|given| {
            given.kind == RegionKind::Data
                && given.bar == region.bar
                && given.offset <= region.offset
                && ends_within(region.offset, region.length, given.offset, given.length)
        });
        // A trapped region would need an emulation of the VF's registers, which no device of
        // this host has.
        if region.kind != REGION_DATA || !given {
            let &npa_abi::image::Region { bar, offset, length, .. } = region;
            return Err(InjectError::Region { plugin: name(), bar, offset, length });
        }
        placements.push(Placement {
            window_offset: region.window_offset.into(),
            bar: region.bar,
            offset: region.offset,
            length: region.length,
        });
    }
    let end = placements.iter().map(|part| part.window_offset + part.length).max().unwrap_or(0);
    let roles = &header.roles[..usize::from(header.role_count).min(header.roles.len())];
    Ok(Fit {
        placements,
        window_length: u32::try_from(end).unwrap_or(u32::MAX),
        vectors: header.vectors,
        queues: QueueNeeds { roles: roles.to_vec(), per_role: header.queues_per_role.into() },
    })
}

fn ends_within(offset: u64, length: u64, outer: u64, outer_length: u64) -> bool {
    match (offset.checked_add(length), outer.checked_add(outer_length)) {
        (Some(end), Some(outer_end)) => end <= outer_end,
        _ => false,
    }
}

#[cfg(test)]
#[path = "inject_test.rs"]
mod tests;
