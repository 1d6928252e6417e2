//! The command line: what it takes, and how an answer becomes an exit status.

mod build;
mod inspect;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use npa_plugin::image::Limits;

/// Builds, shows and checks plugin images.
#[derive(Debug, Parser)]
#[command(name = "npa-plugin", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds the plugin image of a package of this workspace
    Build(build::Image),
    /// Links objects or archives (of C, say) to a plugin image
    Link(build::Link),
    /// Builds a library package into one relocatable object
    Object(build::Object),
    /// Builds a bare-metal program
    Executable(build::Executable),
    /// Shows what an image says of itself, and every rule that it breaks
    Inspect(inspect::Inspect),
    /// Checks images by every rule that the hypervisor applies
    Verify(verify::Verify),
}

/// What the host would allow.
#[derive(Clone, Copy, Debug, Args)]
struct Landing {
    /// Length of the landing that the image must fit in, in KiB
    #[arg(long, value_name = "KIB", default_value_t = Limits::default().landing >> 10)]
    landing: u64,
}

impl Landing {
    fn limits(self) -> Limits {
        Limits { landing: self.landing.saturating_mul(1 << 10) }
    }
}

/// Runs the command. 0 is success, 1 a refused image, 2 anything else.
pub(crate) fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Build(order) => order.run(),
        Command::Link(order) => order.run(),
        Command::Object(order) => order.run(),
        Command::Executable(order) => order.run(),
        Command::Inspect(order) => order.run(),
        Command::Verify(order) => order.run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("npa-plugin: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Reads an image file.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The workspace that holds the working directory.
fn workspace() -> anyhow::Result<PathBuf> {
    let output = std::process::Command::new("cargo")
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .output()
        .context("cannot run `cargo`: install Rust")?;
    let manifest = String::from_utf8_lossy(&output.stdout);
    let folder = Path::new(manifest.trim()).parent().filter(|_| output.status.success());
    folder.map(Path::to_owned).context("not inside a cargo workspace: change to one")
}
