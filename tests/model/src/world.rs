//! The world between the three state machines, and what can happen in it.

use npa_abi::protocol::State;
use pf_control::lease::{LeaseEffect, LeaseEvent, LeaseState};
use shell_core::switch::ShellState;
use vmm::npa::switch::{Phase, Switch, SwitchEvent, Work};

/// Frames of the stream, each way.
pub const FRAMES: u8 = 2;

/// How often the outside may interfere; every deed of that kind takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Attaches by the operator.
    pub attaches: u8,
    /// Detaches by the operator.
    pub detaches: u8,
    /// Deadlines that pass while the guest has its turn.
    pub deadlines: u8,
    /// Host actions that fail.
    pub host_faults: u8,
    /// Shell steps that fail.
    pub shell_faults: u8,
    /// VF losses.
    pub vf_losses: u8,
    /// Deaths of pf-control, each followed by a restart some time.
    pub daemon_deaths: u8,
    /// Device resets by the guest, shell gone.
    pub guest_resets: u8,
    /// Unloads of the shell.
    pub unloads: u8,
    /// Deaths of the VMM.
    pub vmm_deaths: u8,
}

/// What one step of the exploration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// The operator attaches.
    Attach,
    /// The operator detaches.
    Detach,
    /// The VMM does its next action.
    HostStep,
    /// The VMM's next action fails.
    HostStepFails,
    /// The guest's deadline passes.
    Deadline,
    /// The VF is lost.
    VfLost,
    /// pf-control dies.
    DaemonDies,
    /// pf-control comes back.
    DaemonStarts,
    /// The VMM dies.
    VmmDies,
    /// The shell registers.
    ShellRegisters,
    /// The shell reads state register and revoked word.
    ShellLooks,
    /// The shell's step ends.
    ShellStepDone,
    /// The shell's step fails.
    ShellStepFails,
    /// The shell wants to leave.
    ShellUnloads,
    /// The guest is reset.
    GuestReset,
    /// The next frame comes from the wire.
    FrameIn,
    /// The VMM moves a frame from the tap to the guest's ring.
    TapToRing,
    /// The guest takes a frame from its emulated ring.
    TakeEmulated,
    /// The guest takes a frame from the VF's ring.
    TakeVf,
    /// The guest's stack sends its next frame.
    FrameOut,
    /// The VMM sends a frame of the emulated ring to the wire.
    SendEmulated,
    /// The VF sends a frame of its ring to the wire.
    SendVf,
}

impl Deed {
    /// All deeds.
    pub const ALL: [Self; 22] = [
        Self::Attach,
        Self::Detach,
        Self::HostStep,
        Self::HostStepFails,
        Self::Deadline,
        Self::VfLost,
        Self::DaemonDies,
        Self::DaemonStarts,
        Self::VmmDies,
        Self::ShellRegisters,
        Self::ShellLooks,
        Self::ShellStepDone,
        Self::ShellStepFails,
        Self::ShellUnloads,
        Self::GuestReset,
        Self::FrameIn,
        Self::TapToRing,
        Self::TakeEmulated,
        Self::TakeVf,
        Self::FrameOut,
        Self::SendEmulated,
        Self::SendVf,
    ];
}

/// A few numbered frames in order, as bits: a queue of at most [`FRAMES`] frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Queue {
    frames: [u8; FRAMES as usize],
    length: u8,
}

impl Queue {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends a frame.
    pub fn push(&mut self, frame: u8) {
        self.frames[self.length as usize] = frame;
        self.length += 1;
    }

    /// Takes the oldest frame.
    pub fn pop(&mut self) -> Option<u8> {
        if self.is_empty() {
            return None;
        }
        let frame = self.frames[0];
        self.frames.rotate_left(1);
        self.length -= 1;
        self.frames[self.length as usize] = 0;
        Some(frame)
    }

