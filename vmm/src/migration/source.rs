//! The end that a VM moves away from. Runs on a thread of its own; whatever fails before *go*, the
//! VM goes on here as if nothing had been.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::MovingDevice;
use super::channel::{Channel, ChannelError};
use super::error::MigrationError;
use super::message::{
    ARRIVALS_MAX, DeviceArrivals, Final, Hello, Kind, Unit, decode, encode, readable,
};
use super::pages::{self, PageSink};
use super::phase::{SourceEvent, SourcePhase};
use super::precopy::{Convergence, Decision, Fallback, Policy, Round};
use super::progress::{Progress, Report, RoundReport, ms};
use super::transport::{self, Endpoint, Identity, Limited};
use crate::virtio::{Arrival, Intake};
use crate::vm::dirty::PAGE;
use crate::vm::{PageSet, RunState, Throttle, Vm};

/// How long after the last frame that came here the network is taken to know where the VM is.
const QUIET: Duration = Duration::from_millis(2);
/// How long that is waited for at most. A network that floods never is quiet; what comes here then
/// goes there too, where copies are told from new frames.
const QUIET_AT_MOST: Duration = Duration::from_millis(20);

/// How often the other end hears that this one is alive while there is nothing to send.
const ALIVE: Duration = Duration::from_secs(1);

/// How a VM is to be moved.
#[derive(Clone)]
pub struct MigrateOptions {
    /// Where to.
    pub to: Endpoint,
    /// For `tls:` addresses.
    pub identity: Option<Identity>,
    /// When to stop it.
    pub policy: Policy,
    /// When devices give up their VFs.
    pub fallback: Fallback,
    /// Bytes per second at most.
    pub bandwidth: Option<u64>,
    /// Whether memory is compared at both ends before the VM runs there; the stop takes longer.
    pub verify: bool,
}

/// Moves `vm` with its `devices`. On success it is held for good, and [`Vm::hand_over`] ends it.
///
/// # Errors
/// [`MigrationError`]; the VM goes on here, except after [`MigrationError::InDoubt`].
pub fn migrate(
    vm: &Vm,
    devices: &[MovingDevice],
    options: &MigrateOptions,
    progress: &Progress,
) -> Result<Report, MigrationError> {
    progress.begin(options.to.to_string())?;
    let mut source = Source {
        vm,
        devices,
        progress,
        phase: SourcePhase::Checking,
        began: Instant::now(),
        fell_back: None,
        kept: Vec::new(),
        lost_before: None,
        report: Report { to: options.to.to_string(), ..Report::default() },
    };
    let outcome = source.run(options);
    let outcome = source.settle(outcome);
    progress.end(&outcome);
    outcome
}

struct Source<'a> {
    vm: &'a Vm,
    devices: &'a [MovingDevice],
    progress: &'a Progress,
    phase: SourcePhase,
    began: Instant,
    /// When the first device lost its VF.
    fell_back: Option<Instant>,
    /// What arrived here and was sent, as long as the VM may still stay.
    kept: Vec<Vec<Arrival>>,
    /// What had been lost here when the move began.
    lost_before: Option<u64>,
    report: Report,
}

