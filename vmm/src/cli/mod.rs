//! The command line of `vmm`: parses, sets up logging, and turns errors into one line and an exit
//! status. Contains no work of its own.

mod arrival;
mod ctl;
mod machine;
mod moving;
mod network;
mod print;
mod run;
mod signals;
mod watch;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::api;

/// A minimal KVM virtual machine monitor whose guests have network cards with a replaceable data
/// path: emulated, or a virtual function of a device, switched while the guest runs.
#[derive(Parser)]
#[command(name = "vmm", version, arg_required_else_help = true, propagate_version = true)]
struct Cli {
    /// What to log to standard error, like `info`, `debug` or `vmm::npa=debug,warn`
    #[arg(long, global = true, value_name = "FILTER", default_value = "info")]
    log: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Launch a virtual machine
    Run(Box<run::Arguments>),
    /// Control a running virtual machine
    Ctl(ctl::Arguments),
}

/// An error on its way to the user.
type Failure = Box<dyn std::error::Error>;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = start_logging(&cli.log).and_then(|()| match cli.command {
        Command::Run(arguments) => run::run(*arguments),
        Command::Ctl(arguments) => ctl::ctl(arguments),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmm: {}", api::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn start_logging(filter: &str) -> Result<(), Failure> {
    // What a guest does wrong is reported by us, once; the ring library would say it per access.
    let filter = EnvFilter::try_new(format!("virtio_queue=off,{filter}")).map_err(|error| {
        format!("`--log {filter}` is no log filter; try `--log debug`: {error}")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_whole_command_line_is_understood() {
        let line = "vmm run --kernel k --initrd i --cmdline console=ttyS0 --cpus 2 --memory 512M \
            --disk path=a,readonly --disk path=b --net id=net0,tap=tap0,accel=auto \
            --serial socket:/run/s --api-socket /run/a --plugins /p --pf-control /run/pf \
            --allow-unsigned-plugins --incoming tcp:0.0.0.0:4000 --log debug";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Run(arguments) = cli.command else { panic!("not run") };
        let configuration = arguments.configuration().unwrap();
        assert_eq!(configuration.disks.len(), 2);
        assert!(configuration.allow_unsigned_plugins);
        assert_eq!(cli.log, "debug");
        for command in [
            "status",
            "status --json",
            "attach net0",
            "detach net0",
            "pause",
            "resume",
            "shutdown",
            "metrics",
            "migrate tcp:there:4000 --fallback early --downtime-target 100 --timeout 60 --on-timeout force",
            "migrate tls:there:4000 --bandwidth 100M --throttle --verify --json",
            "migrate-cancel",
            "migration --json",
            "snapshot /snapshots/a",
            "suspend /snapshots/b",
        ] {
            let line = format!("vmm ctl --api-socket /run/a {command}");
            assert!(Cli::try_parse_from(line.split_whitespace()).is_ok(), "{line}");
        }
    }

    #[test]
    fn bad_fields_are_explained() {
        let parse = |text| Cli::try_parse_from(["vmm", "run", "--net", text]).err().unwrap();
        assert!(parse("tap=tap0").to_string().contains("lacks `id=`"));
    }
}