    /// Moves everything to the end of `to`.
    pub fn pour(&mut self, to: &mut Self) {
        while let Some(frame) = self.pop() {
            to.push(frame);
        }
    }
}

/// One end of a numbered stream: what arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Arrivals {
    /// Number of the newest frame that arrived.
    pub newest: u8,
    /// How many arrived, copies included.
    pub count: u8,
    /// A frame arrived after a newer one.
    pub reordered: bool,
    /// A frame arrived twice.
    pub duplicated: bool,
}

impl Arrivals {
    /// Notes an arrival. Frames count from 1.
    pub fn arrive(&mut self, frame: u8) {
        self.count += 1;
        if frame == self.newest {
            self.duplicated = true;
        } else if frame < self.newest {
            self.reordered = true;
        }
        self.newest = self.newest.max(frame);
    }
}

/// What fills the landing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Landing {
    /// `int3`.
    Fill,
    /// A plugin's image, written for this offer.
    Image(u32),
}

/// Where the guest's stack sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// To the emulated ring.
    Emulated,
    /// To the VF.
    Vf,
    /// Nowhere: it waits.
    Stopped,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// What may still happen.
    pub budget: Budget,
    /// The VMM's machine.
    pub switch: Switch,
    /// The VMM's work and how far it is.
    pub work: Option<(Work, u8)>,
    /// The VMM lives.
    pub vmm: bool,
    /// The VF is open in the VMM.
    pub vf_open: bool,
    /// The VF may read and write guest memory.
    pub vf_dma: bool,
    /// The plugin told this VF where its rings are.
    pub vf_programmed: bool,
    /// The VF is there.
    pub vf_there: bool,
    /// The window shows the VF.
    pub window: bool,
    /// The landing.
    pub landing: Landing,
    /// The revoked word.
    pub revoked: u32,
    /// The daemon's machine.
    pub lease: LeaseState,
    /// The daemon lives.
    pub daemon: bool,
    /// The VMM owes the daemon a release.
    pub release_owed: bool,
    /// The VF has the guest's address.
    pub address_at_vf: bool,
    /// The bridge forwards the guest's address to the uplink.
    pub forward_to_vf: bool,
    /// The shell's machine.
    pub shell: ShellState,
    /// The offer that the shell adopted.
    pub adopted: u32,
    /// The shell's present step has begun.
    pub shell_step: bool,
    /// The shell wants to leave.
    pub leaving: bool,
    /// The shell asked for a detach and was not answered yet.
    pub detach_asked: bool,
    /// The plugin may be running, or be called.
    pub in_plugin: bool,
    /// The shell's rings for the VF are allocated.
    pub rings: bool,
    /// VF receive is held.
    pub vf_held: bool,
    /// Emulated receive is held.
    pub emulated_held: bool,
    /// Where the stack's frames go.
    pub route: Route,
    /// The stream from the wire: next number, what is where, what arrived.
    pub next_in: u8,
    /// Frames at the tap.
    pub tap: Queue,
    /// Frames in the guest's emulated ring.
    pub ring_in: Queue,
    /// Frames in the VF's ring.
    pub vf_in: Queue,
    /// What the guest's stack got.
    pub got: Arrivals,
    /// The stream to the wire.
    pub next_out: u8,
    /// Frames in the emulated transmit ring.
    pub ring_out: Queue,
    /// Frames in the VF's transmit ring, not sent.
    pub vf_out: Queue,
    /// Frames in the VF's transmit ring, sent but not yet seen as complete.
    pub vf_done: Queue,
    /// What the wire got.
    pub sent: Arrivals,
    /// The VF was taken away by force, or the guest was reset: frames may be lost or copied.
    pub forced: bool,
    /// The guest was reset: what its stack had is gone.
    pub guest_reset: bool,
    /// A rule of the world was broken; the name of the rule.
    pub broken: Option<&'static str>,
}

