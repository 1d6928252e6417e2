//! `pf-control`: serve a host's VFs to VMMs, and look at them.

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use pf_control::client::Client;
use pf_control::ops::{PciAddress, Request, VfEntry};
use pf_control::server;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Where the daemon listens unless told otherwise.
const SOCKET: &str = "/run/pf-control.sock";

/// The host's VF and policy daemon.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the VFs of one or more PFs.
    Serve(Serve),
    /// Show the VFs, who holds them, and their state.
    List(List),
    /// Carry out operations read from standard input, one JSON object per line, and print each
    /// answer as one line. This process holds the leases that it acquires.
    #[command(hide = true)]
    Call(At),
}

#[derive(Args)]
struct At {
    /// The daemon's socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    at: At,
    /// Network interface of a PF; may be given several times.
    #[arg(long = "pf", value_name = "INTERFACE", requires = "vfs")]
    #[arg(required_unless_present = "functions")]
    pfs: Vec<String>,
    /// VFs of each PF.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    #[arg(requires = "pfs")]
    vfs: Option<u32>,
    /// PCI address of a virtio network function that is no PF's VF; may be given several times.
    #[arg(long = "function", value_name = "ADDRESS", requires = "uplink")]
    functions: Vec<PciAddress>,
    /// Network interface that is on the same network as the functions.
    #[arg(long, value_name = "INTERFACE", requires = "functions")]
    uplink: Option<String>,
    /// The bridge that has the PFs (or the uplink) and the VMs' taps as ports.
    #[arg(long, value_name = "BRIDGE")]
    bridge: String,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    at: At,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve(args),
        Command::List(args) => list(&args),
        Command::Call(at) => call(&at),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pf-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Serve) -> anyhow::Result<()> {
    let Serve { at, pfs, vfs, functions, uplink, bridge } = args;
    let vfs = vfs.unwrap_or(0);
    let config = server::Config { socket: at.socket, pfs, vfs, functions, uplink, bridge };
    Ok(server::serve(&config)?)
}

fn list(args: &List) -> anyhow::Result<()> {
    let entries = Client::new(&args.at.socket).list()?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &entries)?;
        writeln!(out)?;
    } else {
        print(&mut out, &entries)?;
    }
    Ok(())
}

fn print(out: &mut impl Write, entries: &[VfEntry]) -> io::Result<()> {
    writeln!(
        out,
        "{:<13} {:<10} {:<12} {:<18} {:>8}  {:<24} FAULT",
        "VF", "PF", "STATE", "MAC", "PID", "VM/DEVICE"
    )?;
    for entry in entries {
        let pid = entry.owner_pid.map_or("-".to_owned(), |pid| pid.to_string());
        let holder = match (&entry.vm, &entry.device) {
            (Some(vm), Some(device)) => format!("{vm}/{device}"),
            (Some(name), None) | (None, Some(name)) => name.clone(),
            (None, None) => "-".to_owned(),
        };
        writeln!(
            out,
            "{:<13} {:<10} {:<12} {:<18} {pid:>8}  {holder:<24} {}",
            entry.vf.to_string(),
            entry.pf,
            entry.state.to_string(),
            entry.mac.to_string(),
            entry.fault.as_deref().unwrap_or("-"),
        )?;
    }
    Ok(())
}

fn call(at: &At) -> anyhow::Result<()> {
    let client = Client::new(&at.socket);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let request: Request = serde_json::from_str(&line).context("reading a request")?;
        let answer = match client.call(&request) {
            Ok(reply) => serde_json::to_value(reply)?,
            Err(error) => serde_json::json!({ "failed": error.to_string() }),
        };
        println!("{answer}");
    }
    Ok(())
}
