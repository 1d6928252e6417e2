//! `pf-control scan`: what of this host could be served, and what stands in the way.

use clap::Args;
use pf_control::inventory::{Found, Kind, Sysfs, VfioNodes};
use pf_control::ops::DeviceClass;
use std::io::{self, Write};

#[derive(Args)]
pub(crate) struct Scan {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Scan {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let found = Sysfs::default().scan(&VfioNodes::default())?;
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &found)?;
            writeln!(out)?;
            return Ok(());
        }
        writeln!(
            out,
            "{:<13} {:<10} {:<7} {:<10} {:<11} {:<10} {:>8}  USE",
            "FUNCTION", "IDS", "CLASS", "INTERFACE", "IOMMU GROUP", "DRIVER", "PID"
        )?;
        for function in &found {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let number = |number: Option<u32>| number.map_or("-".to_owned(), |it| it.to_string());
            let ids = function.pci_ids;
            writeln!(
                out,
                "{:<13} {:<10} {:<7} {:<10} {:<11} {:<10} {:>8}  {}",
                function.address.to_string(),
                format!("{:04x}:{:04x}", ids.vendor, ids.device),
                format!("{:?}", function.class).to_lowercase(),
                text(&function.interface),
                number(function.iommu_group),
                text(&function.driver),
                number(function.owner_pid),
                advice(function),
            )?;
        }
        Ok(())
    }
}

/// How it would be served, or why it cannot be.
fn advice(function: &Found) -> String {
    if function.class == DeviceClass::Crypto {
        return "this version serves network functions only".to_owned();
    }
    match &function.kind {
        Kind::Virtual { of } => format!("a VF of {of}"),
        Kind::Physical { total_vfs, vfs } => {
            let pf = function.interface.as_deref().unwrap_or("INTERFACE");
            format!("serve --pf {pf} --vfs N ({vfs} of {total_vfs} VFs are made)")
        }
        Kind::Plain if function.iommu_group.is_none() => "needs an IOMMU that is on".to_owned(),
        Kind::Plain if function.group_size > 1 => {
            format!("shares its IOMMU group with {} others", function.group_size - 1)
        }
        Kind::Plain => format!("serve --function {} --uplink INTERFACE", function.address),
    }
}
