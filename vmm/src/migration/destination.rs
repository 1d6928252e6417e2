//! The end that a VM moves to. Until *go* it is silent in the network and runs nothing, and a move
//! that fails before leaves nothing of the VM here. Everything that comes is checked before it is
//! used.

use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::MovingDevice;
use super::channel::Channel;
use super::error::MigrationError;
use super::message::{DeviceArrivals, Final, Hello, Kind, decode, encode, readable};
use super::pages;
use super::phase::{DestinationEvent, DestinationPhase};
use super::source::{give_up, lost, take_up};
use crate::virtio::{Arrival, Intake};
use crate::vm::dirty::PAGE;
use crate::vm::{GuestRam, Vm};

/// How long frames that came here are held back for those that the source still sends.
const LATE_LIMIT: Duration = Duration::from_millis(500);

/// Most bytes of frames that a source hands over, all cards together.
const LATE_BYTES: usize = 256 << 20;

/// A VM that came.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// It was paused by its operator, and still is.
    pub paused: bool,
}

/// Takes a VM over `channel` into `vm`, which was not started. On return it runs here; `arrived` is
/// called as soon as it does.
///
/// # Errors
/// [`MigrationError`]; the VM is then not here, and `vm` is of no use any more.
pub fn receive(
    vm: &Vm,
    devices: &[MovingDevice],
    channel: Channel,
    arrived: &dyn Fn(),
) -> Result<Incoming, MigrationError> {
    let late = devices.iter().map(|_| Vec::new()).collect();
    let phase = DestinationPhase::Receiving;
    let mut destination = Destination {
        vm,
        devices,
        channel,
        phase,
        end: None,
        late,
        late_bytes: 0,
        settled: false,
        arrived,
    };
    let outcome = destination.run();
    if let Err(error) = &outcome {
        destination.step(DestinationEvent::Lost);
        give_up(&mut destination.channel, error);
    }
    let Destination { channel, settled, .. } = destination;
    if outcome.is_ok() && !settled {
        // The source may not know that the VM runs here. It takes the end of the connection for
        // the end of this process, so the connection stays as long as the process does.
        std::mem::forget(channel);
    }
    outcome
}

struct Destination<'a> {
    vm: &'a Vm,
    devices: &'a [MovingDevice],
    channel: Channel,
    phase: DestinationPhase,
    end: Option<Final>,
    /// What came after the VM did, by device.
    late: Vec<Vec<Arrival>>,
    /// Bytes of all that came so.
    late_bytes: usize,
    /// The source knows that the VM is here.
    settled: bool,
    arrived: &'a dyn Fn(),
}

