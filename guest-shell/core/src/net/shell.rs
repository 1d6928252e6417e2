//! What an operating system layer holds: one network interface.

use super::built_in::{BuiltIn, DeviceStatus, Facts};
use super::paths::{Paths, Poll};
use super::receive::Receiver;
use super::stats::Stats;
use super::steps::{NetSteps, WiredVectors};
use super::transmit::TxFifo;
use crate::handshake::{Link, Registers};
use crate::locked::{ControlCell, PathCell};
use crate::log::LogLine;
use crate::os::{LogLevel, NetOs, TxHandle};
use crate::switch::{Driver, ShellState, Steps};
use crate::virtio::{Commands, VirtioError};
use core::sync::atomic::{AtomicBool, Ordering};
use npa_abi::Class;
use npa_abi::net::{TxFrame, TxSegment};
use npa_abi::protocol::State;

/// How long `stop` waits for the host to take the VF away, in milliseconds; the host's own
/// deadlines are shorter.
const LEAVE_MS: u32 = 20_000;

/// How long the host may take to revoke a VF after a device reset, in milliseconds.
const RESET_REVOKE_MS: u32 = 5_000;

/// Frames discarded before an interface opens, per round.
const STALE_BUDGET: u32 = 64;

/// Rounds of that: more than a ring holds.
const STALE_ROUNDS: u32 = 32;

/// Why an interface could not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The virtio device does not work.
    Virtio(VirtioError),
    /// Not enough memory.
    NoMemory,
    /// The built-in plugin does not fit the device.
    Plugin,
    /// The interface is started already.
    Busy,
}

impl StartError {
    /// What happened, for the log.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Virtio(error) => error.message(),
            Self::NoMemory => "not enough memory",
            Self::Plugin => "built-in plugin does not fit the device",
            Self::Busy => "interface is started already",
        }
    }
}

impl From<VirtioError> for StartError {
    fn from(error: VirtioError) -> Self {
        Self::Virtio(error)
    }
}

/// What became of a frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// The shell has it and will answer with [`NetOs::tx_done`].
    Taken,
    /// No room: the caller keeps it and waits for [`NetOs::tx_wake`].
    Busy,
}

/// Name and version of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLabel {
    /// Name, zero-padded UTF-8.
    pub name: [u8; 32],
    /// Version, zero-padded UTF-8.
    pub version: [u8; 16],
}

impl PluginLabel {
    /// The name as text.
    pub fn name(&self) -> &str {
        text(&self.name)
    }

    /// The version as text.
    pub fn version(&self) -> &str {
        text(&self.version)
    }
}

fn text(field: &[u8]) -> &str {
    let length = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    field.get(..length).and_then(|text| core::str::from_utf8(text).ok()).unwrap_or("?")
}

/// What the control side keeps.
struct Control {
    built_in: Option<BuiltIn>,
    /// The device's control queue, as long as it answers.
    commands: Option<Commands>,
    link: Option<Link>,
    driver: Driver,
    vectors: WiredVectors,
}

/// A network interface. It must not be moved or dropped between [`NetShell::start`] and
/// [`NetShell::stop`].
pub struct NetShell<O: NetOs> {
    os: O,
    paths: PathCell<Option<Paths>>,
    control: ControlCell<Control>,
    link_up: AtomicBool,
}

impl<O: NetOs> NetShell<O> {
    /// An interface that is not started. Calls nothing.
    pub const fn new(os: O) -> Self {
        Self {
            os,
            paths: PathCell::new(None),
            control: ControlCell::new(Control {
                built_in: None,
                commands: None,
                link: None,
                driver: Driver::new(),
                vectors: None,
            }),
            link_up: AtomicBool::new(false),
        }
    }

    /// The operating system's side.
    pub const fn os(&self) -> &O {
        &self.os
    }

    /// Resets the device, brings the emulated path up, closed, and registers with the host where
    /// that is possible. Control side.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left allocated then.
    pub fn start(&self) -> Result<Facts, StartError> {
        self.control.try_with(|control| self.start_with(control)).ok_or(StartError::Busy)?
    }

