//! `verify`.

use std::path::PathBuf;

use clap::Args;
use npa_plugin::image::examine;

use super::{Landing, read};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Image files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    landing: Landing,
}

impl Verify {
    /// Prints a line per image and one per broken rule; answers whether every image is good.
    pub(super) fn run(self) -> anyhow::Result<bool> {
        let mut good = true;
        for path in &self.files {
            let (image, findings) = examine(&read(path)?, &self.landing.limits());
            match image {
                Some(image) if findings.is_empty() => {
                    println!("{}: good ({} {})", path.display(), image.name(), image.version());
                }
                _ => println!("{}: refused", path.display()),
            }
            for finding in &findings {
                println!("  - {finding}");
            }
            good &= findings.is_empty();
        }
        Ok(good)
    }
}
