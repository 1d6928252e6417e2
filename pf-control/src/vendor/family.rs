//! Families of cards: what tells a PF of the family, what its VFs look like, and what its driver can
//! be asked. The built-in ones are Rust; an operator or vendor may add more in TOML.

use super::{VendorError, VfDescription, VfLink, VfSettings};
use crate::inventory::Pf;
use crate::ops::{DeviceClass, Region, RegionKind, Ring, Rings, Vectors, limits};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Page size of register regions.
const PAGE: u64 = 4096;
/// BARs of a PCI function.
const BARS: u8 = 6;

/// One family.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Family {
    /// The host's driver of the PF.
    pub driver: String,
    /// Vendor and device of PFs.
    #[serde(deserialize_with = "ids")]
    pub pfs: Vec<(u16, u16)>,
    /// What VFs are.
    #[serde(default = "net")]
    pub class: DeviceClass,
    /// The plugin that drives them.
    pub plugin: String,
    /// Queue pairs of each.
    pub queues: u16,
    /// Their register pages: who may touch what.
    pub regions: Vec<FamilyRegion>,
    /// Their interrupt vectors.
    pub vectors: FamilyVectors,
    /// What rings they can use.
    pub rings: RingRule,
    /// The driver puts VFs into a VLAN (`IFLA_VF_VLAN`).
    #[serde(default)]
    pub vlan: bool,
    /// The driver checks what VFs send (`IFLA_VF_SPOOFCHK`).
    #[serde(default)]
    pub spoof_check: bool,
    /// The driver trusts VFs on demand (`IFLA_VF_TRUST`).
    #[serde(default)]
    pub trust: bool,
    /// The driver limits what VFs send (`IFLA_VF_RATE`).
    #[serde(default)]
    pub rate: bool,
    /// The driver sets VFs' links (`IFLA_VF_LINK_STATE`).
    #[serde(default)]
    pub link_state: bool,
}

fn net() -> DeviceClass {
    DeviceClass::Net
}

/// Pages of a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FamilyRegion {
    /// BAR, 0 to 5.
    pub bar: u8,
    /// Offset in the BAR in bytes, a multiple of 4096.
    pub offset: u64,
    /// Bytes, a multiple of 4096.
    pub length: u64,
    /// Who may touch them.
    pub kind: RegionKind,
    /// Where data pages appear in the guest's window, in bytes.
    pub window_offset: Option<u64>,
}

/// Interrupt vectors by their numbers in the VF's table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FamilyVectors {
    /// How many there are.
    pub total: u16,
    /// Those that the plugin uses, in the order in which it knows them.
    pub plugin: Vec<u16>,
    /// The one that stays with the VMM.
    pub control: Option<u16>,
}

/// What rings a VF can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingRule {
    /// Addresses and lengths are multiples of this many bytes.
    pub alignment: u32,
    /// Longest ring in bytes.
    pub longest: u32,
}

/// PCI identifications, `vendor:device` in hexadecimal, as lspci writes them.
fn ids<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<(u16, u16)>, D::Error> {
    let number =
        |text: &str| (text.len() == 4).then(|| u16::from_str_radix(text, 16).ok()).flatten();
    let pair = |text: String| {
        let (vendor, device) = text.split_once(':')?;
        Some((number(vendor)?, number(device)?))
    };
    Vec::<String>::deserialize(from)?
        .into_iter()
        .map(|text| {
            let error = format!("'{text}' is no vendor:device in hexadecimal, like 8086:10c9");
            pair(text).ok_or_else(|| serde::de::Error::custom(error))
        })
        .collect()
}

impl Family {
    /// Whether the PF is one of it.
    pub fn serves(&self, pf: &Pf) -> bool {
        pf.driver == self.driver && self.pfs.contains(&(pf.ids.vendor, pf.ids.device))
    }

    /// What a VMM must know of its VFs.
    pub(super) fn describe(&self) -> VfDescription {
        let region = |region: &FamilyRegion| Region {
            bar: region.bar,
            offset: region.offset,
            length: region.length,
            kind: region.kind,
            window_offset: region.window_offset,
        };
        let FamilyVectors { total, plugin, control } = &self.vectors;
        VfDescription {
            class: self.class,
            plugin: self.plugin.clone(),
            queues: self.queues,
            regions: self.regions.iter().map(region).collect(),
            vectors: Vectors { total: *total, plugin: plugin.clone(), control: *control },
            device_info: [0; limits::DEVICE_INFO_WORDS],
        }
    }

    /// Whether the driver can be told these settings.
    pub(super) fn check_settings(
        &self,
        interface: &str,
        settings: &VfSettings,
    ) -> Result<(), VendorError> {
        let VfSettings { trust, spoof_check, min_tx_mbit, max_tx_mbit, link } = *settings;
        for (wanted, has, what) in [
            (!spoof_check, self.spoof_check, "source check"),
            (trust, self.trust, "trust"),
            ((min_tx_mbit, max_tx_mbit) != (0, 0), self.rate, "rate"),
            (link != VfLink::Auto, self.link_state, "link state"),
        ] {
            if wanted && !has {
                let driver = &self.driver;
                return Err(VendorError::Invalid(format!(
                    "the policy asks for a {what}, which '{interface}' under {driver} does not set"
                )));
            }
        }
        Ok(())
    }

