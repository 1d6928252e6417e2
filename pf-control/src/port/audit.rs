//! What VMs asked for, and what they were told: one line each, whatever the verdict.

use crate::ops::{OpError, Request};

/// Where these lines are from, for log filters (`RUST_LOG=audit=info`).
const TARGET: &str = "audit";

/// Writes down a request that a policy rules on; others leave no trace here.
pub(crate) fn request<T>(
    pid: u32,
    port: Option<&str>,
    request: &Request,
    told: &Result<T, OpError>,
) {
    let asked = match request {
        Request::Activate { mac, .. } | Request::SetMac { mac, .. } => mac.to_string(),
        Request::SetDefaultVlan { vlan, priority, .. } => format!("{vlan} priority {priority}"),
        Request::SetAntiSpoof { enabled, .. } => enabled.to_string(),
        _ => return,
    };
    line(pid, port, request.op().name(), &asked, told);
}

/// Writes down that a port was asked for.
pub(crate) fn port<T>(pid: Option<u32>, port: &str, told: &Result<T, OpError>) {
    line(pid.unwrap_or(0), Some(port), "open-port", "", told);
}

fn line<T>(pid: u32, port: Option<&str>, op: &str, asked: &str, told: &Result<T, OpError>) {
    // A name that a VMM made up is not to forge lines.
    let port = port.unwrap_or("-").escape_debug();
    match told {
        Ok(_) => tracing::info!(target: TARGET, pid, %port, op, asked, verdict = "allowed"),
        Err(error) => {
            let reason = error.to_string();
            tracing::warn!(target: TARGET, pid, %port, op, asked, verdict = "refused", reason);
        }
    }
}
