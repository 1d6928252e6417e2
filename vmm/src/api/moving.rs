//! What is asked and said when a VM is moved or saved.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::migration::{Fallback, OnTimeout, ProgressView, Report};

/// How a VM is to be moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateRequest {
    /// Where to: `tcp:HOST:PORT`, `tls:HOST:PORT` or `unix:PATH`.
    pub to: String,
    /// Milliseconds that it may be stopped; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_target_ms: Option<u64>,
    /// Seconds that its memory may be copied while it runs; 120 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// What then; `cancel` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnTimeout>,
    /// When devices give up their VFs; `late` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Bytes per second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// Slow its CPUs down when it writes faster than is copied.
    #[serde(default)]
    pub throttle: bool,
    /// Compare memory at both ends before it runs there.
    #[serde(default)]
    pub verify: bool,
}

/// How a VM is to be saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// The folder, which must not exist, as the VMM's process names it.
    pub folder: String,
    /// The VM ends once it is saved.
    #[serde(default)]
    pub end: bool,
}

/// What moves or saves of a VM are under way or were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MigrationView {
    /// The one under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressView>,
    /// What the last one was like, if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Report>,
    /// Why the last one failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
