//! `npa-plugin`: builds, shows and checks plugin images.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
