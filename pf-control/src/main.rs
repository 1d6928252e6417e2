//! `pf-control`: serve a host's VFs to VMMs, look at them, and empty a PF for maintenance.

mod drain;
mod scan;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use pf_control::client::Client;
use pf_control::lease::LeaseState;
use pf_control::ops::{AdapterEntry, Health, PciAddress, Request, RequestEntry, VfEntry};
use pf_control::pool::FaultPoint;
use pf_control::server;
use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
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
    /// Show the adapters with their links, the VFs, who holds them, and who waits for one.
    List(List),
    /// Show what of this host could be served, and how; asks no daemon.
    Scan(scan::Scan),
    /// Show how far VMs' requests for VFs are.
    Requests(List),
    /// Show all that is known of an adapter or a VF.
    Show(Show),
    /// Print the daemon's counters and gauges, in Prometheus' text form.
    Metrics(At),
    /// Print each VF, then each that changes, one JSON object per line.
    Watch(At),
    /// Empty a PF for maintenance: its VFs are given to nobody, VMs on them go on elsewhere.
    /// Ends when none is held any more.
    Drain(drain::Drain),
    /// End a PF's maintenance.
    Enable(drain::Enable),
    /// Print the names of the points at which `serve --die-at` can die.
    #[command(hide = true)]
    FaultPoints,
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
    /// Let members of this group connect too (socket mode 0660), for VMMs that are not root's.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Where leases and maintenance are kept; by default the socket's path with the ending `db`.
    /// Maintenance outlives a reboot only if this file does.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// TOML file with the profiles that VMs may ask for by name.
    #[arg(long, value_name = "FILE")]
    profiles: Option<PathBuf>,
    /// TOML file with what ports may do: addresses, trust, rates.
    #[arg(long, value_name = "FILE")]
    ports: Option<PathBuf>,
    /// TOML file that describes families of cards, beside the built-in ones.
    #[arg(long, value_name = "FILE")]
    families: Option<PathBuf>,
    /// Die by SIGKILL at this point, for tests.
    #[arg(long, value_name = "POINT", hide = true)]
    die_at: Option<FaultPoint>,
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

#[derive(Args)]
struct Show {
    #[command(flatten)]
    at: At,
    /// A network interface, or the PCI address of an adapter or a VF.
    name: String,
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
        Command::Scan(args) => args.run(),
        Command::Requests(args) => requests(&args),
        Command::Show(args) => show(&args),
        Command::Metrics(at) => metrics(&at),
        Command::Watch(at) => watch(&at),
        Command::Drain(args) => args.run(),
        Command::Enable(args) => args.run(),
        Command::FaultPoints => fault_points(),
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
    let Serve {
        at: At { socket },
        group,
        state,
        profiles,
        ports,
        families,
        die_at,
        pfs,
        vfs,
        functions,
        uplink,
        bridge,
    } = args;
    let state = state.unwrap_or_else(|| socket.with_extension("db"));
    let vfs = vfs.unwrap_or(0);
    let config = server::Config {
        socket,
        group,
        state,
        profiles,
        ports,
        families,
        die_at,
        pfs,
        vfs,
        functions,
        uplink,
        bridge,
    };
    Ok(server::serve(&config)?)
}

fn list(args: &List) -> anyhow::Result<()> {
    let client = Client::new(&args.at.socket);
    let entries = client.list()?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &entries)?;
        writeln!(out)?;
    } else {
        print_adapters(&mut out, &client.adapters()?)?;
        writeln!(out)?;
        print(&mut out, &entries)?;
        for RequestEntry { pid, vm, device, seconds, .. } in client.requests()? {
            if let Some(seconds) = seconds {
                writeln!(out, "waits for a VF since {seconds} s: {vm}/{device} (process {pid})")?;
            }
        }
    }
    Ok(())
}

fn requests(args: &List) -> anyhow::Result<()> {
    let entries = Client::new(&args.at.socket).requests()?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &entries)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{:<24} {:>8}  {:<12} {:<13} WAITS", "VM/DEVICE", "PID", "STATE", "VF")?;
    for RequestEntry { pid, vm, device, state, vf, seconds } in entries {
        // Names as the interface has them.
        let state = serde_json::to_value(state)?;
        let state = state.as_str().unwrap_or_default();
        let vf = vf.map_or("-".to_owned(), |vf| vf.to_string());
        let waits = seconds.map_or("-".to_owned(), |seconds| format!("{seconds} s"));
        writeln!(out, "{:<24} {pid:>8}  {state:<12} {vf:<13} {waits}", format!("{vm}/{device}"))?;
    }
    Ok(())
}