impl Source<'_> {
    fn step(&mut self, event: SourceEvent) {
        let before = self.phase;
        self.phase = before.after(event);
        if before != self.phase {
            let after_ms = self.began.elapsed().as_millis() as u64;
            tracing::info!(from = %before, to = %self.phase, ?event, after_ms, "migration");
            self.progress.phase(self.phase.name(), self.phase.can_cancel());
        }
    }

    fn run(&mut self, options: &MigrateOptions) -> Result<(), MigrationError> {
        self.progress.phase(self.phase.name(), true);
        let stream = transport::connect(&options.to, options.identity.as_ref())?;
        let stream = match options.bandwidth {
            Some(limit) => Box::new(Limited::new(stream, limit)),
            None => stream,
        };
        let mut channel = Channel::open(stream).map_err(MigrationError::at("greeting"))?;
        self.check(&mut channel)?;
        self.step(SourceEvent::Agreed);
        self.lost_before = lost(self.devices);
        let early = |device: &MovingDevice| {
            options.fallback == Fallback::Early || !device.accelerated.marks_writes()
        };
        self.fall_back(&mut channel, &early)?;
        self.step(SourceEvent::FellBack);
        self.vm.start_dirty_log()?;
        self.devices.iter().for_each(|device| device.accelerated.log_began());
        let rest = self.copy(&mut channel, options)?;
        self.stop(&mut channel, &rest, options.verify)?;
        self.follow(&mut channel);
        Ok(())
    }

    /// Sees to it that the VM is where the phase says, and that nothing is left behind.
    fn settle(&mut self, outcome: Result<(), MigrationError>) -> Result<Report, MigrationError> {
        let Err(error) = outcome else {
            self.report.total_ms = ms(self.began.elapsed());
            return Ok(std::mem::take(&mut self.report));
        };
        self.step(match &error {
            MigrationError::Channel { source: ChannelError::Silent, .. } => SourceEvent::PeerSilent,
            MigrationError::Channel { source, .. } if source.proves_death() => {
                SourceEvent::PeerDied
            }
            MigrationError::Peer(_) => SourceEvent::PeerDied,
            _ => SourceEvent::GaveUp,
        });
        if let Err(error) = self.vm.stop_dirty_log() {
            tracing::warn!(error = crate::api::chain(&error), "dirty log");
        }
        let mut kept = std::mem::take(&mut self.kept).into_iter();
        for device in self.devices {
            let card = &device.arrivals;
            // What was sent in vain is older than what came since, and goes on coming.
            let restored = card
                .put_back(kept.next().unwrap_or_default())
                .and_then(|()| card.set_intake(Intake::Open));
            if let Err(error) = restored {
                tracing::warn!(device = card.id(), %error, "frames are lost");
            }
        }
        if self.phase == SourcePhase::InDoubt {
            tracing::error!(error = crate::api::chain(&error), "migration in doubt");
            // Its operator may let the VM go on, and give it a VF.
            self.devices.iter().for_each(|device| device.accelerated.let_be());
            return Err(MigrationError::InDoubt);
        }
        // A VM that has ended meanwhile does not go on.
        if let Err(error) = self.vm.unsuspend() {
            tracing::warn!(error = crate::api::chain(&error), "the VM does not go on");
        } else {
            take_up(self.devices);
        }
        tracing::warn!(error = crate::api::chain(&error), "the VM stays");
        Err(error)
    }

    fn check(&self, channel: &mut Channel) -> Result<(), MigrationError> {
        let at = MigrationError::at("comparing the two ends");
        let ours = Hello {
            vmm: env!("CARGO_PKG_VERSION").to_owned(),
            shape: self.vm.shape(),
            cpus: self.vm.cpu_model().clone(),
        };
        channel.send(Kind::Hello, &[&encode(&ours)]).map_err(&at)?;
        let theirs: Hello =
            decode(expect(channel, Kind::Hello, "its greeting", &at)?, "a greeting")?;
        let mut unfit = ours.shape.differences(&theirs.shape);
        let missing = ours.cpus.missing_on(&theirs.cpus);
        if !missing.is_empty() {
            unfit.push(format!("its host lacks {}", missing.join(", ")));
        }
        if unfit.is_empty() {
            return Ok(());
        }
        let error = MigrationError::Unfit(unfit);
        give_up(channel, &error);
        Err(error)
    }

    /// Takes the VFs of all devices that are `chosen` away. The other end is told now and then that
    /// this takes its time. Answers whether all that VFs wrote to memory is in the dirty log.
    fn fall_back(
        &mut self,
        channel: &mut Channel,
        chosen: &dyn Fn(&MovingDevice) -> bool,
    ) -> Result<bool, MigrationError> {
        let at = MigrationError::at("falling back");
        let mut logged = true;
        for device in self.devices.iter().filter(|device| chosen(device)) {
            let started = Instant::now();
            let accelerated = Arc::clone(&device.accelerated);
            let detaching = std::thread::spawn(move || accelerated.fall_back());
            let mut told = Instant::now();
            while !detaching.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
                if told.elapsed() >= ALIVE {
                    channel.send(Kind::Alive, &[]).map_err(&at)?;
                    told = Instant::now();
                }
            }
            let name = device.arrivals.id();
            match detaching.join() {
                Ok(Ok(fell)) => {
                    logged &= fell.logged;
                    if fell.had_vf {
                        self.fell_back = self.fell_back.or(Some(started));
                    }
                }
                Ok(Err(source)) => {
                    let error = MigrationError::Fallback { device: name.to_owned(), source };
                    give_up(channel, &error);
                    return Err(error);
                }
                // Its own panic is reported by the thread.
                Err(_) => return Err(MigrationError::Cancelled),
            }
            self.progress.check().inspect_err(|error| give_up(channel, error))?;
        }
        Ok(logged)
    }

    /// Copies memory until little enough is left; returns what that is.
    fn copy(
        &mut self,
        channel: &mut Channel,
        options: &MigrateOptions,
    ) -> Result<PageSet, MigrationError> {
        let throttle = Throttle::default();
        let vm = self.vm;
        std::thread::scope(|scope| {
            if options.policy.throttle {
                scope.spawn(|| vm.slow_down(&throttle));
            }
            let rest = self.copy_until_settled(channel, options, &throttle);
            throttle.end();
            rest
        })
    }

    fn copy_until_settled(
        &mut self,
        channel: &mut Channel,
        options: &MigrateOptions,
        throttle: &Throttle,
    ) -> Result<PageSet, MigrationError> {
        let at = MigrationError::at("copying memory");
        let began = Instant::now();
        let mut convergence = Convergence::new(options.policy);
        let memory = &self.vm.device_context().memory;
        let mut pages = PageSet::all(memory.ranges());
        let mut emulated = false;
        let rest = loop {
            let round = convergence.rounds() + 1;
            self.progress.round(round, pages.bytes(), convergence.rate());
            let started = Instant::now();
            let before = channel.bytes_sent();
            let mut sink = ChannelSink::new(channel, self.progress, round == 1);
            sink.limit = options.policy.limit(began, round);
            let copied = pages::copy(memory.ram(), &pages, &mut sink)?;
            channel.send(Kind::RoundEnd, &[]).map_err(&at)?;
            // What is on its way is not carried yet.
            expect(channel, Kind::RoundTaken, "the end of a round", &at)?;
            let mut dirty = self.vm.take_dirty()?;
            let took = started.elapsed();
            self.report.rounds.push(RoundReport {
                ms: ms(took),
                pages: copied.pages,
                zero_pages: copied.zeroes,
                dirty_pages: dirty.len(),
            });
            let sent = channel.bytes_sent() - before;
            let seen = Round { sent, took, dirty: dirty.bytes() };
            let decision = convergence.after(seen, began.elapsed());
            tracing::info!(round, pages = copied.pages, dirty = dirty.len(), ?decision, "copied");
            match decision {
                Decision::Stop if emulated => break dirty,
                // Now, for the last pass or two.
                Decision::Stop => {
                    emulated = true;
                    self.progress.phase(SourcePhase::FallingBack.name(), true);
                    let logged = self.fall_back(channel, &|_| true)?;
                    self.progress.phase(self.phase.name(), true);
                    let had_vf = self.fell_back.is_some_and(|since| since > began);
                    if !logged {
                        tracing::warn!("a VF was lost, and what it wrote is not known: all again");
                        dirty = PageSet::all(memory.ranges());
                    } else if !had_vf {
                        break dirty;
                    }
                    dirty.merge(&self.vm.take_dirty()?);
                }
                Decision::Again => {}
                Decision::Slower(percent) => throttle.set(percent),
                Decision::GiveUp => {
                    let error = MigrationError::NotConverging {
                        elapsed: began.elapsed(),
                        rounds: convergence.rounds(),
                        estimate: convergence.estimate(dirty.bytes()),
                        target: options.policy.downtime_target,
                        written: convergence.written() / 1_000_000,
                        carried: convergence.rate().unwrap_or(0.0) as u64 / 1_000_000,
                    };
                    give_up(channel, &error);
                    return Err(error);
                }
            }
            pages = dirty;
        };
        self.report.precopy_ms = ms(began.elapsed());
        Ok(rest)
    }

    /// The stop: from here on, every millisecond counts.
    fn stop(
        &mut self,
        channel: &mut Channel,
        rest: &PageSet,
        verify: bool,
    ) -> Result<(), MigrationError> {
        let at = MigrationError::at("the stop");
        let mut clock = Stopwatch::new();
        let stopped = clock.last;
        let paused = self.vm.state() == RunState::Paused;
        self.vm.suspend()?;
        self.step(SourceEvent::Stopped);
        let brownout = self.fell_back.map_or(Duration::ZERO, |since| stopped - since);
        self.report.brownout_ms = ms(brownout);
        for device in self.devices {
            device.arrivals.set_intake(Intake::Keep).map_err(|source| MigrationError::Device {
                device: device.arrivals.id().to_owned(),
                source,
            })?;
        }
        self.report.stop.hold_ms = clock.lap();

        let memory = &self.vm.device_context().memory;
        let mut last = self.vm.take_dirty()?;
        last.merge(rest);
        self.progress.round(self.report.rounds.len() as u32 + 1, last.bytes(), None);
        let copied =
            pages::copy(memory.ram(), &last, &mut ChannelSink::new(channel, self.progress, false))?;
        self.report.last_pages = copied.pages + copied.zeroes;
        self.report.stop.memory_ms = clock.lap();
        let checksum = verify
            .then(|| {
                pages::checksum(memory.ram(), memory.ranges(), || channel.send(Kind::Alive, &[]))
            })
            .transpose()
            .map_err(&at)?;
        self.report.stop.verify_ms = if verify { clock.lap() } else { 0.0 };

        let end = Final { paused, memory: checksum };
        channel.send(Kind::Final, &[&encode(&end)]).map_err(&at)?;
        let state = self.vm.save()?;
        channel.send(Kind::State, &[&state]).map_err(&at)?;
        self.report.stop.state_ms = clock.lap();
        expect(channel, Kind::Ready, "word that it is ready", &at)?;
        self.report.verified = verify;
        self.report.stop.restore_ms = clock.lap();

        self.hand_arrivals_over(channel, true).map_err(&at)?;
        self.progress.check().inspect_err(|error| give_up(channel, error))?;
        self.step(SourceEvent::PeerReady);
        let at = MigrationError::at("the hand-over");
        channel.send(Kind::Go, &[]).map_err(&at)?;
        expect(channel, Kind::Running, "word that the VM runs", &at)?;
        self.step(SourceEvent::PeerRunning);
        self.kept.clear();
        self.report.stop.start_ms = clock.lap();
        self.report.downtime_ms = ms(clock.last - stopped);
        Ok(())
    }

    /// Sends what came to this end and the guest has not got, since its devices hold; keeps it if the
    /// VM may stay.
    fn hand_arrivals_over(
        &mut self,
        channel: &mut Channel,
        keep: bool,
    ) -> Result<u64, ChannelError> {
        let mut count = 0;
        for device in self.devices {
            let name = device.arrivals.id();
            let arrivals = device.arrivals.collect().unwrap_or_else(|error| {
                tracing::warn!(device = name, %error, "frames that came here are lost");
                Vec::new()
            });
            count += arrivals.len() as u64;
            let kept = if keep { arrivals.clone() } else { Vec::new() };
            self.kept.push(kept);
            let mut units = Vec::new();
            let mut bytes = 0;
            for arrival in arrivals {
                bytes += arrival.len();
                units.push(Unit(arrival));
                if bytes >= ARRIVALS_MAX / 2 {
                    send_units(channel, name, std::mem::take(&mut units))?;
                    bytes = 0;
                }
            }
            if !units.is_empty() {
                send_units(channel, name, units)?;
            }
        }
        self.report.handed_over += count;
        Ok(count)
    }

    /// Sends what still comes here, until the network knows where the VM is now. The VM is there,
    /// so nothing that fails here is an error any more.
    fn follow(&mut self, channel: &mut Channel) {
        let started = Instant::now();
        let mut last = started;
        let followed = loop {
            match self.hand_arrivals_over(channel, false) {
                Ok(0) => {}
                Ok(_) => last = Instant::now(),
                Err(error) => break Err(error),
            }
            if last.elapsed() >= QUIET || started.elapsed() >= QUIET_AT_MOST {
                break channel.send(Kind::End, &[]);
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let lost_here = lost(self.devices)
            .zip(self.lost_before)
            .map(|(now, before)| now.saturating_sub(before));
        let at = MigrationError::at("the last frames");
        let lost_there = followed.map_err(&at).and_then(|()| {
            decode::<Option<u64>>(expect(channel, Kind::Done, "the end", &at)?, "a count")
        });
        match lost_there {
            Ok(there) => {
                let both = lost_here.zip(there).map(|(here, there)| here.saturating_add(there));
                self.report.frames_lost = both;
            }
            Err(error) => {
                let error = crate::api::chain(&error);
                tracing::warn!(error, "the last frames may not have reached the VM");
            }
        }
        self.report.bytes = channel.bytes_sent();
        self.step(SourceEvent::Followed);
    }
}

/// What `devices` have dropped so far, if all of them count it.
pub(super) fn lost(devices: &[MovingDevice]) -> Option<u64> {
    devices.iter().map(|device| device.arrivals.lost().ok().flatten()).sum()
}

/// How long a guest may take to get what came in a stop, before it is given a VF all the same.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Gives VFs to the devices that had one, once their guest has got what came in the stop: a switch
/// would wait for that too, but not for long.
pub(super) fn take_up(devices: &[MovingDevice]) {
    let deadline = Instant::now() + CATCH_UP;
    for device in devices {
        let name = device.arrivals.id();
        while device.arrivals.undelivered().is_ok_and(|count| count > 0)
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        match device.accelerated.take_up() {
            Ok(true) => tracing::info!(device = name, "on a VF again"),
            Ok(false) => {}
            Err(error) => tracing::warn!(device = name, %error, "the device stays emulated"),
        }
    }
}

fn send_units(channel: &mut Channel, name: &str, units: Vec<Unit>) -> Result<(), ChannelError> {
    let message = DeviceArrivals { device: name.to_owned(), units };
    channel.send(Kind::Arrivals, &[&encode(&message)])
}

/// Tells the other end why; if that fails, it sees the connection end.
pub(super) fn give_up(channel: &mut Channel, error: &MigrationError) {
    let text = readable(crate::api::chain(error).as_bytes());
    let _ = channel.send(Kind::GiveUp, &[text.as_bytes()]);
}

/// The body of the next message, which is to be of `kind`.
pub(super) fn expect<'a>(
    channel: &'a mut Channel,
    kind: Kind,
    expected: &'static str,
    at: &impl Fn(ChannelError) -> MigrationError,
) -> Result<&'a [u8], MigrationError> {
    let (got, body) = channel.receive_word().map_err(at)?;
    if got == kind {
        return Ok(body);
    }
    if got == Kind::GiveUp {
        return Err(MigrationError::Peer(readable(body)));
    }
    Err(MigrationError::Unexpected { got: format!("{got:?}"), expected })
}

