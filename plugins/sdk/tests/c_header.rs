//! The C header is generated from `npa-abi`: this keeps the file in the tree current.

use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use cbindgen::{Builder, Config, EnumConfig, ExportConfig, Language, RenameRule, Style};
use npa_abi::image::{IMAGE_MAGIC, PluginHeader};
use npa_abi::net::{DeviceInfo, NetOps, RxFrame, TxFrame};
use npa_abi::plugin::{EntryCall, Instance, ShellApi};

/// Types, with all that they are made of.
const TYPES: &[&str] = &[
    "Class",
    "DeviceInfo",
    "EntryCall",
    "Instance",
    "Licence",
    "NetOps",
    "PluginHeader",
    "RxFrame",
    "ShellApi",
    "TxFrame",
];

/// The only constants of the modules that are otherwise between shell and hypervisor.
const SHARED: &[&str] = &["DEVICE_INFO_WORDS", "QUEUES_MAX"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generate() -> String {
    let abi = folder().join("../../guest-shell/abi/src");
    let config = Config {
        language: Language::C,
        style: Style::Tag,
        include_guard: Some("NPA_PLUGIN_H".to_owned()),
        no_includes: true,
        sys_includes: vec!["stdbool.h".to_owned(), "stddef.h".to_owned(), "stdint.h".to_owned()],
        header: Some(head()),
        after_includes: Some(special()),
        usize_is_size_t: true,
        documentation: true,
        tab_width: 8,
        line_length: 100,
        export: ExportConfig {
            prefix: Some("NPA_".to_owned()),
            include: TYPES.iter().map(|&name| name.to_owned()).collect(),
            exclude: private_names(&abi),
            ..ExportConfig::default()
        },
        enumeration: EnumConfig {
            rename_variants: RenameRule::ScreamingSnakeCase,
            prefix_with_name: true,
            ..EnumConfig::default()
        },
        ..Config::default()
    };
    let mut text = Vec::new();
    Builder::new()
        .with_config(config)
        .with_src(abi.join("lib.rs"))
        .generate()
        .expect("npa-abi can be read")
        .write(&mut text);
    plain(&String::from_utf8(text).expect("the header is text"))
}

/// Rust's links in comments, as plain words.
fn plain(text: &str) -> String {
    let text = text.replace("[`", "`").replace("`]", "`").replace("::", ".");
    ["image", "net", "plugin", "shell_page"]
        .iter()
        .fold(text, |text, module| text.replace(&format!("crate.{module}."), ""))
        .replace("crate.", "")
}

/// What is between shell and hypervisor only, and never seen by a plugin.
fn private_names(abi: &Path) -> Vec<String> {
    let names_in = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(abi.join(file)).expect("npa-abi can be read");
        text.lines()
            .filter_map(|line| line.strip_prefix("pub "))
            .filter_map(|item| {
                let (kind, rest) = item.split_once(' ')?;
                let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
                matches!(kind, "const" | "enum" | "struct").then(|| name.to_owned())
            })
            .filter(|name| !SHARED.contains(&name.as_str()))
            .collect()
    };
    ["pci.rs", "protocol.rs", "register.rs", "shell_page.rs"]
        .into_iter()
        .flat_map(names_in)
        .collect()
}

fn head() -> String {
    "/* SPDX-License-Identifier: Apache-2.0 OR MIT */\n\
     /* What a data-path plugin written in C is built against. Generated from npa-abi; do not edit.\n \
      * All functions follow the System V AMD64 calling convention. */"
        .to_owned()
}

/// What a generator cannot tell: values that are not plain numbers.
fn special() -> String {
    let magic: Vec<String> = IMAGE_MAGIC.iter().map(|byte| format!("{byte:#04x}")).collect();
    format!("#define NPA_IMAGE_MAGIC {{{}}}\n", magic.join(", "))
}

fn header_file() -> PathBuf {
    folder().join("include/npa_plugin.h")
}

/// Run with `NPA_UPDATE=1` to write the file anew.
#[test]
fn the_header_in_the_tree_is_current() {
    let generated = generate();
    if std::env::var_os("NPA_UPDATE").is_some() {
        std::fs::write(header_file(), &generated).expect("the header can be written");
    }
    let kept = std::fs::read_to_string(header_file()).unwrap_or_default();
    assert!(
        kept == generated,
        "npa-abi has changed: run `NPA_UPDATE=1 cargo test -p npa-plugin-sdk --test c_header`"
    );
}

#[test]
fn a_c_compiler_lays_every_type_out_alike() {
    let sizes = [
        ("NPA_PluginHeader", size_of::<PluginHeader>()),
        ("NPA_EntryCall", size_of::<EntryCall>()),
        ("NPA_Instance", size_of::<Instance>()),
        ("NPA_ShellApi", size_of::<ShellApi>()),
        ("NPA_NetOps", size_of::<NetOps>()),
        ("NPA_TxFrame", size_of::<TxFrame>()),
        ("NPA_RxFrame", size_of::<RxFrame>()),
        ("NPA_DeviceInfo", size_of::<DeviceInfo>()),
    ];
    let offsets = [
        ("NPA_PluginHeader", "sha256", offset_of!(PluginHeader, sha256)),
        ("NPA_PluginHeader", "entry", offset_of!(PluginHeader, entry)),
        ("NPA_Instance", "queues", offset_of!(Instance, queues)),
        ("NPA_Instance", "device_info", offset_of!(Instance, device_info)),
        ("NPA_ShellApi", "peek_rx_buffer", offset_of!(ShellApi, peek_rx_buffer)),
        ("NPA_NetOps", "quiesce", offset_of!(NetOps, quiesce)),
        ("NPA_TxFrame", "headers", offset_of!(TxFrame, headers)),
        ("NPA_RxFrame", "hash", offset_of!(RxFrame, hash)),
    ];
    let mut source = "#include \"npa_plugin.h\"\n".to_owned();
    for (name, size) in sizes {
        source += &format!("_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");\n");
    }
    for (name, field, offset) in offsets {
        source += &format!(
            "_Static_assert(offsetof(struct {name}, {field}) == {offset}, \"{name}.{field}\");\n"
        );
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("layout.c");
    std::fs::write(&file, source).expect("a scratch file");
    let output = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"])
        .arg(folder().join("include"))
        .arg(&file)
        .output()
        .expect("gcc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
