//! The host side of the data path switch: phases, events, and the one function that says what
//! follows what.
//!
//! Pure: no I/O, no clock, no allocation, and no knowledge of what kind of device is switched.
//! The control thread carries the actions out; a model of the whole protocol explores the same
//! functions together with the shell's and the VF daemon's.
//!
//! How it is to be driven: [`Switch::apply`] is given each event, one at a time. When the answer
//! carries [`Work`], that work *supersedes* what is left of the work before it (each list is
//! complete by itself, and every action is harmless when there is nothing to do). Work runs on
//! one thread, in order; when all of it is done its [`Work::then`] is the next event, and when an
//! action fails, [`OnFailure`] says what follows. Work that was superseded yields no event.

mod event;
mod phase;
mod transition;

#[cfg(test)]
mod transition_test;

pub use event::{Origin, SwitchAction, SwitchEvent};
pub use phase::{GuestHalf, Phase};
pub use transition::{Next, OnFailure, Refusal, Switch, Verdict, Work, transition};
