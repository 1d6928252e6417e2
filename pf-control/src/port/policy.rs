//! What a port's VM may do, as an operator has written it: which addresses it has, and what its VF is
//! set to. What is not allowed is forbidden.

use crate::ops::{MacAddr, OpError};
use crate::vendor::{VfLink, VfSettings};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MacRange {
    address: u64,
    bits: u32,
}

/// Bits of an address.
const MAC_BITS: u32 = 48;

impl MacRange {
    fn holds(self, mac: MacAddr) -> bool {
        let differing = number(mac) ^ self.address;
        differing.checked_shr(MAC_BITS - self.bits).unwrap_or(0) == 0
    }
}

/// The address as a number of 48 bits.
fn number(mac: MacAddr) -> u64 {
    mac.0.iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
}

impl<'de> Deserialize<'de> for MacRange {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let (address, bits) = text.split_once('/').unwrap_or((&text, "48"));
        let parsed = address.parse::<MacAddr>().ok().zip(bits.parse().ok());
        parsed.filter(|(_, bits)| *bits <= MAC_BITS).map_or_else(
            || {
                let expected = "an address, or ADDRESS/BITS for all that begin with these bits";
                Err(serde::de::Error::custom(format!("'{text}' is not {expected}")))
            },
            |(mac, bits)| Ok(Self { address: number(mac), bits }),
        )
    }
}

/// One port's policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PortPolicy {
    macs: Vec<MacRange>,
    #[serde(default)]
    vlans: Vec<u16>,
    #[serde(default)]
    trust: bool,
    #[serde(default = "yes")]
    spoof_check: bool,
    #[serde(default)]
    min_tx_mbit: u32,
    #[serde(default)]
    max_tx_mbit: u32,
    #[serde(default)]
    link: VfLink,
}

fn yes() -> bool {
    true
}

impl PortPolicy {
    /// Any address, and nothing beyond.
    fn any_address() -> Self {
        Self {
            macs: vec![MacRange { address: 0, bits: 0 }],
            vlans: Vec::new(),
            trust: false,
            spoof_check: true,
            min_tx_mbit: 0,
            max_tx_mbit: 0,
            link: VfLink::Auto,
        }
    }

    /// What a VF of the port's is set to.
    pub(crate) fn settings(&self) -> VfSettings {
        VfSettings {
            trust: self.trust,
            spoof_check: self.spoof_check,
            min_tx_mbit: self.min_tx_mbit,
            max_tx_mbit: self.max_tx_mbit,
            link: self.link,
        }
    }

    /// Whether the port's VM may have the address.
    ///
    /// # Errors
    /// [`OpError::Policy`].
    pub(crate) fn check_mac(&self, port: &str, mac: MacAddr) -> Result<(), OpError> {
        let allowed = self.macs.iter().any(|range| range.holds(mac));
        verdict(allowed, port, || format!("{mac} is not among its addresses"))
    }

    /// Whether the port's VF may be put into a VLAN; into none it may always.
    ///
    /// # Errors
    /// [`OpError::Policy`].
    pub(crate) fn check_vlan(&self, port: &str, vlan: u16) -> Result<(), OpError> {
        let allowed = vlan == 0 || self.vlans.contains(&vlan);
        verdict(allowed, port, || format!("{vlan} is not among its VLANs"))
    }

    /// Whether the source check may be switched so.
    ///
    /// # Errors
    /// [`OpError::Policy`].
    pub(crate) fn check_spoof_check(&self, port: &str, enabled: bool) -> Result<(), OpError> {
        let allowed = enabled || !self.spoof_check;
        verdict(allowed, port, || "its source check stays on".to_owned())
    }
}

fn verdict(allowed: bool, port: &str, reason: impl Fn() -> String) -> Result<(), OpError> {
    match allowed {
        true => Ok(()),
        false => Err(OpError::Policy { port: port.to_owned(), reason: reason() }),
    }
}

/// Policies that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the ports in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file makes no sense; the source says where and why.
    #[error("the ports in {} make no sense", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