impl Destination<'_> {
    fn step(&mut self, event: DestinationEvent) {
        let before = self.phase;
        self.phase = before.after(event);
        tracing::info!(from = ?before, to = ?self.phase, ?event, "incoming VM");
    }

    fn run(&mut self) -> Result<Incoming, MigrationError> {
        // What comes for the VM now is for the one that runs elsewhere.
        self.intake(Intake::Discard)?;
        self.greet()?;
        while self.phase == DestinationPhase::Receiving {
            self.receive_one()?;
        }
        let before_go = self.wait_for_go()?;
        self.take_over(before_go)
    }

    fn greet(&mut self) -> Result<(), MigrationError> {
        let at = MigrationError::at("comparing the two ends");
        let ours = Hello {
            vmm: env!("CARGO_PKG_VERSION").to_owned(),
            shape: self.vm.shape(),
            cpus: self.vm.cpu_model().clone(),
        };
        self.channel.send(Kind::Hello, &[&encode(&ours)]).map_err(&at)?;
        let theirs = super::source::expect(&mut self.channel, Kind::Hello, "its greeting", &at)?;
        let theirs: Hello = decode(theirs, "a greeting")?;
        // The source judges too, and knows the same; it is not trusted to.
        let mut unfit = theirs.shape.differences(&ours.shape);
        unfit.extend(theirs.cpus.missing_on(&ours.cpus));
        tracing::info!(vmm = readable(theirs.vmm.as_bytes()), "a VM comes");
        if unfit.is_empty() { Ok(()) } else { Err(MigrationError::Unfit(unfit)) }
    }

    /// Deals with one message before everything is in place.
    fn receive_one(&mut self) -> Result<(), MigrationError> {
        let at = MigrationError::at("receiving memory");
        let ram = self.vm.device_context().memory.ram();
        let (kind, body) = self.channel.receive().map_err(&at)?;
        match kind {
            Kind::Alive => {}
            Kind::Pages => write_pages(ram, body)?,
            Kind::Zeroes => write_zeroes(ram, body)?,
            Kind::RoundEnd => self.channel.send(Kind::RoundTaken, &[]).map_err(&at)?,
            Kind::Final if self.end.is_none() => {
                self.end = Some(decode(body, "the end of memory")?)
            }
            Kind::State => {
                let Some(end) = self.end else {
                    return Err(unexpected(kind, "the end of memory"));
                };
                // Restoring borrows nothing of the channel.
                let state = body.to_vec();
                if let Some(theirs) = end.memory {
                    let memory = &self.vm.device_context().memory;
                    let channel = &mut self.channel;
                    let alive = || channel.send(Kind::Alive, &[]);
                    let ours = pages::checksum(memory.ram(), memory.ranges(), alive);
                    let ours = ours.map_err(&at)?;
                    if ours != theirs {
                        return Err(MigrationError::MemoryDiffers { ours, theirs });
                    }
                }
                self.vm.restore(&state)?;
                self.step(DestinationEvent::Restored);
                self.channel.send(Kind::Ready, &[]).map_err(&at)?;
            }
            Kind::GiveUp => {
                return Err(MigrationError::Peer(readable(body)));
            }
            _ => return Err(unexpected(kind, "memory")),
        }
        Ok(())
    }

    /// Collects what the source hands over until it says *go*.
    fn wait_for_go(&mut self) -> Result<Vec<Vec<Arrival>>, MigrationError> {
        let at = MigrationError::at("waiting for the hand-over");
        loop {
            let (kind, body) = self.channel.receive().map_err(&at)?;
            match kind {
                Kind::Go => return Ok(std::mem::take(&mut self.late)),
                Kind::Arrivals => {
                    let arrivals = decode(body, "arrivals")?;
                    self.keep(arrivals)?;
                }
                Kind::GiveUp => {
                    return Err(MigrationError::Peer(readable(body)));
                }
                _ => return Err(unexpected(kind, "the hand-over")),
            }
        }
    }

    fn keep(&mut self, arrivals: DeviceArrivals) -> Result<(), MigrationError> {
        let name = arrivals.device;
        let index = self.devices.iter().position(|device| device.arrivals.id() == name);
        let Some(index) = index else {
            let got = format!("arrivals for `{name}`");
            return Err(MigrationError::Unexpected { got, expected: "a device of this VM" });
        };
        self.late_bytes += arrivals.units.iter().map(|unit| unit.0.len()).sum::<usize>();
        if self.late_bytes > LATE_BYTES {
            let got = "more arrivals than any card holds".to_owned();
            return Err(MigrationError::Unexpected { got, expected: "the hand-over" });
        }
        self.late[index].extend(arrivals.units.into_iter().map(|unit| unit.0));
        Ok(())
    }

    /// The VM is ours. Nothing can fail any more that would make it not run here.
    fn take_over(&mut self, before_go: Vec<Vec<Arrival>>) -> Result<Incoming, MigrationError> {
        let paused = self.end.is_some_and(|end| end.paused);
        self.step(DestinationEvent::Go);
        // They may have come here too, and still be on their way through this host.
        let seen = before_go.clone();
        let lost_before = lost(self.devices);
        for (device, arrivals) in self.devices.iter().zip(before_go) {
            let told = device
                .arrivals
                .set_intake(Intake::Discard)
                .and_then(|()| device.arrivals.set_intake(Intake::Hold))
                .and_then(|()| device.arrivals.deliver(arrivals))
                .and_then(|()| device.arrivals.announce());
            if let Err(error) = told {
                tracing::error!(device = device.arrivals.id(), %error, "take-over");
            }
        }
        let mut resumed = self.vm.unsuspend();
        if paused && resumed.is_ok() {
            resumed = self.vm.pause();
        }
        if let Err(error) = resumed {
            tracing::error!(error = crate::api::chain(&error), "the VM that came does not run");
        }
        (self.arrived)();
        if let Err(error) = self.channel.send(Kind::Running, &[]) {
            tracing::warn!(%error, "the source does not hear that the VM runs here");
        }
        self.finish_arrivals(seen, lost_before);
        if !paused {
            take_up(self.devices);
        }
        Ok(Incoming { paused })
    }

    /// Takes what still comes from the source, then lets the network's own in, without what was
    /// `seen` already.
    fn finish_arrivals(&mut self, seen: Vec<Vec<Arrival>>, lost_before: Option<u64>) {
        self.late = self.devices.iter().map(|_| Vec::new()).collect();
        let started = Instant::now();
        while started.elapsed() < LATE_LIMIT {
            let (kind, body) = match self.channel.receive() {
                Ok(message) => message,
                Err(error) => {
                    tracing::warn!(%error, "the source's last frames may be lost");
                    break;
                }
            };
            match (kind, body) {
                (Kind::Arrivals, body) => {
                    let kept = decode(body, "arrivals").and_then(|arrivals| self.keep(arrivals));
                    if let Err(error) = kept {
                        tracing::warn!(%error, "frames from the source");
                        break;
                    }
                }
                (kind, _) => {
                    self.settled = kind == Kind::End;
                    break;
                }
            }
        }
        let late = std::mem::take(&mut self.late);
        for ((device, late), seen) in self.devices.iter().zip(late).zip(seen) {
            if let Err(error) = device.arrivals.open_after(late, seen) {
                tracing::error!(device = device.arrivals.id(), %error, "the device stays deaf");
            }
        }
        let lost =
            lost(self.devices).zip(lost_before).map(|(now, before)| now.saturating_sub(before));
        if let Err(error) = self.channel.send(Kind::Done, &[&encode(&lost)]) {
            tracing::debug!(%error, "the source is gone");
        }
    }

    fn intake(&self, intake: Intake) -> Result<(), MigrationError> {
        for device in self.devices {
            device.arrivals.set_intake(intake).map_err(|source| MigrationError::Device {
                device: device.arrivals.id().to_owned(),
                source,
            })?;
        }
        Ok(())
    }
}

