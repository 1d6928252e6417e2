//! `stream`: the traffic that the lab's scenarios judge a switch by.
//!
//! - `stream udp`: a two-way stream of sequence-numbered datagrams, one frame each, that counts
//!   what was lost, duplicated and reordered and how long the longest silence was;
//! - `stream tcp-serve`, `stream tcp`: a two-way TCP transfer whose every byte is checked;
//! - `stream flood`, `stream sink`: one way, as fast as the path takes it.
//!
//! Each prints one JSON object on its standard output when it ends.

mod flood;
mod pace;
mod socket;
mod stop;
mod tcp;
mod udp;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Sequence-numbered streams and content-checked transfers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send and receive a sequence-numbered datagram stream; both ends run this.
    Udp(udp::Args),
    /// Accept one content-checked TCP transfer.
    TcpServe(tcp::ServeArgs),
    /// Start a content-checked TCP transfer, both ways at once.
    Tcp(tcp::ConnectArgs),
    /// Send datagrams as fast as the socket takes them.
    Flood(flood::FloodArgs),
    /// Count received datagrams.
    Sink(flood::SinkArgs),
}

fn main() -> Result<()> {
    stop::install()?;
    let report = match Cli::parse().command {
        Command::Udp(args) => serde_json::to_value(udp::run(&args)?)?,
        Command::TcpServe(args) => serde_json::to_value(tcp::serve(&args)?)?,
        Command::Tcp(args) => serde_json::to_value(tcp::connect(&args)?)?,
        Command::Flood(args) => serde_json::to_value(flood::flood(&args)?)?,
        Command::Sink(args) => serde_json::to_value(flood::sink(&args)?)?,
    };
    println!("{report}");
    Ok(())
}