    fn start_with(&self, control: &mut Control) -> Result<Facts, StartError> {
        if control.built_in.is_some() {
            return Err(StartError::Busy);
        }
        let os = &self.os;
        let built_in = BuiltIn::begin(os)?;
        let mac = built_in.mac(os);
        let [rx_entries, tx_entries] = built_in.entries(os)?;
        let frames = TxFifo::new(os, tx_entries).ok_or(StartError::NoMemory)?;
        let Some(receiver) = Receiver::new(os, mac) else {
            frames.free(os);
            return Err(StartError::NoMemory);
        };
        let opened = built_in.commands(os).and_then(|commands| {
            match built_in.open_path(os, commands.as_ref()) {
                Ok(path) => Ok((path, commands)),
                Err(error) => {
                    // The device may have been told of it.
                    if let Some(commands) = commands
                        && built_in.reset(os).is_ok()
                    {
                        commands.free(os);
                    }
                    Err(error)
                }
            }
        });
        let (path, commands) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                frames.free(os);
                receiver.free(os);
                return Err(error);
            }
        };
        self.paths.with(os, |paths| *paths = Some(Paths::new(path, frames, receiver)));
        let link_up = built_in.status(os).link_up;
        self.link_up.store(link_up, Ordering::Relaxed);
        let facts = Facts {
            mac,
            mtu: built_in.mtu(os),
            link_up,
            offloads: built_in.offloads(),
            rx_entries: rx_entries as u16,
            tx_entries: tx_entries as u16,
            accelerable: self.register(control),
        };
        control.built_in = Some(built_in);
        control.commands = commands;
        Ok(facts)
    }

    /// Registers with the host; a device where that does not work stays emulated.
    fn register(&self, control: &mut Control) -> bool {
        let os = &self.os;
        let (Some(registers), Some(landing)) = (Registers::find(os), os.landing()) else {
            return false;
        };
        match Link::register(os, registers, Class::Net, &landing) {
            Ok((link, generation)) => {
                control.driver.registered(generation);
                control.link = Some(link);
                // The host may have begun an attach at once.
                os.schedule_event();
                true
            }
            Err(error) => {
                LogLine::new("npa: not registered, stays emulated: ")
                    .text(error.message())
                    .write(os, LogLevel::Error);
                false
            }
        }
    }

    /// Received frames are delivered from now on; what came before is dropped. Control side.
    pub fn open(&self) {
        let os = &self.os;
        for _ in 0..STALE_ROUNDS {
            let poll = self.with(|paths| paths.poll(os, STALE_BUDGET));
            if poll.is_none_or(|poll| poll.done == 0) {
                break;
            }
        }
        self.with(|paths| paths.receiver.set_open(true));
        os.schedule_poll();
    }

    /// Received frames are dropped from now on; nobody polls any more but the event function.
    /// Control side.
    pub fn close(&self) {
        self.with(|paths| paths.receiver.set_open(false));
        self.os.schedule_event();
    }

    /// Looks at the device and goes on with whatever is under way. To be called after the
    /// configuration interrupt and after [`crate::os::Os::schedule_event`]; answers whether to
    /// call it again in about a millisecond. Control side.
    pub fn on_event(&self) -> bool {
        self.control.try_with(|control| self.event_with(control, false)).unwrap_or(true)
    }

    fn event_with(&self, control: &mut Control, leaving: bool) -> bool {
        let os = &self.os;
        let Control { built_in: Some(built_in), commands, link, driver, vectors } = control else {
            return false;
        };
        let DeviceStatus { link_up, announce } = built_in.status(os);
        if self.link_up.swap(link_up, Ordering::Relaxed) != link_up {
            os.link_changed(link_up);
        }
        if announce && let Some(commands) = commands {
            self.announce(built_in, commands);
        }
        let mut again = false;
        if let Some(link) = link {
            let mut steps = NetSteps { os, paths: &self.paths, link, vectors };
            again = driver.run(os, link, &mut steps, leaving);
        }
        if self.with(|paths| paths.is_starved()) == Some(true) {
            os.schedule_poll();
            again = true;
        }
        again
    }

    /// Has the network told where the interface is, as the device asks.
    fn announce(&self, built_in: &BuiltIn, commands: &mut Commands) {
        if commands.is_retired() {
            return;
        }
        self.os.announce();
        self.with(|paths| paths.count_announcement());
        if let Err(error) = built_in.announced(&self.os, commands) {
            // It would ask for ever.
            commands.retire();
            LogLine::new("npa: no more announcements, the device was told of one: ")
                .text(error.message())
                .write(&self.os, LogLevel::Error);
        }
    }

    /// One round of receiving up to `budget` frames and of completing sent ones. Data path.
    pub fn poll(&self, budget: u32) -> Poll {
        self.with(|paths| paths.poll(&self.os, budget)).unwrap_or(Poll { done: 0, again: false })
    }

    /// Takes a frame to send. `frame.segments` and `frame.segment_count` are ignored in favour of
    /// `segments`, 1 to [`npa_abi::net::TX_SEGMENTS_MAX`], which need to live during the call
    /// only. With `more` the caller promises another frame soon, which allows one doorbell for
    /// both. Data path.
    pub fn transmit(
        &self,
        frame: &TxFrame,
        segments: &[TxSegment],
        handle: TxHandle,
        more: bool,
    ) -> Transmit {
        let taken = self.with(|paths| paths.transmit(&self.os, frame, segments, handle, more));
        if taken == Some(true) { Transmit::Taken } else { Transmit::Busy }
    }

    /// Leaves the VF, if any, and the host, resets the device and frees everything. To be called
    /// on a closed interface, when nothing else will be called any more. Control side; sleeps.
    pub fn stop(&self) {
        if self.control.try_with(|control| self.stop_with(control)).is_none() {
            self.os.log(LogLevel::Error, "npa: stop while an event is handled, nothing freed");
        }
    }

    fn stop_with(&self, control: &mut Control) {
        let os = &self.os;
        for _ in 0..LEAVE_MS {
            self.event_with(control, true);
            if control.driver.state() == ShellState::Unregistered {
                break;
            }
            os.sleep_ms(1);
        }
        let Some(built_in) = control.built_in.take() else { return };
        let reset = built_in.reset(os).is_ok();
        let left = self.take_vf_away(control);
        let Some(paths) = self.paths.with(os, Option::take) else { return };
        let (path, frames, receiver) = paths.take_apart(os);
        frames.free(os);
        receiver.free(os);
        if reset {
            path.free(os);
            if let Some(commands) = control.commands.take() {
                commands.free(os);
            }
        } else {
            // Better to lose the memory than to have a device write into somebody else's.
            os.log(LogLevel::Error, "npa: device did not reset, its memory is not freed");
        }
        if left && let Some(link) = control.link.take() {
            link.free(os);
        }
    }

    /// After the reset: answers whether the host has forgotten the shell, and frees what a VF
    /// used. A VF is still there only if the host did not answer before.
    fn take_vf_away(&self, control: &mut Control) -> bool {
        let os = &self.os;
        let Control { link, driver, vectors, .. } = control;
        let Some(link) = link else { return true };
        if driver.state() == ShellState::Unregistered {
            return true;
        }
        for _ in 0..RESET_REVOKE_MS {
            let gone = match link.observe(os) {
                Some(view) => matches!(view.state, State::Emulated | State::Failed),
                None => true,
            };
            if gone || link.revoked() == driver.generation() {
                NetSteps { os, paths: &self.paths, link, vectors }.give_up();
                return true;
            }
            os.sleep_ms(1);
        }
        os.log(LogLevel::Error, "npa: host does not take the vf away, its memory is not freed");
        false
    }

    /// The counters since start.
    pub fn stats(&self) -> Stats {
        self.with(|paths| paths.stats()).unwrap_or_default()
    }

    /// Whether the link is up.
    pub fn link_up(&self) -> bool {
        self.link_up.load(Ordering::Relaxed)
    }

    /// The plugin through which frames are sent at present.
    pub fn plugin(&self) -> PluginLabel {
        self.with(|paths| paths.label()).flatten().unwrap_or(PluginLabel {
            name: virtio_net_plugin::HEADER.name,
            version: virtio_net_plugin::HEADER.version,
        })
    }

    /// Where the switch stands; `None` while an event is being handled.
    pub fn switch_state(&self) -> Option<ShellState> {
        self.control.try_with(|control| control.driver.state())
    }

    fn with<R>(&self, work: impl FnOnce(&mut Paths) -> R) -> Option<R> {
        self.paths.with(&self.os, |paths| paths.as_mut().map(work))
    }
}
