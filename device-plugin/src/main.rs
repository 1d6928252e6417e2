//! The `npa-device-plugin` program.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use npa_device_plugin::resource::Resource;
use npa_device_plugin::service::Plugin;
use npa_device_plugin::{follow, serve};
use pf_control::client::Client;
use tracing_subscriber::EnvFilter;

/// Tells the kubelet of this host's VFs, so that the cluster places VMs on hosts that have some.
#[derive(Parser)]
#[command(name = "npa-device-plugin", version)]
struct Cli {
    /// Socket of pf-control; containers get it under the same path
    #[arg(long, value_name = "SOCKET", default_value = "/run/npa/pf-control.sock")]
    pf_control: PathBuf,

    /// The kubelet's folder of plugins
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet/device-plugins")]
    kubelet: PathBuf,

    /// A resource to offer: DOMAIN/NAME for any network VF, DOMAIN/NAME=PROFILE for those that fit a
    /// profile of pf-control's (repeatable)
    #[arg(long = "resource", value_name = "RESOURCE", default_value = "npa-kvm.io/net")]
    resources: Vec<Resource>,

    /// What to log to standard error, like `info` or `debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: EnvFilter,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_env_filter(cli.log).with_writer(std::io::stderr).init();
    let run = || -> std::io::Result<()> {
        let inventory = follow(Client::new(&cli.pf_control))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let plugins = cli.resources.into_iter().map(|resource| Plugin {
            resource,
            inventory: inventory.clone(),
            socket: cli.pf_control.clone(),
        });
        let all = plugins.map(|plugin| serve(&cli.kubelet, plugin));
        runtime.block_on(futures::future::join_all(all));
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("npa-device-plugin: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli =
            Cli::try_parse_from(["x", "--resource", "a/b", "--resource", "a/c=fast"]).unwrap();
        assert_eq!(cli.resources.len(), 2);
    }
}
