//! `inspect`.

use std::path::PathBuf;

use clap::Args;
use npa_abi::Class;
use npa_abi::image::{Licence, REGION_TRAP};
use npa_plugin::image::{Image, ImageError, Signature, Symbol, examine};
use serde::Serialize;

use super::{Landing, read};

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The image file
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    landing: Landing,
}

impl Inspect {
    /// Shows the image; answers whether it is good.
    pub(super) fn run(self) -> anyhow::Result<bool> {
        let (image, findings) = examine(&read(&self.file)?, &self.landing.limits());
        let description = image.as_ref().map(Description::of);
        let findings: Vec<String> = findings.iter().map(ImageError::to_string).collect();
        let good = findings.is_empty();
        if self.json {
            let report = Report { good, findings, image: description };
            println!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(good);
        }
        if let Some(description) = &description {
            description.print();
        }
        for finding in &findings {
            println!("  - {finding}");
        }
        Ok(good)
    }
}

#[derive(Serialize)]
struct Report {
    good: bool,
    findings: Vec<String>,
    image: Option<Description>,
}

#[derive(Serialize)]
struct Description {
    name: String,
    version: String,
    class: String,
    licence: String,
    abi: [u16; 2],
    length: usize,
    entry: u32,
    private_length: u32,
    queues_per_role: u16,
    vectors: u16,
    rings: Vec<Ring>,
    pci_ids: Vec<String>,
    regions: Vec<Region>,
    relocations: usize,
    sha256: String,
    signature: Signature,
    symbols: Vec<Symbol>,
}

#[derive(Serialize)]
struct Ring {
    entries: [u16; 2],
    bytes: [u64; 2],
    align: u32,
}

#[derive(Serialize)]
struct Region {
    bar: u8,
    kind: &'static str,
    offset: u64,
    length: u64,
    window_offset: u32,
}

impl Description {
    fn of(image: &Image) -> Self {
        let header = image.header();
        let rings = header.roles.iter().take(header.role_count.into()).map(|need| Ring {
            entries: [need.min_entries, need.max_entries],
            bytes: [need.bytes(need.min_entries.into()), need.bytes(need.max_entries.into())],
            align: need.align,
        });
        let regions = header.regions.iter().take(header.region_count.into()).map(|region| Region {
            bar: region.bar,
            kind: if region.kind == REGION_TRAP { "trap" } else { "data" },
            offset: region.offset,
            length: region.length,
            window_offset: region.window_offset,
        });
        let ids = header.pci_ids.iter().take(header.pci_id_count.into());
        Self {
            name: image.name().to_owned(),
            version: image.version().to_owned(),
            class: named(Class::from_code(header.class), header.class).to_lowercase(),
            licence: licence(header.licence),
            abi: [header.abi_min, header.abi_max],
            length: image.bytes().len(),
            entry: header.entry,
            private_length: header.private_length,
            queues_per_role: header.queues_per_role,
            vectors: header.vectors,
            rings: rings.collect(),
            pci_ids: ids.map(|id| format!("{:04x}:{:04x}", id.vendor, id.device)).collect(),
            regions: regions.collect(),
            relocations: image.relocations().len(),
            sha256: header.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            signature: image.signature(),
            symbols: image.symbols().iter().cloned().collect(),
        }
    }

    fn print(&self) {
        println!("{} {} ({}, {})", self.name, self.version, self.class, self.licence);
        println!("  abi           {} to {}", self.abi[0], self.abi[1]);
        println!("  length        {} bytes, {} relocations", self.length, self.relocations);
        println!("  entry         {:#x}", self.entry);
        println!("  private       {} bytes per device", self.private_length);
        println!("  queues        {} per role, {} vectors", self.queues_per_role, self.vectors);
        for (role, ring) in self.rings.iter().enumerate() {
            let [fewest, most] = ring.entries;
            println!(
                "  ring {role}        {fewest} to {most} entries, {} to {} bytes",
                ring.bytes[0], ring.bytes[1]
            );
        }
        println!("  devices       {}", self.pci_ids.join(" "));
        for region in &self.regions {
            println!(
                "  region        BAR {} {:#x}, {} bytes, {}, at {:#x} of the window",
                region.bar, region.offset, region.length, region.kind, region.window_offset
            );
        }
        println!("  sha256        {}", self.sha256);
        println!("  signature     {:?}", self.signature);
    }
}

fn named<T: std::fmt::Debug>(known: Option<T>, code: u16) -> String {
    known.map_or_else(|| format!("unknown ({code})"), |known| format!("{known:?}"))
}

/// A licence code as an SPDX expression.
fn licence(code: u16) -> String {
    match Licence::from_code(code) {
        Some(Licence::Gpl2) => "GPL-2.0-only".to_owned(),
        Some(Licence::Gpl2OrLater) => "GPL-2.0-or-later".to_owned(),
        Some(Licence::Gpl2OrMit) => "GPL-2.0-only OR MIT".to_owned(),
        Some(Licence::Gpl2OrBsd) => "GPL-2.0-only OR BSD-3-Clause".to_owned(),
        None => format!("unknown ({code})"),
    }
}
