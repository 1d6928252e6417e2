//! Profiles, as an operator writes them in TOML, and whether an adapter has what one says.

use crate::ops::DeviceClass;
use crate::vendor::{Adapter, Uplink, VfDescription};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a VF must be able to do. What is left out does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Profile {
    /// What it is: `net` or `crypto`.
    pub class: DeviceClass,
    /// The least speed of the uplink, in Mbit/s. An uplink without a link has none.
    pub min_bandwidth_mbit: Option<u32>,
    /// The adapter's PCI vendor, four hexadecimal digits.
    #[serde(default, deserialize_with = "vendor")]
    pub vendor: Option<u16>,
    /// The plugin that drives the VF.
    pub plugin: Option<String>,
    /// The embedded switch that the adapter is part of, as `pf-control show` names it.
    pub switch: Option<String>,
    /// The NUMA node that the adapter is near to.
    pub numa_node: Option<u32>,
    /// Whether the device may be served by the emulated path, over a shared uplink, until a VF is
    /// free. Without, a request that finds none free is refused and not queued.
    #[serde(default = "yes")]
    pub sharing: bool,
}

fn yes() -> bool {
    true
}

fn vendor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = (text.len() == 4).then(|| u16::from_str_radix(&text, 16).ok()).flatten();
    let expected = || format!("a PCI vendor is four hexadecimal digits, not '{text}'");
    number.map(Some).ok_or_else(|| serde::de::Error::custom(expected()))
}

/// What an adapter has.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The adapter.
    pub adapter: &'a Adapter,
    /// Its uplink, as it is.
    pub uplink: &'a Uplink,
    /// Its VFs.
    pub vfs: &'a VfDescription,
}

/// What an adapter lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its {what} is {has}, and {wants} is asked for")]
pub struct Mismatch {
    what: &'static str,
    has: String,
    wants: String,
}

impl Profile {
    /// Whether an adapter has what is asked for.
    ///
    /// # Errors
    /// The first thing that it lacks.
    pub fn check(&self, candidate: Candidate<'_>) -> Result<(), Mismatch> {
        let Candidate { adapter, uplink, vfs } = candidate;
        let need = |what, has: String, wants: String, met: bool| {
            if met { Ok(()) } else { Err(Mismatch { what, has, wants }) }
        };
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "not known".to_owned());
        let (has, wants) = (format!("{:?}", vfs.class), format!("{:?}", self.class));
        need("class", has.to_lowercase(), wants.to_lowercase(), vfs.class == self.class)?;
        if let Some(wants) = self.min_bandwidth_mbit {
            let has = or_none(uplink.speed_mbit.map(|speed| format!("{speed} Mbit/s")));
            let met = uplink.speed_mbit.is_some_and(|speed| speed >= wants);
            need("bandwidth", has, format!("{wants} Mbit/s"), met)?;
        }
        if let Some(wants) = self.vendor {
            let has = adapter.ids.vendor;
            need("vendor", format!("{has:04x}"), format!("{wants:04x}"), has == wants)?;
        }
        if let Some(wants) = &self.plugin {
            need("plugin", vfs.plugin.to_owned(), wants.clone(), vfs.plugin == *wants)?;
        }
        if let Some(wants) = &self.switch {
            let has = or_none(adapter.switch.clone());
            need("switch", has, wants.clone(), adapter.switch.as_ref() == Some(wants))?;
        }
        if let Some(wants) = self.numa_node {
            let has = or_none(adapter.numa_node.map(|node| node.to_string()));
            need("NUMA node", has, wants.to_string(), adapter.numa_node == Some(wants))?;
        }
        Ok(())
    }
}

/// Profiles that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("cannot read the profiles in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file makes no sense; the source says where and why.
    #[error("the profiles in {} make no sense", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

/// A host's profiles by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profiles(BTreeMap<String, Profile>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

impl Profiles {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|source| {
            let source = Box::new(source);
            ProfileError::Content { path: path.to_owned(), source }
        })
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str::<Document>(text).map(|document| Self(document.profiles))
    }

    /// The profile of that name.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
#[path = "profile_test.rs"]
mod tests;
