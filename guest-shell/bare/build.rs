//! Has the guest linked at 1 MiB by `bare.ld`, when it is built for bare metal.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=bare.ld");
    if var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{folder}/bare.ld");
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
