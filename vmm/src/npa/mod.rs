//! The accelerated half of a device: the NPA registers, the switch between the emulated path and
//! a VF, the injection of plugins, and the window onto the VF. Nothing here knows what class of
//! device it serves.

pub mod switch;
