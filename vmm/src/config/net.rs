//! `--net`.

use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::ConfigError;
use super::fields::Fields;
use crate::virtio::net::MacAddress;

const OPTION: &str = "--net";

/// Longest name of a device.
const MAX_ID: usize = 32;

/// Whether a card's data path may be put on a VF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acceleration {
    /// When somebody asks for it.
    #[default]
    Auto,
    /// As soon as a VF can be had, from the start of the VM on.
    WhenFree,
    /// Never; the guest sees a plain virtio card.
    Off,
}

/// A network card. Text form: `id=NAME,tap=INTERFACE[,mac=ADDRESS][,accel=auto|when-free|off][,offloads=on|off][,profile=NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Name in the control interface: 1 to 32 letters, digits, `-` or `_`.
    pub id: String,
    /// Tap interface of the host.
    pub tap: String,
    /// The card's address; one at random when absent.
    pub mac: Option<MacAddress>,
    /// Whether its data path may be put on a VF.
    pub acceleration: Acceleration,
    /// Whether checksums and segmentation of what the guest sends are left to the card. Without,
    /// VFs will do that do neither.
    pub offloads: bool,
    /// The profile of pf-control's that says what VF it may have; any if absent.
    pub profile: Option<String>,
}

impl NetConfig {
    fn new(
        id: &str,
        tap: &str,
        mac: Option<&str>,
        acceleration: Option<&str>,
        offloads: Option<&str>,
        profile: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let valid = (1..=MAX_ID).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let value = |key, value: &str, allowed| ConfigError::Value {
            option: OPTION,
            key,
            value: value.to_owned(),
            allowed,
        };
        if !valid {
            return Err(value("id", id, "1 to 32 letters, digits, - or _"));
        }
        let acceleration = match acceleration {
            None | Some("auto") => Acceleration::Auto,
            Some("when-free") => Acceleration::WhenFree,
            Some("off") => Acceleration::Off,
            Some(other) => return Err(value("accel", other, "auto, when-free or off")),
        };
        let offloads = match offloads {
            None | Some("on") => true,
            Some("off") => false,
            Some(other) => return Err(value("offloads", other, "on or off")),
        };
        let mac = mac.map(str::parse).transpose()?;
        let (id, tap) = (id.to_owned(), tap.to_owned());
        let profile = profile.map(str::to_owned);
        Ok(Self { id, tap, mac, acceleration, offloads, profile })
    }
}

impl FromStr for NetConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut fields =
            Fields::split(OPTION, "id=net0,tap=tap0,mac=52:54:00:12:34:56,accel=auto", text)?;
        let id = fields.require("id")?;
        let tap = fields.require("tap")?;
        let (mac, acceleration) = (fields.take("mac"), fields.take("accel"));
        let (offloads, profile) = (fields.take("offloads"), fields.take("profile"));
        fields.finish("id, tap, mac, accel, offloads and profile")?;
        Self::new(id, tap, mac, acceleration, offloads, profile)
    }
}

impl<'de> Deserialize<'de> for NetConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            id: String,
            tap: String,
            mac: Option<String>,
            accel: Option<String>,
            offloads: Option<String>,
            profile: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a card like {id = \"net0\", tap = \"tap0\"}")]
        enum Form {
            Text(String),
            Table(Table),
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) => text.parse().map_err(de::Error::custom),
            Form::Table(table) => {
                let (mac, accel) = (table.mac.as_deref(), table.accel.as_deref());
                let (offloads, profile) = (table.offloads.as_deref(), table.profile.as_deref());
                Self::new(&table.id, &table.tap, mac, accel, offloads, profile)
                    .map_err(de::Error::custom)
            }
        }
    }
}
