//! `vmm ctl`: requests to a running VM.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Failure, print};
use crate::api::Client;

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
        Request::Attach { id } => print!("{}", print::switch(&id, &client.attach(&id)?)),
        Request::Detach { id } => print!("{}", print::switch(&id, &client.detach(&id)?)),
        Request::Pause => client.pause()?,
        Request::Resume => client.resume()?,
        Request::Shutdown => client.shutdown()?,
        Request::Metrics => print!("{}", client.metrics()?),
    }
    Ok(())
}
