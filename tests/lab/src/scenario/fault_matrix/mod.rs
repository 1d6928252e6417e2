//! Every fault of a move at every phase in which it can happen, made by a relay between the two ends:
//! exactly one VM runs afterwards, the error says why, and the traffic of a VM that stays does not
//! notice.

mod cells;

use super::guest::{Guest, GuestOptions};
use super::host::Host;
use super::migration::{Meeting, expect_vf};
use super::pool;
use super::relay::{Deed, Manner, Message, Relay};
use super::snapshot::SmallDisk;
use super::traffic::Traffic;
use super::{Check, Context, Report};
use anyhow::{Context as _, Result, bail, ensure};
use cells::{At, CHECKING, COPYING, Cell, Hit, PHASES, Runs, cells};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long a move may take to come to a phase.
const REACH: Duration = Duration::from_secs(30);
/// How long an end that hears nothing waits, and some more.
const PATIENCE: Duration = Duration::from_secs(25);

/// What a cell showed.
#[derive(Debug, Serialize)]
struct Seen {
    fault: &'static str,
    phase: &'static str,
    runs: Runs,
    held: bool,
    /// What the operator was told, or what was wrong.
    told: String,
}

/// The scenario: `--set only=TEXT` runs the cells whose fault has this text in it.
pub(crate) fn scenario(context: &Context) -> Result<Report> {
    let only = context.setting("only", "").to_owned();
    Host::up()?;
    let mut bench =
        Bench { context, guest: None, traffic: None, number: 0, dirty: Vec::new(), judged: 0 };
    let mut seen = Vec::new();
    for cell in cells().iter().filter(|cell| cell.fault.contains(&only)) {
        let outcome = bench.run(cell);
        let held = outcome.is_ok();
        let told = outcome.unwrap_or_else(|error| format!("{error:#}"));
        eprintln!("{}, {}: {}", cell.fault, cell.phase, if held { "ok" } else { &told });
        if !held {
            bench.forget();
        }
        seen.push(Seen { fault: cell.fault, phase: cell.phase, runs: cell.runs, held, told });
    }
    for (name, manner, told) in [
        ("older version", Manner { version: Some(0), pace: None }, "version 0"),
        ("newer version", Manner { version: Some(9), pace: None }, "version 9"),
        ("network slow", Manner { version: None, pace: Some(4_000_000) }, "still being copied"),
    ] {
        if !name.contains(&only) {
            continue;
        }
        let outcome = bench.refused(name, manner, told);
        let held = outcome.is_ok();
        let told = outcome.unwrap_or_else(|error| format!("{error:#}"));
        let phase = if manner.pace.is_some() { COPYING } else { CHECKING };
        seen.push(Seen { fault: name, phase, runs: Runs::Source, held, told });
    }
    if "disk full (snapshot)".contains(&only) {
        let outcome = bench.disk_full();
        let held = outcome.is_ok();
        let told = outcome.unwrap_or_else(|error| format!("{error:#}"));
        let fault = "disk full (snapshot)";
        seen.push(Seen { fault, phase: COPYING, runs: Runs::Source, held, told });
    }
    bench.end()?;
    print!("{}", table(&seen));
    let wrong: Vec<_> = seen.iter().filter(|cell| !cell.held).collect();
    let checks = vec![
        Check {
            what: "exactly one VM runs after every fault, and the error says why".to_owned(),
            passed: wrong.is_empty() && !seen.is_empty(),
            seen: format!("{} of {} cells; {wrong:?}", seen.len() - wrong.len(), seen.len()),
        },
        Check {
            what: "traffic of a VM that stays does not notice".to_owned(),
            passed: bench.dirty.is_empty()
                && (bench.judged > 0 || seen.iter().all(|cell| cell.runs != Runs::Source)),
            seen: format!("{} streams looked at; {:?}", bench.judged, bench.dirty),
        },
    ];
    Ok(Report { checks, figures: serde_json::to_value(seen)? })
}

struct Bench<'a> {
    context: &'a Context,
    guest: Option<Guest>,
    traffic: Option<Traffic>,
    number: u32,
    /// What traffic saw that it should not have.
    dirty: Vec<String>,
    /// Streams that were looked at.
    judged: u32,
}

