//! The cells of the matrix: which fault at which phase, and what is to come of it.

use super::super::relay::{Deed, Message};
use serde::Serialize;

/// When something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// While the relay holds a message.
    Message(Message),
    /// While the VM gives up its VF. Its pf-control is held meanwhile, so that this lasts.
    FallingBack,
}

/// What is done then, beside what the relay does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hit {
    Nothing,
    DestinationKilled,
    SourceKilled,
    DaemonHereKilled,
    DaemonThereKilled,
    /// The guest does nothing any more.
    GuestHung,
    /// The VF's rings are gone: its PF was reset.
    VfReset,
}

/// Who runs the VM afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Runs {
    /// It stays.
    Source,
    /// It has moved.
    Destination,
    /// Nobody: the process that had it was killed.
    Nobody,
    /// Nobody until its operator has looked: not the destination.
    DoubtStays,
    /// The destination, and the source does not know.
    DoubtMoved,
}

pub(super) struct Cell {
    pub(super) fault: &'static str,
    pub(super) phase: &'static str,
    pub(super) at: At,
    pub(super) hit: Hit,
    pub(super) deed: Deed,
    pub(super) runs: Runs,
    /// Part of the error that the operator sees.
    pub(super) told: &'static str,
}

impl Cell {
    /// Whether `vmm ctl migrate` says that the VM has moved.
    pub(super) fn succeeds(&self) -> bool {
        match self.runs {
            Runs::Destination => self.hit != Hit::SourceKilled,
            // It was killed when it had the VM.
            Runs::Nobody => self.hit == Hit::DestinationKilled,
            Runs::Source | Runs::DoubtStays | Runs::DoubtMoved => false,
        }
    }

    /// Whether traffic goes on as if nothing had been.
    pub(super) fn is_harmless(&self) -> bool {
        let daemon = matches!(self.hit, Hit::DaemonHereKilled | Hit::DaemonThereKilled);
        self.runs == Runs::Source || self.runs == Runs::Destination && daemon
    }
}

pub(super) const CHECKING: &str = "checking";
pub(super) const FALLING_BACK: &str = "falling back";
pub(super) const COPYING: &str = "copying";
pub(super) const STOPPED: &str = "stopped";
pub(super) const HANDING_OVER: &str = "handing over";
pub(super) const TAKEN_OVER: &str = "taken over";
pub(super) const FOLLOWING: &str = "following";
pub(super) const PHASES: [&str; 7] =
    [CHECKING, FALLING_BACK, COPYING, STOPPED, HANDING_OVER, TAKEN_OVER, FOLLOWING];

/// When each phase is hit, unless a fault wants another message of it.
fn moment(phase: &str) -> At {
    match phase {
        CHECKING => At::Message(Message::Greeting),
        FALLING_BACK => At::FallingBack,
        COPYING => At::Message(Message::RoundEnd),
        STOPPED => At::Message(Message::Final),
        HANDING_OVER => At::Message(Message::Go),
        TAKEN_OVER => At::Message(Message::Running),
        _ => At::Message(Message::End),
    }
}

