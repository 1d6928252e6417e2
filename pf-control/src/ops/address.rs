//! Ethernet and PCI addresses, with the text forms that Linux uses.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A text that is no address of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {wanted}")]
pub struct ParseAddressError {
    text: String,
    wanted: &'static str,
}

/// A 48-bit Ethernet address; text form `52:54:00:12:34:56`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(into = "String", try_from = "String")]
#[cfg_attr(feature = "daemon", schema(value_type = String, example = "52:54:00:00:00:01"))]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Whether it names one station: not zero and without the group bit (IEEE 802-2014, 8.2).
    pub fn is_station(&self) -> bool {
        self.0 != [0; 6] && self.0[0] & 1 == 0
    }

    /// Whether it names a group of stations (the broadcast address included).
    pub fn is_group(&self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAddressError {
            text: text.to_owned(),
            wanted: "an Ethernet address like 52:54:00:12:34:56",
        };
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            *octet = hex(parts.next().ok_or_else(error)?, 2).ok_or_else(error)? as u8;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(octets)) }
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddr {
    type Error = ParseAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The place of a PCI function; text form `0000:01:10.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PciAddress {
    /// Segment group.
    pub domain: u16,
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

/// A text, as [`fmt::Display`] writes it.
#[cfg(feature = "daemon")]
impl utoipa::PartialSchema for PciAddress {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .examples(["0000:01:10.0"])
            .into()
    }
}

#[cfg(feature = "daemon")]
impl utoipa::ToSchema for PciAddress {}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for PciAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (rest, function) = text.split_once('.')?;
            let mut parts = rest.split(':');
            let domain = hex(parts.next()?, 4)?;
            let bus = hex(parts.next()?, 2)?;
            let device = hex(parts.next()?, 2).filter(|&device| device < 32)?;
            let function = hex(function, 1).filter(|&function| function < 8)?;
            parts.next().is_none().then_some(Self {
                domain: domain as u16,
                bus: bus as u8,
                device: device as u8,
                function: function as u8,
            })
        };
        parse().ok_or_else(|| ParseAddressError {
            text: text.to_owned(),
            wanted: "a PCI address like 0000:01:10.0",
        })
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for PciAddress {
    type Error = ParseAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Parses exactly `digits` hexadecimal digits, at most 8.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let valid = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_survives_a_round_trip() {
        let mac: MacAddr = "52:54:00:AB:cd:0f".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:0f");
        assert!(mac.is_station() && !mac.is_group());
        assert!(MacAddr([0xff; 6]).is_group());
    }

    #[test]
    fn malformed_macs_are_refused() {
        for text in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "5:54:00:12:34:56", "+1:0:0:0"] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn pci_text_survives_a_round_trip() {
        let address: PciAddress = "0000:01:10.2".parse().unwrap();
        assert_eq!((address.bus, address.device, address.function), (1, 0x10, 2));
        assert_eq!(address.to_string(), "0000:01:10.2");
    }

    #[test]
    fn malformed_pci_addresses_are_refused() {
        for text in ["01:10.2", "0000:01:20.0", "0000:01:10.8", "0000:01:10", "0000:01:10.2:3"] {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }
}