/// Sends pages, tells how far it is, and stops when it is asked to.
struct ChannelSink<'a> {
    channel: &'a mut Channel,
    progress: &'a Progress,
    /// The other end's memory is zero where nothing was sent yet.
    first: bool,
    began: Instant,
    sent: u64,
    /// When to give up, and how long that was to take.
    limit: Option<(Instant, Duration)>,
}

impl<'a> ChannelSink<'a> {
    fn new(channel: &'a mut Channel, progress: &'a Progress, first: bool) -> Self {
        Self { channel, progress, first, began: Instant::now(), sent: 0, limit: None }
    }

    fn send(&mut self, kind: Kind, parts: &[&[u8]], covers: u64) -> Result<(), MigrationError> {
        if let Err(error) = self.progress.check() {
            give_up(self.channel, &error);
            return Err(error);
        }
        if let Some((_, timeout)) = self.limit.filter(|(at, _)| Instant::now() >= *at) {
            let seconds = self.began.elapsed().as_secs_f64();
            let carried = self.sent as f64 / seconds / 1e6;
            let error = MigrationError::TooSlow { timeout, carried };
            give_up(self.channel, &error);
            return Err(error);
        }
        if let Err(error) = self.channel.send(kind, parts) {
            // Whoever closes a connection has said why before, if there was time to.
            return Err(match self.channel.receive() {
                Ok((Kind::GiveUp, text)) => MigrationError::Peer(readable(text)),
                _ => MigrationError::at("copying memory")(error),
            });
        }
        self.sent += covers;
        let rate = self.sent as f64 / self.began.elapsed().as_secs_f64().max(1e-6);
        self.progress.done(covers, rate);
        Ok(())
    }
}

impl PageSink for ChannelSink<'_> {
    fn pages(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), MigrationError> {
        self.send(Kind::Pages, &[&gpa.to_le_bytes(), bytes], bytes.len() as u64)
    }

    fn zeroes(&mut self, gpa: u64, len: u64) -> Result<(), MigrationError> {
        if self.first {
            self.progress.done(len, 0.0);
            return self.progress.check().inspect_err(|error| give_up(self.channel, error));
        }
        debug_assert!(len.is_multiple_of(PAGE));
        self.send(Kind::Zeroes, &[&gpa.to_le_bytes(), &len.to_le_bytes()], len)
    }
}

struct Stopwatch {
    last: Instant,
}

impl Stopwatch {
    fn new() -> Self {
        Self { last: Instant::now() }
    }

    /// Milliseconds since the last lap.
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let lap = ms(now - self.last);
        self.last = now;
        lap
    }
}
