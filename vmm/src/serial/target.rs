//! Where the console's other end is, as users write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The console's other end. Text form: `stdio`, `file:PATH`, `socket:PATH` or `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SerialTarget {
    /// Standard input and output of the VMM.
    #[default]
    Stdio,
    /// Output is appended to a file; no input.
    File(PathBuf),
    /// A Unix socket on which the VMM listens, for one client at a time.
    Socket(PathBuf),
    /// Output is thrown away; no input.
    None,
}

/// Text that names no console.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown serial console '{0}'; use stdio, file:PATH, socket:PATH or none")]
pub struct ParseSerialTarget(String);

impl FromStr for SerialTarget {
    type Err = ParseSerialTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("socket", path)) if !path.is_empty() => Ok(Self::Socket(path.into())),
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "none" => Ok(Self::None),
            _ => Err(ParseSerialTarget(text.to_owned())),
        }
    }
}

impl fmt::Display for SerialTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Socket(path) => write!(f, "socket:{}", path.display()),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_goes_both_ways() {
        for text in ["stdio", "file:/tmp/log", "socket:/run/s:1", "none"] {
            assert_eq!(text.parse::<SerialTarget>().unwrap().to_string(), text);
        }
        for text in ["", "file:", "tcp:1", "stdio:x", "/tmp/log"] {
            let error = text.parse::<SerialTarget>().unwrap_err().to_string();
            assert!(error.contains("use stdio"), "{error}");
        }
    }
}
