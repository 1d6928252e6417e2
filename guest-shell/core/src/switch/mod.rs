//! The switch between the emulated path and a VF, as the shell sees it: a total, pure transition
//! function ([`transition`]) and the loop that drives it against the registers ([`Driver`]).
//!
//! Nothing here knows what kind of device is switched; what a step does is up to the
//! [`Steps`] of the device class.

mod drive;
mod state;
mod transition;

#[cfg(test)]
mod transition_test;

pub use drive::{Driver, Progress, Steps};
pub use state::{Next, ShellAction, ShellEvent, ShellState};
pub use transition::transition;