    /// Whether its VFs can use these rings.
    pub(super) fn check_rings(&self, rings: &Rings) -> Result<(), VendorError> {
        let RingRule { alignment, longest } = self.rings;
        for (direction, rings) in [("transmit", &rings.tx), ("receive", &rings.rx)] {
            if rings.len() > usize::from(self.queues) {
                return Err(VendorError::Invalid(format!(
                    "{} {direction} rings: a VF of this device has {}",
                    rings.len(),
                    self.queues
                )));
            }
            if let Some(ring) = rings.iter().find(|ring| !self.usable(ring)) {
                return Err(VendorError::Invalid(format!(
                    "{direction} ring at {:#x} of {} bytes: address and length must be multiples of \
                     {alignment}, and the length 1 to {longest}",
                    ring.address, ring.length
                )));
            }
        }
        Ok(())
    }

    fn usable(&self, ring: &Ring) -> bool {
        let RingRule { alignment, longest } = self.rings;
        ring.address.is_multiple_of(alignment.into())
            && ring.length.is_multiple_of(alignment)
            && (1..=longest).contains(&ring.length)
            && ring.address.checked_add(ring.length.into()).is_some()
    }

    /// What is wrong with it, in words.
    fn fault(&self) -> Option<String> {
        let Self { regions, vectors, rings, .. } = self;
        if self.pfs.is_empty() || self.plugin.is_empty() {
            return Some("it needs `pfs` and a `plugin`".into());
        }
        if self.queues == 0 || usize::from(self.queues) > limits::QUEUES {
            return Some(format!("`queues` must be 1 to {}", limits::QUEUES));
        }
        if rings.alignment == 0 || rings.longest == 0 {
            return Some("`rings` need an alignment and a longest length above 0".into());
        }
        if regions.is_empty() || regions.len() > limits::REGIONS {
            return Some(format!("`regions` must be 1 to {}", limits::REGIONS));
        }
        for (index, region) in regions.iter().enumerate() {
            let FamilyRegion { bar, offset, length, kind, window_offset } = *region;
            let pages = [offset, length, window_offset.unwrap_or(0)];
            let end = offset.checked_add(length);
            if bar >= BARS || length == 0 || end.is_none() || pages.iter().any(|at| at % PAGE != 0)
            {
                return Some(format!("region {index} is not whole pages of a BAR"));
            }
            if (kind == RegionKind::Data) != window_offset.is_some() {
                let rule = "data pages have a `window-offset`, and no others do";
                return Some(format!("region {index}: {rule}"));
            }
            let overlaps = |a: u64, a_end: u64, b: u64, b_end: u64| a < b_end && b < a_end;
            for other in &regions[..index] {
                let same = other.bar == bar
                    && overlaps(offset, offset + length, other.offset, other.offset + other.length);
                let window = window_offset.zip(other.window_offset).is_some_and(|(here, there)| {
                    let end = |at: u64, length| at.saturating_add(length);
                    overlaps(here, end(here, length), there, end(there, other.length))
                });
                if same || window {
                    return Some(format!("region {index} overlaps another"));
                }
            }
        }
        let mut used: Vec<u16> = vectors.plugin.iter().copied().chain(vectors.control).collect();
        let count = used.len();
        used.sort_unstable();
        used.dedup();
        if used.len() != count || used.last().is_some_and(|last| *last >= vectors.total) {
            return Some("each vector has one use, and is below `total`".into());
        }
        None
    }
}

/// Families that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FamilyError {
    /// The file cannot be read.
    #[error("cannot read the families in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file makes no sense; the source says where and why.
    #[error("the families in {} make no sense", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A family describes what no VF can be.
    #[error("family '{name}' in {}: {fault}", path.display())]
    Fault {
        /// The file.
        path: PathBuf,
        /// The family.
        name: String,
        /// What is wrong.
        fault: String,
    },
}

/// Families by name, of which the first that knows a PF is its.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Families(BTreeMap<String, Family>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    families: BTreeMap<String, Family>,
}

impl Families {
    /// Reads a file with a table `families.NAME` for each family.
    ///
    /// # Errors
    /// [`FamilyError`], which says what to mend.
    pub fn load(path: &Path) -> Result<Self, FamilyError> {
        let text = fs::read_to_string(path)
            .map_err(|source| FamilyError::Read { path: path.to_owned(), source })?;
        let families = Self::parse(&text).map_err(|source| FamilyError::Content {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        for (name, family) in &families.0 {
            if let Some(fault) = family.fault() {
                let (path, name) = (path.to_owned(), name.clone());
                return Err(FamilyError::Fault { path, name, fault });
            }
        }
        Ok(families)
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str::<Document>(text).map(|document| Self(document.families))
    }

    /// The family of a PF, with its name.
    pub fn of(&self, pf: &Pf) -> Option<(&str, &Family)> {
        let mut families = self.0.iter().map(|(name, family)| (name.as_str(), family));
        families.find(|(_, family)| family.serves(pf))
    }
}

#[cfg(test)]
#[path = "family_test.rs"]
mod tests;
