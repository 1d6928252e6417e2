//! `build`, `link`, `object`, `executable`.

use std::path::PathBuf;

use clap::Args;
use npa_plugin::build::{BuildError, build_blob, build_executable, build_object, link_blob};
use npa_plugin::image;

use super::workspace;

/// Arguments of `build`.
#[derive(Debug, Args)]
pub(super) struct Image {
    /// The package: a library with a feature `blob`
    #[arg(long, short)]
    package: String,
    /// The image file to write
    #[arg(long, short)]
    out: PathBuf,
}

impl Image {
    pub(super) fn run(self) -> anyhow::Result<bool> {
        report(build_blob(&workspace()?, &self.package, &self.out), &self.out)
    }
}

/// Arguments of `link`.
#[derive(Debug, Args)]
pub(super) struct Link {
    /// Objects and archives
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// The image file to write
    #[arg(long, short)]
    out: PathBuf,
}

impl Link {
    pub(super) fn run(self) -> anyhow::Result<bool> {
        report(link_blob(&self.inputs, &self.out), &self.out)
    }
}

/// Arguments of `object` and `executable`.
#[derive(Debug, Args)]
pub(super) struct Freestanding {
    /// The package
    #[arg(long, short)]
    package: String,
    /// The file to write
    #[arg(long, short)]
    out: PathBuf,
    /// A flag for the compiler, for all crates (may be given again)
    #[arg(long = "rustflag", value_name = "FLAG", allow_hyphen_values = true)]
    rustflags: Vec<String>,
    /// A feature of the package (may be given again)
    #[arg(long = "feature", value_name = "NAME")]
    features: Vec<String>,
}

/// Arguments of `object`.
#[derive(Debug, Args)]
pub(super) struct Object {
    #[command(flatten)]
    order: Freestanding,
}

impl Object {
    pub(super) fn run(self) -> anyhow::Result<bool> {
        let (flags, features) = self.order.lists();
        let Freestanding { package, out, .. } = &self.order;
        build_object(&workspace()?, package, &flags, &features, out)?;
        Ok(true)
    }
}

/// Arguments of `executable`.
#[derive(Debug, Args)]
pub(super) struct Executable {
    #[command(flatten)]
    order: Freestanding,
}

impl Executable {
    pub(super) fn run(self) -> anyhow::Result<bool> {
        let (flags, features) = self.order.lists();
        let Freestanding { package, out, .. } = &self.order;
        build_executable(&workspace()?, package, &flags, &features, out)?;
        Ok(true)
    }
}

impl Freestanding {
    fn lists(&self) -> (Vec<&str>, Vec<&str>) {
        (
            self.rustflags.iter().map(String::as_str).collect(),
            self.features.iter().map(String::as_str).collect(),
        )
    }
}

fn report(built: Result<image::Image, BuildError>, out: &std::path::Path) -> anyhow::Result<bool> {
    match built {
        Ok(image) => {
            println!(
                "{}: {} {}, {} bytes, {} relocations",
                out.display(),
                image.name(),
                image.version(),
                image.bytes().len(),
                image.relocations().len()
            );
            Ok(true)
        }
        Err(BuildError::Refused { findings }) => {
            for finding in findings {
                eprintln!("{}: {finding}", out.display());
            }
            Ok(false)
        }
        Err(other) => Err(other.into()),
    }
}
