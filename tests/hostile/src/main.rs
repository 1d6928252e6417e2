//! `hostile`: runs as root in a guest and attacks the NPA BAR from there. It reads and writes every
//! offset of the register page in every access size, throws all commands with right and wrong
//! generations at it, and does the same to the VF window. What it must not be able to do is to
//! stop or slow the hypervisor; the scenario that runs it checks that from outside.

mod bar;
mod random;

use anyhow::{Context, Result, bail};
use bar::Bar;
use clap::Parser;
use npa_abi::pci::{NPA_BAR, NPA_BAR_SIZE, WINDOW_OFFSET, WINDOW_SIZE};
use npa_abi::protocol::Command;
use npa_abi::register;
use random::Random;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Parser)]
#[command(version, about = "Write rubbish to every NPA register and window offset")]
struct Cli {
    /// Seconds of random accesses after the systematic sweep.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Seed of the random accesses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave the VF window alone.
    #[arg(long)]
    registers_only: bool,
}

#[derive(Serialize)]
struct Report {
    device: String,
    reads: u64,
    writes: u64,
    commands: u64,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let device = find_device(Path::new("/sys/bus/pci/devices"))?;
    let mut bar = Bar::map(&device.join(format!("resource{NPA_BAR}")), NPA_BAR_SIZE as usize)?;
    let mut report =
        Report { device: device.display().to_string(), reads: 0, writes: 0, commands: 0 };
    let mut random = Random::new(cli.seed);

    sweep(&mut bar, &mut random, &mut report);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs_f64(cli.duration) {
        for _ in 0..64 {
            attack(&mut bar, &mut random, cli.registers_only, &mut report);
        }
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// The first virtio function in the guest whose NPA BAR exists.
fn find_device(root: &Path) -> Result<PathBuf> {
    for entry in std::fs::read_dir(root).context("cannot list PCI devices")? {
        let path = entry?.path();
        let vendor = std::fs::read_to_string(path.join("vendor")).unwrap_or_default();
        let resource = path.join(format!("resource{NPA_BAR}"));
        let length = std::fs::metadata(&resource).map_or(0, |metadata| metadata.len());
        if vendor.trim() == "0x1af4" && length == NPA_BAR_SIZE {
            std::fs::write(path.join("enable"), "1").ok();
            return Ok(path);
        }
    }
    bail!("no device with an NPA BAR in this guest")
}

/// Every offset of the register page, every size, reads and three values.
fn sweep(bar: &mut Bar, random: &mut Random, report: &mut Report) {
    for offset in 0..npa_abi::PAGE_SIZE {
        for size in [1, 2, 4, 8] {
            if offset % size != 0 {
                continue;
            }
            bar.read(offset, size);
            report.reads += 1;
            for value in [0, u64::MAX, random.next()] {
                bar.write(offset, size, value);
                report.writes += 1;
            }
        }
    }
}

fn attack(bar: &mut Bar, random: &mut Random, registers_only: bool, report: &mut Report) {
    match random.below(10) {
        0..=3 => {
            let command = Command::ALL[random.below(Command::ALL.len() as u64) as usize];
            let generation = if random.below(2) == 0 {
                bar.read(register::GENERATION as usize, 4) as u32
            } else {
                random.next() as u32
            };
            bar.write(register::COMMAND as usize, 4, command.encode(generation).into());
            report.commands += 1;
        }
        4..=5 => {
            // A shell page somewhere: in RAM, in a device, nowhere.
            let page = random.next() >> random.below(60);
            bar.write(register::SHELL_PAGE_LO as usize, 4, page & 0xffff_f000);
            bar.write(register::SHELL_PAGE_HI as usize, 4, page >> 32);
            bar.write(register::GUEST_ABI as usize, 4, npa_abi::ABI.into());
            report.writes += 3;
        }
        6..=7 => {
            let offset = random.below(npa_abi::PAGE_SIZE as u64) as usize & !7;
            bar.write(offset, 1 << random.below(4), random.next());
            report.writes += 1;
        }
        _ if registers_only => {
            bar.read(random.below(npa_abi::PAGE_SIZE as u64) as usize & !7, 8);
            report.reads += 1;
        }
        _ => {
            let offset = (WINDOW_OFFSET + random.below(WINDOW_SIZE)) as usize & !7;
            let size = 1 << random.below(4);
            bar.write(offset, size, random.next());
            bar.read(offset, size);
            report.writes += 1;
            report.reads += 1;
        }
    }
}
