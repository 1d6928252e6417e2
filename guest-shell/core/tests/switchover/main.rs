//! The shell against a fake operating system, a fake hypervisor and a virtio VF: nothing is lost,
//! doubled, reordered or leaked, whatever comes in which order.

mod device;
mod guest;
mod host;
mod image;
mod os;

mod broken;
mod random;
mod scenarios;
