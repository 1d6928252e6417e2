//! The accelerated half of a device: the NPA registers, the switch between the emulated path and
//! a VF, the injection of plugins, and the window onto the VF. Nothing here knows what class of
//! device it serves, [`pool`] excepted.
//!
//! vCPU threads come in through [`NpaExtension`], validate, and apply events to the [`switch`];
//! one control thread per device does the work that follows; operators come in through
//! [`Acceleration`] and wait for the outcome.

mod actions;
mod control;
mod core;
mod device;
pub mod hardware;
pub mod history;
pub mod inject;
pub mod landing;
mod operator;
mod outcome;
pub mod pool;
mod pursuit;
pub mod registers;
mod saved;
pub mod switch;
pub mod window;

#[cfg(test)]
mod device_test;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_guest;
#[cfg(test)]
mod saved_test;

pub use actions::Hardware;
pub use core::Timing;
pub use device::{Acceleration, AccelerationConfig, AccelerationError, NpaExtension, accelerate};
pub use operator::AcceleratedDevice;
pub use outcome::{StepError, SwitchError, SwitchFailure};
