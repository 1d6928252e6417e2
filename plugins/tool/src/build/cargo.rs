//! Runs cargo for [`TARGET`] and answers what it made.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::progress::Spinner;
use super::toolchain::{CoreLibrary, TARGET, Toolchain};
use super::{BuildError, Freestanding};

/// What cargo shall make of the package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    /// Its library with all that it depends on, as one archive.
    StaticLibrary,
    /// Its program.
    Executable,
}

/// Compiles and answers the path of the product.
pub(super) fn compile(order: &Freestanding, product: Product) -> Result<PathBuf, BuildError> {
    let toolchain = Toolchain::locate(&order.workspace, order.core_from_source)?;
    let mut command = toolchain.cargo(&order.workspace);
    command.args(["rustc", "--profile", "guest", "--target", TARGET]);
    command.args(["--message-format", "json-render-diagnostics", "--package", &order.package]);
    command.arg("--target-dir").arg(order.target_folder());
    match product {
        Product::StaticLibrary => command.args(["--lib", "--crate-type", "staticlib"]),
        Product::Executable => command.args(["--bins"]),
    };
    if !order.features.is_empty() {
        command.args(["--features", &order.features.join(",")]);
    }
    if toolchain.core() == CoreLibrary::FromSource {
        command.arg("-Zbuild-std=core,compiler_builtins,alloc");
        if order.own_memory_functions {
            command.arg("-Zbuild-std-features=compiler-builtins-mem");
        }
    }
    if order.whole_program {
        command.args(["--config", "profile.guest.lto=\"fat\""]);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", order.rustflags.join("\u{1f}"));
    command.env("CARGO_TERM_COLOR", "never").env("CARGO_TERM_PROGRESS_WHEN", "never");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let spinner = Spinner::start(&format!("compiling {} for {TARGET}", order.package));
    let mut child =
        command.spawn().map_err(|source| BuildError::Start { program: "cargo", source })?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.map(|mut pipe| pipe.read_to_string(&mut text)).transpose().map(|_| text)
    });
    let mut log = String::new();
    for line in child.stderr.take().into_iter().flat_map(|pipe| BufReader::new(pipe).lines()) {
        let Ok(line) = line else { break };
        spinner.say(line.trim());
        log.push_str(&line);
        log.push('\n');
    }
    let status = child.wait().map_err(|source| BuildError::Start { program: "cargo", source })?;
    let messages = reader.join().ok().and_then(Result::ok).unwrap_or_default();
    drop(spinner);
    if !status.success() {
        return Err(BuildError::Compile { package: order.package.clone(), log });
    }
    product_of(&messages, &order.package, product)
        .ok_or_else(|| BuildError::NoProduct { package: order.package.clone() })
}

/// The file that cargo's messages name for `package`.
fn product_of(messages: &str, package: &str, product: Product) -> Option<PathBuf> {
    let file_of = |line: &str| -> Option<PathBuf> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        if message.get("reason")?.as_str()? != "compiler-artifact"
            || !is_package(message.get("package_id")?.as_str()?, package)
        {
            return None;
        }
        match product {
            Product::Executable => message.get("executable")?.as_str().map(PathBuf::from),
            Product::StaticLibrary => message
                .get("filenames")?
                .as_array()?
                .iter()
                .filter_map(|name| name.as_str())
                .find(|name| Path::new(name).extension().is_some_and(|end| end == "a"))
                .map(PathBuf::from),
        }
    };
    messages.lines().filter_map(file_of).next_back()
}

/// Whether a package id names `package`: `path+file:///a/b#name@1.0`, or `path+file:///a/name#1.0`
/// where the folder has the package's name.
fn is_package(id: &str, package: &str) -> bool {
    let (place, fragment) = id.rsplit_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name == package,
        None => place.rsplit('/').next() == Some(package),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_ids_of_both_forms_are_understood() {
        assert!(is_package("path+file:///w/plugins/igbvf#igbvf-plugin@0.1.0", "igbvf-plugin"));
        assert!(is_package("path+file:///w/pf-control#0.1.0", "pf-control"));
        assert!(!is_package("path+file:///w/plugins/igbvf#igbvf-plugin@0.1.0", "igbvf"));
    }

    #[test]
    fn the_last_matching_artifact_is_the_product() {
        let line = |id: &str, file: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","filenames":["{file}"],"executable":null}}"#
            )
        };
        let messages = [
            line("path+file:///w/sdk#sdk@0.1.0", "/t/libsdk.rlib"),
            line("path+file:///w/x#x@0.1.0", "/t/libx.a"),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ]
        .join("\n");
        assert_eq!(
            product_of(&messages, "x", Product::StaticLibrary),
            Some(PathBuf::from("/t/libx.a"))
        );
        assert_eq!(product_of(&messages, "x", Product::Executable), None);
        assert_eq!(product_of("not json", "x", Product::StaticLibrary), None);
    }
}
