//! Intel QuickAssist, known by sight: found in an inventory, and not served.

/// PCI vendor.
pub(super) const VENDOR: u16 = 0x8086;
/// PCI devices, physical function and VF by turns (the adf_accel_devices.h of Linux and of FreeBSD:
/// DH895XCC, C62X, C3XXX, 200XX, D15XX, C4XXX, 4XXX, 401XX, 402XX, 420XX).
pub(super) const DEVICES: [u16; 20] = [
    0x0435, 0x0443, 0x37c8, 0x37c9, 0x19e2, 0x19e3, 0x18ee, 0x18ef, 0x6f54, 0x6f55, 0x18a0, 0x18a1,
    0x4940, 0x4941, 0x4942, 0x4943, 0x4944, 0x4945, 0x4946, 0x4947,
];