/// All cells, in the order in which they run: those first after which the VM is still here and its
/// traffic has noticed nothing.
pub(super) fn cells() -> Vec<Cell> {
    const CLOSED: &str = "closed the connection";
    const DOUBT: &str = "may run at the other end";
    const DIED: &str = "ended the connection";
    const SILENT: &str = "does not answer";
    const NOT_BACK: &str = "could not be given back";
    const STREAM: Hit = Hit::Nothing;
    use Deed::{Cut, Flip, Pass, Silence, Truncate};
    use Hit::{
        DaemonHereKilled, DaemonThereKilled, DestinationKilled, GuestHung, SourceKilled, VfReset,
    };
    use Runs::{Destination, DoubtMoved, DoubtStays, Nobody, Source};

    let mut cells = Vec::new();
    let mut add = |fault, hit, runs, told, moments: &[(&'static str, Deed)]| {
        for (phase, deed) in moments {
            let at = match (*deed, *phase) {
                // Within what is copied, and within the state.
                (Flip | Truncate, COPYING) => At::Message(Message::Pages),
                (Flip | Truncate, STOPPED) => At::Message(Message::State),
                _ => moment(phase),
            };
            cells.push(Cell { fault, phase, at, hit, deed: *deed, runs, told });
        }
    };
    let name = "destination killed";
    add(
        name,
        DestinationKilled,
        Source,
        CLOSED,
        &[
            (CHECKING, Cut),
            (FALLING_BACK, Pass),
            (COPYING, Pass),
            (STOPPED, Pass),
            (HANDING_OVER, Cut),
            (TAKEN_OVER, Cut),
        ],
    );
    add(name, DestinationKilled, Nobody, "", &[(FOLLOWING, Cut)]);

    let name = "network cut";
    let early =
        [(CHECKING, Cut), (FALLING_BACK, Cut), (COPYING, Cut), (STOPPED, Cut), (HANDING_OVER, Cut)];
    add(name, STREAM, Source, CLOSED, &early);
    add(name, STREAM, Destination, "", &[(FOLLOWING, Cut)]);

    let name = "network silent";
    let early = [(CHECKING, Silence), (COPYING, Silence), (STOPPED, Silence)];
    add(name, STREAM, Source, SILENT, &early);
    add(name, STREAM, DoubtStays, DOUBT, &[(HANDING_OVER, Silence)]);
    add(name, STREAM, DoubtMoved, DOUBT, &[(TAKEN_OVER, Silence)]);
    add(name, STREAM, Destination, "", &[(FOLLOWING, Silence)]);

    let name = "stream truncated";
    let early =
        [(CHECKING, Truncate), (COPYING, Truncate), (STOPPED, Truncate), (HANDING_OVER, Truncate)];
    add(name, STREAM, Source, CLOSED, &early);
    add(name, STREAM, Destination, "", &[(FOLLOWING, Truncate)]);

    let name = "bit flipped";
    let early = [(CHECKING, Flip), (COPYING, Flip), (STOPPED, Flip), (HANDING_OVER, Flip)];
    add(name, STREAM, Source, "checksum", &early);
    add(name, STREAM, DoubtMoved, DOUBT, &[(TAKEN_OVER, Flip)]);
    add(name, STREAM, Destination, "", &[(FOLLOWING, Flip)]);

    let name = "pf-control here killed";
    let early = [(CHECKING, Pass), (FALLING_BACK, Pass), (COPYING, Pass)];
    let late = [(STOPPED, Pass), (HANDING_OVER, Pass), (TAKEN_OVER, Pass), (FOLLOWING, Pass)];
    add(name, DaemonHereKilled, Source, NOT_BACK, &early);
    add(name, DaemonHereKilled, Destination, "", &late);

    let name = "pf-control there killed";
    add(name, DaemonThereKilled, Destination, "", &early);
    add(name, DaemonThereKilled, Destination, "", &late);

    let name = "VF reset";
    add(name, VfReset, Destination, "", &[early[0], early[1], early[2], late[0]]);

    let name = "guest hung";
    add(name, GuestHung, Destination, "", &[(CHECKING, Pass), (COPYING, Pass)]);

    let name = "source killed";
    let early = [(CHECKING, Cut), (FALLING_BACK, Pass), (COPYING, Pass), (STOPPED, Pass)];
    add(name, SourceKilled, Nobody, DIED, &early);
    add(name, SourceKilled, Nobody, DIED, &[(HANDING_OVER, Cut)]);
    add(name, SourceKilled, Destination, DIED, &[(TAKEN_OVER, Pass), (FOLLOWING, Pass)]);

    cells.sort_by_key(|cell| match (cell.is_harmless(), cell.runs) {
        (true, Source) => 0,
        (true, _) => 1,
        (false, _) => 2,
    });
    cells
}
