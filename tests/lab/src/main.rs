//! The nested-KVM lab. On a build machine (`cargo lab ...`) it prepares images, boots lab hosts
//! and runs all checks; inside a lab host (`lab ...`) it sets the host up, drives guests and
//! runs scenarios. Real virtual machines run only inside a lab host, never on the build machine.

mod agent;
mod bench;
mod binaries;
mod check;
mod cli;
mod demo;
mod guest;
mod hold;
mod host;
mod packages;
mod reports;
mod scenario;
mod setup;
mod there;
mod up;
mod workspace;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
