//! Builds what runs without an operating system below it: plugin images, the shell's prelinked
//! object, bare-metal programs. Never installs anything and never runs what it built.

mod cargo;
mod error;
mod link;
mod progress;
mod seal;
mod toolchain;

use std::path::{Path, PathBuf};

pub use error::BuildError;
pub use toolchain::{CoreLibrary, TARGET, Toolchain};

use crate::image::Image;
use cargo::Product;

/// Compiler flags of all code that a guest's kernel mode runs: `endbr64` at every function whose
/// address is taken, neither jump tables (their jumps are not tracked) nor trapping fillers, and
/// direct calls rather than calls through a table of addresses, which would need relocation.
const RUSTFLAGS: &[&str] =
    &["-Zcf-protection=branch", "-Cjump-tables=no", "-Ztrap-unreachable=no", "-Zplt=yes"];

/// One compilation for [`TARGET`].
#[derive(Clone, Debug)]
struct Freestanding {
    workspace: PathBuf,
    package: String,
    rustflags: Vec<String>,
    features: Vec<String>,
    /// `memcpy` and its like come from `compiler_builtins`, not from whom the code is linked to.
    own_memory_functions: bool,
    /// The core library must be compiled with the same flags.
    core_from_source: bool,
    /// All crates are optimised as one.
    whole_program: bool,
    /// Builds with different flags do not share a target folder.
    folder: &'static str,
}

impl Freestanding {
    fn target_folder(&self) -> PathBuf {
        self.workspace.join("target").join("guest").join(self.folder)
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&item| item.to_owned()).collect()
}

/// Builds the plugin image of `package` (a library with a feature `blob`) into the file `out`,
/// and checks it by every rule that the hypervisor applies.
///
/// # Errors
/// A [`BuildError`] when no toolchain is there, the package does not compile or link, or the
/// image breaks a rule.
pub fn build_blob(workspace: &Path, package: &str, out: &Path) -> Result<Image, BuildError> {
    let order = Freestanding {
        workspace: workspace.to_owned(),
        package: package.to_owned(),
        rustflags: [strings(RUSTFLAGS), strings(&["-Crelocation-model=pic"])].concat(),
        features: strings(&["blob"]),
        own_memory_functions: true,
        core_from_source: false,
        whole_program: true,
        folder: "blob",
    };
    let archive = cargo::compile(&order, Product::StaticLibrary)?;
    link_blob(&[archive], out)
}

/// Links `inputs` (objects or archives for [`TARGET`] or C's freestanding equivalent) to a plugin
/// image in the file `out`, fills in the header's length, entry and hash, and checks the image. An
/// image that breaks a rule is left in `out` with `.refused` behind its name, for a look at it.
///
/// # Errors
/// A [`BuildError`] when the inputs do not link or the image breaks a rule.
pub fn link_blob(inputs: &[PathBuf], out: &Path) -> Result<Image, BuildError> {
    let linked = link::beside(out, "refused");
    link::image(inputs, &linked)?;
    let file = std::fs::read(&linked).map_err(BuildError::io("read", &linked))?;
    let sealed = seal::seal(file)?;
    std::fs::write(&linked, &sealed).map_err(BuildError::io("write", &linked))?;
    match crate::image::examine(&sealed, &crate::image::Limits::default()) {
        (Some(image), findings) if findings.is_empty() => {
            std::fs::rename(&linked, out).map_err(BuildError::io("write", out))?;
            Ok(image)
        }
        (_, findings) => Err(BuildError::Refused { findings }),
    }
}

/// Builds the library `package` into one relocatable object at `out` that exports its own
/// `no_mangle` functions and nothing else, for linking into a kernel module. `memcpy` and its
/// like stay undefined. `rustflags` go to every crate, the core library too; `features` are the
/// package's.
///
/// # Errors
/// A [`BuildError`] when no toolchain with library source is there, or the package does not
/// compile or link.
pub fn build_object(
    workspace: &Path,
    package: &str,
    rustflags: &[&str],
    features: &[&str],
    out: &Path,
) -> Result<(), BuildError> {
    let order = Freestanding {
        workspace: workspace.to_owned(),
        package: package.to_owned(),
        rustflags: [strings(RUSTFLAGS), strings(rustflags)].concat(),
        features: strings(features),
        own_memory_functions: false,
        core_from_source: true,
        whole_program: false,
        folder: "object",
    };
    let archive = cargo::compile(&order, Product::StaticLibrary)?;
    link::object(&archive, package, out)
}

/// Builds the program of `package` into the file `out`, at fixed addresses and without a loader.
/// `rustflags` may hold linker arguments (`-Clink-arg=-T...`); the linker is binutils' `ld`.
///
/// # Errors
/// A [`BuildError`] when no toolchain is there, or the package does not compile or link.
pub fn build_executable(
    workspace: &Path,
    package: &str,
    rustflags: &[&str],
    features: &[&str],
    out: &Path,
) -> Result<(), BuildError> {
    let linker = ["-Clinker=ld", "-Clinker-flavor=ld", "-Crelocation-model=static"];
    let order = Freestanding {
        workspace: workspace.to_owned(),
        package: package.to_owned(),
        rustflags: [strings(RUSTFLAGS), strings(&linker), strings(rustflags)].concat(),
        features: strings(features),
        own_memory_functions: true,
        core_from_source: false,
        whole_program: false,
        folder: "executable",
    };
    let program = cargo::compile(&order, Product::Executable)?;
    std::fs::copy(&program, out).map(|_| ()).map_err(BuildError::io("write", out))
}

/// The linker script of plugin images, as [`build_blob`] uses it.
pub const LINKER_SCRIPT: &str = include_str!("../../../sdk/npa-plugin.ld");
