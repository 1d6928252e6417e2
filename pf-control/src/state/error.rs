//! Why the store does not serve.

use rusqlite::ErrorCode;
use std::io;
use std::path::PathBuf;

/// A store that cannot be used; each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error(
        "another process uses the state file {}: stop it, or choose another file (--state)",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made.
    #[error(
        "cannot make the state file {}; choose a directory that exists and is writable (--state)",
        path.display()
    )]
    Create {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is of a version that this daemon does not know.
    #[error("the state file {} is of version {version}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
    },
    /// SQLite refused.
    #[error("the state file {} cannot be {verb}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// Its reason.
        source: rusqlite::Error,
    },
}

impl StateError {
    /// Whether what is in the file is beyond use, and the file itself is not.
    pub(super) fn is_unreadable(&self) -> bool {
        match self {
            Self::Version { .. } => true,
            Self::Access { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
            ),
            Self::InUse { .. } | Self::Create { .. } => false,
        }
    }
}
