//! `--disk`.

use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::ConfigError;
use super::fields::Fields;

/// A disk. Text form: `path=FILE[,readonly]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Raw image or block device.
    pub path: PathBuf,
    /// Whether the guest may only read.
    pub read_only: bool,
}

impl FromStr for DiskConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut fields = Fields::split("--disk", "path=disk.img", text)?;
        let path = PathBuf::from(fields.require("path")?);
        let read_only = match fields.take("readonly") {
            None | Some("off") => false,
            Some("" | "on") => true,
            Some(other) => {
                return Err(ConfigError::Value {
                    option: "--disk",
                    key: "readonly",
                    value: other.to_owned(),
                    allowed: "readonly or readonly=off",
                });
            }
        };
        fields.finish("path and readonly")?;
        Ok(Self { path, read_only })
    }
}

impl<'de> Deserialize<'de> for DiskConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            path: PathBuf,
            #[serde(default)]
            readonly: bool,
        }
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a disk like {path = \"disk.img\", readonly = true}"
        )]
        enum Form {
            Text(String),
            Table(Table),
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) => text.parse().map_err(de::Error::custom),
            Form::Table(table) => Ok(Self { path: table.path, read_only: table.readonly }),
        }
    }
}
