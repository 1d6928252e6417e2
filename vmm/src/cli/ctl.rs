//! `vmm ctl`: requests to a running VM.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::watch::watched;
use super::{Failure, print};
use crate::api::{Client, MigrateRequest, SnapshotRequest};
use crate::migration::{Endpoint, Fallback, OnTimeout, Report};

#[derive(Args)]
pub(super) struct Arguments {
    /// The VM's control socket, its --api-socket
    #[arg(long, value_name = "SOCKET")]
    api_socket: PathBuf,

    #[command(subcommand)]
    request: Request,
}

#[derive(Subcommand)]
enum Request {
    /// Show state, exits, and each device with its data path and last switch
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Put a device's data path on a VF
    Attach {
        /// The device's id
        id: String,
        /// Do not wait: put it on a VF as soon as one is free. `detach` ends the wish
        #[arg(long)]
        when_free: bool,
    },
    /// Take a device's data path back to emulation
    Detach {
        /// The device's id
        id: String,
    },
    /// Hold all vCPUs
    Pause,
    /// Let the vCPUs run on
    Resume,
    /// End the VM without asking the guest
    Shutdown,
    /// Move the VM to another host, where a vmm runs with --incoming
    Migrate {
        /// Where to: tcp:HOST:PORT, tls:HOST:PORT or unix:PATH
        url: Endpoint,

        /// Milliseconds that the VM may be stopped [default: 300]
        #[arg(long, value_name = "MS")]
        downtime_target: Option<u64>,

        /// Seconds that memory may be copied while the VM runs [default: 120]
        #[arg(long, value_name = "S")]
        timeout: Option<u64>,

        /// What to do then [default: cancel]
        #[arg(long, value_enum, value_name = "WHAT")]
        on_timeout: Option<OnTimeout>,

        /// When devices give up their VFs: before memory is copied, or for the last of it only
        /// [default: late]
        #[arg(long, value_enum, value_name = "WHEN")]
        fallback: Option<Fallback>,

        /// Bytes per second at most, like 100M; at least 1M
        #[arg(long, value_name = "RATE", value_parser = rate)]
        bandwidth: Option<u64>,

        /// Slow the guest's CPUs down when it writes faster than is copied
        #[arg(long)]
        throttle: bool,

        /// Compare memory at both ends before the VM runs there
        #[arg(long)]
        verify: bool,

        /// Print what it was like as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how far a move or a save is, and how the last one ended
    Migration {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End a move or a save that is under way; the VM goes on here
    MigrateCancel,
    /// Save the VM to a new folder, for `vmm run --restore`, and let it go on
    Snapshot {
        /// The folder, as seen from the VM's process; must not exist
        folder: PathBuf,

        /// Print what it was like as JSON
        #[arg(long)]
        json: bool,
    },
    /// Save the VM to a new folder, for `vmm run --restore`, and end it
    Suspend {
        /// The folder, as seen from the VM's process; must not exist
        folder: PathBuf,

        /// Print what it was like as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show all counters as Prometheus text
    Metrics,
}

pub(super) fn ctl(arguments: Arguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.api_socket)?;
    match arguments.request {
        Request::Status { json: true } => {
            println!("{}", serde_json::to_string_pretty(&client.status()?)?);
        }
        Request::Status { json: false } => print!("{}", print::status(&client.status()?)),
        Request::Attach { id, when_free: true } => client.attach_when_free(&id)?,
        Request::Attach { id, when_free: false } => {
            print!("{}", print::switch(&id, &client.attach(&id)?))
        }
        Request::Detach { id } => print!("{}", print::switch(&id, &client.detach(&id)?)),
        Request::Pause => client.pause()?,
        Request::Resume => client.resume()?,
        Request::Shutdown => client.shutdown()?,
        Request::Migrate {
            url,
            downtime_target,
            timeout,
            on_timeout,
            fallback,
            bandwidth,
            throttle,
            verify,
            json,
        } => {
            let request = MigrateRequest {
                to: url.to_string(),
                downtime_target_ms: downtime_target,
                timeout_s: timeout,
                on_timeout,
                fallback,
                bandwidth,
                throttle,
                verify,
            };
            let report = watched(&arguments.api_socket, |client| client.migrate(&request))?;
            show("moved to", &report, json)?;
        }
        Request::Migration { json: true } => {
            println!("{}", serde_json::to_string_pretty(&client.migration()?)?);
        }
        Request::Migration { json: false } => print!("{}", print::migration(&client.migration()?)),
        Request::MigrateCancel => client.cancel_migration()?,
        Request::Snapshot { folder, json } => save(&arguments.api_socket, folder, false, json)?,
        Request::Suspend { folder, json } => save(&arguments.api_socket, folder, true, json)?,
        Request::Metrics => print!("{}", client.metrics()?),
    }
    Ok(())
}

fn save(socket: &Path, folder: PathBuf, end: bool, json: bool) -> Result<(), Failure> {
    let folder = folder.into_os_string().into_string();
    let folder = folder.map_err(|_| "the folder's name is no UTF-8; choose another")?;
    let request = SnapshotRequest { folder, end };
    let report = watched(socket, |client| client.snapshot(&request))?;
    show("saved to", &report, json)
}

fn show(what: &str, report: &Report, json: bool) -> Result<(), Failure> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(report)?),
        false => print!("{}", print::report(what, report)),
    }
    Ok(())
}

/// Bytes per second: a number, with K, M or G for powers of 1000.
fn rate(text: &str) -> Result<u64, String> {
    /// Below that, one message would take as long as a host that is gone.
    const LEAST: u64 = 1_000_000;
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1_000),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let rate = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match rate {
        Some(rate) if rate >= LEAST => Ok(rate),
        Some(_) => Err("use at least 1M (a million bytes per second)".to_owned()),
        None => Err("write bytes per second like 100M".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_understood() {
        assert_eq!(rate("2M"), Ok(2_000_000));
        assert_eq!(rate("1500k"), Ok(1_500_000));
        assert_eq!(rate("3000000"), Ok(3_000_000));
        for bad in ["", "M", "999K", "1.5M", "-1M", "99999999999999G"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