fn metrics(at: &At) -> anyhow::Result<()> {
    write!(io::stdout().lock(), "{}", Client::new(&at.socket).metrics()?)?;
    Ok(())
}

fn watch(at: &At) -> anyhow::Result<()> {
    let written = Client::new(&at.socket).follow(|entry| {
        let Some(entry) = entry else { return ControlFlow::Continue(()) };
        let mut out = io::stdout().lock();
        let written = serde_json::to_writer(&mut out, &entry).map_err(io::Error::from);
        match written.and_then(|()| writeln!(out)).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    })?;
    // Whoever read the lines has had enough.
    if written.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(written.into()) }
}

fn fault_points() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for point in FaultPoint::all() {
        writeln!(out, "{point}")?;
    }
    Ok(())
}

fn show(args: &Show) -> anyhow::Result<()> {
    let client = Client::new(&args.at.socket);
    let known_as = |address: PciAddress| address.to_string() == args.name;
    let adapters = client.adapters()?.into_iter();
    let adapters = adapters.filter(|it| it.interface == args.name || known_as(it.address));
    let vfs = client.list()?.into_iter().filter(|it| known_as(it.vf));
    let found: Vec<serde_json::Value> = adapters
        .map(serde_json::to_value)
        .chain(vfs.map(serde_json::to_value))
        .collect::<Result<_, _>>()?;
    if found.is_empty() {
        bail!("no adapter and no VF is called '{}'; 'pf-control list' shows them", args.name);
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &found)?;
        return Ok(writeln!(out)?);
    }
    for (index, entry) in found.iter().filter_map(serde_json::Value::as_object).enumerate() {
        if index != 0 {
            writeln!(out)?;
        }
        for (key, value) in entry {
            let value = match value {
                serde_json::Value::Null => "-".to_owned(),
                serde_json::Value::String(text) => text.clone(),
                value => value.to_string(),
            };
            writeln!(out, "{:<14} {value}", key.replace('_', " "))?;
        }
    }
    Ok(())
}

fn print_adapters(out: &mut impl Write, entries: &[AdapterEntry]) -> io::Result<()> {
    writeln!(
        out,
        "{:<13} {:<10} {:<15} {:<10} {:<11} {:<12} {:>9}  {:<9} FAULT",
        "ADAPTER", "INTERFACE", "MODULE", "DRIVER", "HEALTH", "LINK", "FREE/VFS", "NUMA NODE"
    )?;
    for entry in entries {
        let health = match entry.health {
            Health::Enabled => "enabled",
            Health::Maintenance => "maintenance",
            Health::Failed => "failed",
        };
        let link = match (entry.link_up, entry.speed_mbit) {
            (true, Some(speed)) => format!("{speed} Mbit/s"),
            (true, None) => "up".to_owned(),
            (false, _) => "down".to_owned(),
        };
        writeln!(
            out,
            "{:<13} {:<10} {:<15} {:<10} {health:<11} {link:<12} {:>9}  {:<9} {}",
            entry.address.to_string(),
            entry.interface,
            entry.module,
            entry.driver,
            format!("{}/{}", entry.free, entry.vfs),
            entry.numa_node.map_or("-".to_owned(), |node| node.to_string()),
            entry.fault.as_deref().unwrap_or("-"),
        )?;
    }
    Ok(())
}

fn print(out: &mut impl Write, entries: &[VfEntry]) -> io::Result<()> {
    writeln!(
        out,
        "{:<13} {:<10} {:<20} {:<18} {:>8}  {:<24} FAULT",
        "VF", "PF", "STATE", "MAC", "PID", "VM/DEVICE"
    )?;
    for entry in entries {
        let pid = entry.owner_pid.map_or("-".to_owned(), |pid| pid.to_string());
        let holder = drain::holder(entry).unwrap_or_else(|| "-".to_owned());
        let state = match (entry.maintenance, entry.state) {
            (true, LeaseState::Free) => "maintenance".to_owned(),
            (true, state) => format!("{state}, maintenance"),
            (false, state) => state.to_string(),
        };
        writeln!(
            out,
            "{:<13} {:<10} {:<20} {:<18} {pid:>8}  {holder:<24} {}",
            entry.vf.to_string(),
            entry.pf,
            state,
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