impl Bench<'_> {
    /// A guest on a VF of the first host, with traffic.
    fn guest(&mut self) -> Result<Guest> {
        if let Some(guest) = self.guest.take() {
            return Ok(guest);
        }
        Host::up()?;
        for host in [Host::First, Host::Second] {
            pool::expect_all_free_on(host)?;
        }
        self.number += 1;
        let name = format!("matrix-{}", self.number);
        let guest = Guest::launch(GuestOptions::new(self.context).named(&name))?;
        guest.expect_traffic()?;
        guest.attach()?;
        self.traffic = Some(Traffic::start(&guest)?);
        Ok(guest)
    }

    /// The guest is gone, or not to be trusted any more.
    fn forget(&mut self) {
        self.guest = None;
        self.traffic = None;
    }

    fn end(&mut self) -> Result<()> {
        if let (Some(guest), Some(traffic)) = (self.guest.take(), self.traffic.take()) {
            self.judged += 1;
            if let Err(error) = traffic.stop(&guest)?.expect_clean() {
                self.dirty.push(format!("{error:#}"));
            }
        }
        Ok(())
    }

    fn run(&mut self, cell: &Cell) -> Result<String> {
        if !cell.is_harmless() {
            // From here on the VM does not stay, or its traffic is harmed.
            self.end()?;
        }
        let guest = self.guest()?;
        if !cell.is_harmless() {
            self.traffic = None;
        }
        let (here, there) = (guest.options.host, guest.options.away);
        self.number += 1;
        let mut meeting = Meeting::arrange(&guest, &format!("cell-{}", self.number))?;
        let verify: &[&str] = if cell.hit == Hit::VfReset { &["--verify"] } else { &[] };
        let mut source = Some(guest);
        let held = match cell.at {
            At::Message(_) => None,
            At::FallingBack => Some(pool::HeldDaemon::of(here)?),
        };
        let message = match cell.at {
            At::Message(message) => Some(message),
            At::FallingBack => None,
        };
        let mut relay = Some(relay(&meeting, message, Manner::default())?);
        let moving = {
            let (Some(guest), Some(relay)) = (&source, &relay) else { bail!("no source") };
            let moving = Moving::start(guest, &relay.url(), verify)?;
            match message {
                Some(_) => relay.wait(REACH)?,
                None => expect_phase(guest, "falling-back")?,
            }
            moving
        };
        match cell.hit {
            Hit::Nothing => {}
            Hit::DestinationKilled => meeting.guest.kill_now()?,
            Hit::SourceKilled => source.take().context("no source")?.kill()?,
            Hit::DaemonHereKilled => pool::kill_daemon_on(here)?,
            Hit::DaemonThereKilled => pool::kill_daemon_on(there)?,
            Hit::GuestHung => hang(source.as_ref().context("no source")?)?,
            Hit::VfReset => here.reset_pf()?,
        }
        match (&relay, message, cell.deed) {
            (Some(relay), Some(_), deed) => relay.go_on(deed)?,
            // A relay that ends closes both connections.
            (_, None, Deed::Cut) => relay = None,
            _ => {}
        }
        drop(held);
        let outcome = moving.end()?;
        drop(relay);
        self.judge(cell, source, meeting, outcome)
    }

    /// Looks at what is left after a fault.
    fn judge(
        &mut self,
        cell: &Cell,
        mut source: Option<Guest>,
        mut meeting: Meeting,
        (moved, told): (bool, String),
    ) -> Result<String> {
        let there = meeting.guest.options.host;
        ensure!(moved == cell.succeeds(), "the operator is told of {moved}: {told}");
        ensure!(told.contains(cell.told), "the operator is told: {told}");
        if matches!(cell.hit, Hit::DaemonHereKilled | Hit::DaemonThereKilled) {
            Host::up()?;
        }
        match cell.runs {
            Runs::Source => {
                let guest = source.take().context("no source")?;
                expect_ended(&mut meeting.guest)?;
                expect_vf(&guest).context("the VM that stays")?;
                pool::expect_all_free_on(there)?;
                self.guest = Some(guest);
            }
            Runs::Nobody => expect_ended(&mut meeting.guest)?,
            Runs::DoubtStays => {
                let guest = source.take().context("no source")?;
                expect_ended(&mut meeting.guest)?;
                ensure!(guest.status()?["state"] != "running", "it runs in doubt");
                guest.ctl_ok(&["resume"])?;
                guest.expect_traffic().context("the VM that was let go on")?;
                guest.attach().context("its device")?;
            }
            Runs::DoubtMoved => {
                let guest = source.take().context("no source")?;
                expect_running(&meeting.guest)?;
                ensure!(guest.status()?["state"] != "running", "both run");
                meeting.guest.expect_traffic().context("the VM that moved")?;
            }
            Runs::Destination => {
                expect_running(&meeting.guest)?;
                if let Some(mut guest) = source.take() {
                    guest.wait(Duration::from_secs(10)).context("the source does not end")?;
                }
                if cell.hit != Hit::GuestHung {
                    meeting.guest.expect_traffic().context("the VM that moved")?;
                }
                if cell.is_harmless() {
                    if meeting.guest.net_status()?["mode"] != "vf" {
                        meeting.guest.attach().context("its device")?;
                    }
                    self.guest = Some(meeting.guest);
                }
            }
        }
        Ok(told)
    }

    /// A disk that has no room for a snapshot.
    fn disk_full(&mut self) -> Result<String> {
        let guest = self.guest()?;
        let text = SmallDisk::mount()?.expect_too_small(&guest, "snapshot")?;
        expect_vf(&guest)?;
        self.guest = Some(guest);
        Ok(text)
    }

    /// A move that is refused or given up without any hit.
    fn refused(&mut self, name: &str, manner: Manner, told: &str) -> Result<String> {
        let guest = self.guest()?;
        self.number += 1;
        let mut meeting = Meeting::arrange(&guest, &format!("cell-{}", self.number))?;
        let relay = relay(&meeting, None, manner)?;
        let (moved, text) = Moving::start(&guest, &relay.url(), &["--timeout", "5"])?.end()?;
        ensure!(!moved, "{name}: it moved");
        ensure!(text.contains(told), "{name} is told as: {text}");
        drop(relay);
        if manner.version.is_some() {
            // Whoever does not even speak its language does not end its waiting.
            meeting.guest.expect_alive()?;
            ensure!(meeting.guest.status()?["state"] != "running", "both run");
        } else {
            expect_ended(&mut meeting.guest)?;
        }
        expect_vf(&guest)?;
        self.guest = Some(guest);
        Ok(text)
    }
}

