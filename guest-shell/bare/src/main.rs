//! A guest without an operating system: it finds the virtio NIC, runs the same shell core as the
//! Linux module on it, exchanges numbered frames with a peer, and accepts whatever plugin the host
//! injects. It shows that core and plugins need nothing of Linux, and boots in milliseconds.
//!
//! Everything is polled: there is one CPU, no interrupt and no allocator but a few free lists.
//! Progress goes to COM1.
//!
//! Command line: `peer=MAC` (default: broadcast), `rate=FRAMES` per second (default 1000),
//! `frames=N` to send before it only listens (default 0: no end).
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(any(target_os = "none", test))]
mod options;
#[cfg(any(target_os = "none", test))]
mod traffic;

#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod os;
#[cfg(target_os = "none")]
mod run;

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "bare-guest is a program for bare metal: build it with \
         `npa-plugin executable --package bare-guest --out FILE` and boot that with `vmm run --kernel FILE`"
    );
    std::process::ExitCode::FAILURE
}