fn unexpected(kind: Kind, expected: &'static str) -> MigrationError {
    MigrationError::Unexpected { got: format!("{kind:?}"), expected }
}

fn word(body: &[u8], at: usize) -> Option<u64> {
    body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
}

/// Whether whole pages of RAM are at `gpa`.
fn check(ram: &GuestRam, gpa: u64, len: u64) -> Result<(), MigrationError> {
    let whole = gpa.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0;
    let fits = usize::try_from(len).is_ok_and(|len| ram.check_range(GuestAddress(gpa), len));
    if whole && fits { Ok(()) } else { Err(MigrationError::NotRam { gpa, len }) }
}

fn write_pages(ram: &GuestRam, body: &[u8]) -> Result<(), MigrationError> {
    let gpa = word(body, 0).ok_or_else(|| unexpected(Kind::Pages, "an address and pages"))?;
    let bytes = &body[8..];
    check(ram, gpa, bytes.len() as u64)?;
    let not_ram = |_| MigrationError::NotRam { gpa, len: bytes.len() as u64 };
    ram.write_slice(bytes, GuestAddress(gpa)).map_err(not_ram)
}

fn write_zeroes(ram: &GuestRam, body: &[u8]) -> Result<(), MigrationError> {
    let (Some(gpa), Some(len), 16) = (word(body, 0), word(body, 8), body.len()) else {
        return Err(unexpected(Kind::Zeroes, "an address and a length"));
    };
    check(ram, gpa, len)?;
    let zeroes = [0; PAGE as usize];
    for at in (gpa..gpa + len).step_by(PAGE as usize) {
        ram.write_slice(&zeroes, GuestAddress(at))
            .map_err(|_| MigrationError::NotRam { gpa, len })?;
    }
    Ok(())
}