fn relay(meeting: &Meeting, at: Option<Message>, manner: Manner) -> Result<Relay> {
    let back = meeting.url.strip_prefix("unix:").context("no socket")?;
    Relay::open(Path::new("/run/npa/relay.sock"), PathBuf::from(back), at, manner)
}

/// The destination has ended by itself, or was killed.
fn expect_ended(destination: &mut Guest) -> Result<()> {
    let well = destination.wait(PATIENCE).context("the destination")?;
    ensure!(!well, "the destination ended as if all were well");
    Ok(())
}

/// The move is in `phase`, or comes to it.
fn expect_phase(guest: &Guest, phase: &str) -> Result<()> {
    let deadline = Instant::now() + REACH;
    loop {
        let view = guest.migration()?;
        if view["progress"]["phase"] == phase {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the move does not come to {phase}: {view}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The guest's kernel panics, and then does nothing more.
fn hang(guest: &Guest) -> Result<()> {
    guest.exec(
        "echo 0 >/proc/sys/kernel/panic; \
         (sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 </dev/null &",
    )?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(!guest.answers_within(Duration::from_secs(3))?, "the guest is to hang, and does not");
    Ok(())
}

fn expect_running(guest: &Guest) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while guest.status().map(|status| status["state"] == "running").ok() != Some(true) {
        ensure!(Instant::now() < deadline, "the VM does not run:\n{}", guest.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// `vmm ctl migrate`.
struct Moving(Child);

impl Moving {
    fn start(guest: &Guest, url: &str, options: &[&str]) -> Result<Self> {
        let arguments = [&["migrate", url], options].concat();
        let mut command = guest.ctl_command(&arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Ok(Self(child.context("cannot start vmm ctl")?))
    }

    /// Waits for its end; answers whether it says that the VM has moved, and what it says.
    fn end(mut self) -> Result<(bool, String)> {
        let deadline = Instant::now() + 2 * PATIENCE;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.0.kill()?;
                bail!("the move does not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = self.0.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok((output.status.success(), text))
    }
}

/// A line for each fault, a column for each phase.
fn table(seen: &[Seen]) -> String {
    let mut faults: Vec<_> = seen.iter().map(|cell| cell.fault).collect();
    faults.sort_unstable();
    faults.dedup();
    let row = |first: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:<16}")).collect();
        format!("{first:<24}{}\n", cells.trim_end_matches(' '))
    };
    let mut table = row("", PHASES.map(str::to_owned).to_vec());
    for fault in faults {
        let cell = |phase: &&str| {
            let found = seen.iter().find(|cell| cell.fault == fault && cell.phase == *phase);
            found.map_or("-".to_owned(), |cell| {
                let runs = match cell.runs {
                    Runs::Source => "stays",
                    Runs::Destination => "moved",
                    Runs::Nobody => "none left",
                    Runs::DoubtStays => "doubt, held",
                    Runs::DoubtMoved => "doubt, moved",
                };
                format!("{runs}{}", if cell.held { "" } else { " FAILED" })
            })
        };
        table += &row(fault, PHASES.iter().map(cell).collect());
    }
    table
}