/// The policies of all ports.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// Of ports that are not named.
    default: Option<PortPolicy>,
    #[serde(default)]
    ports: BTreeMap<String, PortPolicy>,
}

impl Default for Policies {
    /// Where an operator has written none: any address on any port, and nothing beyond.
    fn default() -> Self {
        Self { default: Some(PortPolicy::any_address()), ports: BTreeMap::new() }
    }
}

impl Policies {
    /// Reads a file with a table `ports.NAME` for each port, and perhaps `default` for the others.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let text = fs::read_to_string(path)
            .map_err(|source| PolicyError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| PolicyError::Content {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// The policy of a port.
    ///
    /// # Errors
    /// [`OpError::Policy`]: the operator does not know it.
    pub(crate) fn of(&self, port: &str) -> Result<&PortPolicy, OpError> {
        let policy = self.ports.get(port).or(self.default.as_ref());
        policy.ok_or_else(|| OpError::Policy {
            port: port.to_owned(),
            reason: "it is not among the ports, and there is no default".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Policies, toml::de::Error> {
        toml::from_str(text)
    }

    fn mac(text: &str) -> MacAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_single_or_begin_alike() {
        let policies = parse(
            "[default]\nmacs = [\"52:54:00:00:00:00/24\"]\n\
             [ports.a]\nmacs = [\"02:00:00:00:00:01\", \"06:00:00:00:10:00/36\"]\n\
             [ports.any]\nmacs = [\"00:00:00:00:00:00/0\"]\n[ports.none]\nmacs = []\n",
        )
        .unwrap();
        let may = |port: &str, address: &str| {
            policies.of(port).unwrap().check_mac(port, mac(address)).is_ok()
        };
        assert!(may("other", "52:54:00:ff:ff:ff") && !may("other", "52:54:01:00:00:00"));
        assert!(may("a", "02:00:00:00:00:01") && !may("a", "02:00:00:00:00:02"));
        assert!(may("a", "06:00:00:00:1f:ff") && !may("a", "06:00:00:00:20:00"));
        assert!(!may("a", "52:54:00:00:00:01"), "a port that is named has no default");
        assert!(may("any", "fe:ff:ff:ff:ff:ff") && !may("none", "02:00:00:00:00:01"));
    }

    #[test]
    fn what_is_not_allowed_is_forbidden() {
        let closed = Policies::default();
        let policy = closed.of("tap0").unwrap();
        assert_eq!(policy.settings(), VfSettings::default());
        assert!(policy.check_mac("tap0", mac("52:54:00:00:00:01")).is_ok());
        assert!(policy.check_vlan("tap0", 0).is_ok() && policy.check_vlan("tap0", 5).is_err());
        assert!(policy.check_spoof_check("tap0", true).is_ok());
        assert!(policy.check_spoof_check("tap0", false).is_err());

        let open = parse("[ports.t]\nmacs = []\nvlans = [5]\nspoof-check = false\n").unwrap();
        let policy = open.of("t").unwrap();
        assert!(policy.check_vlan("t", 5).is_ok() && policy.check_vlan("t", 6).is_err());
        assert!(policy.check_spoof_check("t", false).is_ok());
        let stranger = open.of("tap0").unwrap_err();
        assert!(matches!(&stranger, OpError::Policy { port, .. } if port == "tap0"), "{stranger}");
    }

    #[test]
    fn files_that_make_no_sense_are_refused() {
        for bad in [
            "[ports.a]\n",
            "[ports.a]\nmacs = [\"52:54:00\"]\n",
            "[ports.a]\nmacs = [\"52:54:00:00:00:00/49\"]\n",
            "[ports.a]\nmacs = []\npromiscuous = true\n",
            "[ports.a]\nmacs = []\nlink = \"sideways\"\n",
            "[port.a]\nmacs = []\n",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let error = Policies::load(Path::new("/no/such.toml")).unwrap_err();
        assert!(error.to_string().contains("/no/such.toml"));
    }
}