impl World {
    /// At the beginning.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            switch: Switch::default(),
            work: None,
            vmm: true,
            vf_open: false,
            vf_dma: false,
            vf_programmed: false,
            vf_there: true,
            window: false,
            landing: Landing::Fill,
            revoked: 0,
            lease: LeaseState::Free,
            daemon: true,
            release_owed: false,
            address_at_vf: false,
            forward_to_vf: false,
            shell: ShellState::Unregistered,
            adopted: 0,
            shell_step: false,
            leaving: false,
            detach_asked: false,
            in_plugin: false,
            rings: false,
            vf_held: false,
            emulated_held: false,
            route: Route::Emulated,
            next_in: 1,
            tap: Queue::default(),
            ring_in: Queue::default(),
            vf_in: Queue::default(),
            got: Arrivals::default(),
            next_out: 1,
            ring_out: Queue::default(),
            vf_out: Queue::default(),
            vf_done: Queue::default(),
            sent: Arrivals::default(),
            forced: false,
            guest_reset: false,
            broken: None,
        }
    }

    /// The world after `deed`; `None` where it cannot happen or changes nothing.
    pub fn after(&self, deed: Deed) -> Option<Self> {
        if self.broken.is_some() || (!self.vmm && deed != Deed::DaemonStarts) {
            return None;
        }
        let mut world = self.clone();
        world.happen(deed)?;
        (world != *self).then_some(world)
    }

    fn happen(&mut self, deed: Deed) -> Option<()> {
        match deed {
            Deed::Attach => {
                take(&mut self.budget.attaches)?;
                self.host_event(SwitchEvent::Attach);
            }
            // The VMM asks whether the daemon answers before it begins.
            Deed::Detach => {
                take(&mut self.budget.detaches)?;
                if self.daemon {
                    self.host_event(SwitchEvent::Detach);
                }
            }
            Deed::HostStep => self.host_step()?,
            Deed::HostStepFails => {
                take(&mut self.budget.host_faults)?;
                self.host_step_fails()?;
            }
            Deed::Deadline => {
                self.switch.phase().guest_half()?;
                take(&mut self.budget.deadlines)?;
                self.host_event(SwitchEvent::Deadline);
            }
            Deed::VfLost => {
                if !self.vf_open {
                    return None;
                }
                take(&mut self.budget.vf_losses)?;
                self.vf_there = false;
                self.vf_dma = false;
                self.forced = true;
                self.host_event(SwitchEvent::VfLost);
            }
            Deed::DaemonDies => {
                if !self.daemon {
                    return None;
                }
                take(&mut self.budget.daemon_deaths)?;
                self.daemon = false;
            }
            Deed::DaemonStarts => self.daemon_starts()?,
            Deed::VmmDies => {
                take(&mut self.budget.vmm_deaths)?;
                self.vmm = false;
                self.forced = true;
                // The kernel closes and resets what the process had open.
                self.vf_open = false;
                self.vf_dma = false;
                if self.daemon {
                    self.lease_event(LeaseEvent::OwnerDied).ok()?;
                }
            }
            Deed::GuestReset => {
                take(&mut self.budget.guest_resets)?;
                self.guest_reset();
            }
            Deed::ShellRegisters
            | Deed::ShellLooks
            | Deed::ShellStepDone
            | Deed::ShellStepFails
            | Deed::ShellUnloads => self.shell_deed(deed)?,
            Deed::FrameIn
            | Deed::TapToRing
            | Deed::TakeEmulated
            | Deed::TakeVf
            | Deed::FrameOut
            | Deed::SendEmulated
            | Deed::SendVf => self.traffic(deed)?,
        }
        Some(())
    }

    /// What the daemon does at its start: the leases that it finds, the rest cleaned.
    fn daemon_starts(&mut self) -> Option<()> {
        if self.daemon {
            return None;
        }
        self.daemon = true;
        if self.vf_open {
            self.lease = if self.address_at_vf { LeaseState::Active } else { LeaseState::Acquired };
        } else {
            self.lease_event(LeaseEvent::OwnerDied).ok()?;
        }
        if self.release_owed {
            self.release_owed = false;
            self.lease_event(LeaseEvent::Release).ok()?;
        }
        Some(())
    }

    /// Gives the daemon's machine an event and does what follows.
    pub(crate) fn lease_event(&mut self, event: LeaseEvent) -> Result<(), ()> {
        let next = pf_control::lease::transition(self.lease, event).map_err(drop)?;
        self.lease = next.state;
        for effect in next.effects {
            match effect {
                LeaseEffect::MoveMacToVf => self.address_at_vf = true,
                LeaseEffect::SetPlaceholder | LeaseEffect::MoveMacBack => {
                    self.address_at_vf = false;
                }
                LeaseEffect::ForwardToUplink => self.forward_to_vf = true,
                LeaseEffect::ForwardToPort | LeaseEffect::ForgetForwarding => {
                    self.forward_to_vf = false;
                }
                LeaseEffect::AwaitClosed if self.vf_open => {
                    self.broken = Some("a VF was freed while the VMM had it open");
                }
                LeaseEffect::PrepareQueues
                | LeaseEffect::SettleUplink
                | LeaseEffect::AwaitClosed
                | LeaseEffect::ResetVf => {}
            }
        }
        Ok(())
    }

    fn traffic(&mut self, deed: Deed) -> Option<()> {
        match deed {
            Deed::FrameIn => {
                if self.next_in > FRAMES {
                    return None;
                }
                let frame = self.next_in;
                self.next_in += 1;
                if !self.address_at_vf {
                    self.tap.push(frame);
                } else if self.vf_dma && self.vf_programmed {
                    self.vf_in.push(frame);
                } else if !self.forced {
                    self.broken = Some("a frame came to a VF that could not take it");
                }
            }
            Deed::TapToRing => {
                let frame = self.tap.pop()?;
                self.ring_in.push(frame);
            }
            Deed::TakeEmulated => {
                if self.emulated_held {
                    return None;
                }
                let frame = self.ring_in.pop()?;
                self.got.arrive(frame);
            }
            Deed::TakeVf => {
                if self.vf_held || !self.in_plugin || self.revoked_now() {
                    return None;
                }
                let frame = self.vf_in.pop()?;
                self.got.arrive(frame);
            }
            Deed::FrameOut => {
                if self.next_out > FRAMES {
                    return None;
                }
                match self.route {
                    Route::Stopped => return None,
                    Route::Emulated => self.ring_out.push(self.next_out),
                    // A burst that finds the VF revoked goes the other way.
                    Route::Vf => self.vf_out.push(self.next_out),
                }
                self.next_out += 1;
            }
            Deed::SendEmulated => {
                let frame = self.ring_out.pop()?;
                self.sent.arrive(frame);
            }
            Deed::SendVf => {
                if !self.vf_dma {
                    return None;
                }
                let frame = self.vf_out.pop()?;
                self.sent.arrive(frame);
                self.vf_done.push(frame);
            }
            _ => return None,
        }
        Some(())
    }

    /// The revoked word names the shell's offer.
    pub(crate) fn revoked_now(&self) -> bool {
        self.revoked == self.adopted && self.adopted != 0
    }

    /// What the guest reads as the state.
    pub fn state(&self) -> State {
        self.switch.view().state
    }

    /// Nothing is under way, on any side.
    pub fn at_rest(&self) -> bool {
        self.work.is_none() && self.switch.phase().at_rest() && !self.release_owed
    }

    /// The phase of the VMM's machine.
    pub fn phase(&self) -> Phase {
        self.switch.phase()
    }
}

/// Takes one from a budget; `None` when it is used up.
fn take(budget: &mut u8) -> Option<()> {
    *budget = budget.checked_sub(1)?;
    Some(())
}
