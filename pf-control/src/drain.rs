//! `pf-control drain` and `enable`: a PF is emptied, and used again.

use crate::At;
use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pf_control::client::{Client, ClientError};
use pf_control::lease::LeaseState;
use pf_control::ops::{PciAddress, VfEntry};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks for a daemon that has ended.
const ABSENCE_LOOK: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    at: At,
    /// Network interface of the PF.
    pf: String,
    /// Seconds until this gives up waiting. The PF stays in maintenance all the same.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Do not wait until the PF is empty.
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
}

#[derive(Args)]
pub(crate) struct Enable {
    #[command(flatten)]
    at: At,
    /// Network interface of the PF.
    pf: String,
}

impl Drain {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let client = Client::new(&self.at.socket);
        let held = client.drain(&self.pf)?;
        if held.is_empty() {
            println!("{}: in maintenance, no VF is held", self.pf);
            return Ok(());
        }
        if self.no_wait {
            println!("{}: in maintenance; {}", self.pf, sentence(held.iter()));
            return Ok(());
        }
        let mut held = held.into_iter().map(|entry| (entry.vf, entry)).collect();
        match self.wait(&client, &mut held)? {
            true => println!("{}: in maintenance, no VF is held", self.pf),
            false => bail!(
                "{} is in maintenance, but after {} s {}",
                self.pf,
                self.timeout,
                sentence(held.values())
            ),
        }
        Ok(())
    }

    /// Waits until nothing is held; answers whether that came in time.
    fn wait(
        &self,
        client: &Client,
        held: &mut BTreeMap<PciAddress, VfEntry>,
    ) -> anyhow::Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(self.timeout);
        let bar = ProgressBar::new(held.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:20}] {pos} of {len}; {msg}")
        {
            bar.set_style(style);
        }
        bar.set_prefix(self.pf.clone());
        let mut look = |entry: Option<VfEntry>| {
            if let Some(entry) = entry.filter(|entry| entry.pf == self.pf) {
                if entry.state == LeaseState::Free {
                    held.remove(&entry.vf);
                } else {
                    held.insert(entry.vf, entry);
                }
                bar.set_position(bar.length().unwrap_or(0).saturating_sub(held.len() as u64));
                bar.set_message(sentence(held.values()));
            }
            match held.is_empty() {
                true => ControlFlow::Break(true),
                false if Instant::now() >= deadline => ControlFlow::Break(false),
                false => ControlFlow::Continue(()),
            }
        };
        let empty = loop {
            match client.follow(&mut look) {
                Ok(empty) => break empty,
                // Started again, the daemon still knows what is to be done.
                Err(ClientError::Died { .. } | ClientError::NotRunning { .. })
                    if Instant::now() < deadline =>
                {
                    thread::sleep(ABSENCE_LOOK);
                }
                Err(error) => return Err(error.into()),
            }
        };
        bar.finish_and_clear();
        Ok(empty)
    }
}

impl Enable {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        Client::new(&self.at.socket).enable(&self.pf)?;
        println!("{}: in use again", self.pf);
        Ok(())
    }
}

/// Who holds a VF, as it told.
pub(crate) fn holder(entry: &VfEntry) -> Option<String> {
    match (&entry.vm, &entry.device) {
        (Some(vm), Some(device)) => Some(format!("{vm}/{device}")),
        (Some(name), None) | (None, Some(name)) => Some(name.clone()),
        (None, None) => None,
    }
}

fn sentence<'a>(held: impl Iterator<Item = &'a VfEntry>) -> String {
    let each = held.map(|entry| {
        let holder = holder(entry).unwrap_or_else(|| "somebody".to_owned());
        let pid = entry.owner_pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
        format!("{} by {holder}{pid}", entry.vf)
    });
    let each: Vec<_> = each.collect();
    if each.is_empty() {
        "nothing is held".to_owned()
    } else {
        format!("held: {}", each.join(", "))
    }
}
