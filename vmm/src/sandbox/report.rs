//! Says by name which system call a filter has forbidden, and ends the process.
#![allow(unsafe_code)] // A signal handler.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::io;

use syscalls::Sysno;
use vmm_sys_util::signal::register_signal_handler;

/// Exit status of a process that made a forbidden call: as a shell shows SIGSYS.
pub(super) const EXIT_STATUS: c_int = 128 + libc::SIGSYS;
/// Longest name of a thread, in bytes; what is longer is cut.
const NAME_MAX: usize = 32;

thread_local! {
    /// The thread's name, where a signal handler can read it.
    static NAME: Cell<([u8; NAME_MAX], usize)> = const { Cell::new(([0; NAME_MAX], 0)) };
}

/// The head of `siginfo_t` for SIGSYS (sigaction(2): `si_call_addr`, `si_syscall`).
#[repr(C)]
struct SysInfo {
    signal: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    address: *mut c_void,
    number: c_int,
    architecture: u32,
}

/// Installs the handler.
pub(super) fn install() -> io::Result<()> {
    register_signal_handler(libc::SIGSYS, on_forbidden_call)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// Keeps the calling thread's name for the handler.
pub(super) fn remember_name() {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name").as_bytes();
    let mut bytes = [0; NAME_MAX];
    let length = name.len().min(NAME_MAX);
    bytes[..length].copy_from_slice(&name[..length]);
    NAME.with(|kept| kept.set((bytes, length)));
}

/// Only what is safe in a signal handler: no allocation, no lock, no call but write and exit.
extern "C" fn on_forbidden_call(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives SIGSYS handlers a whole siginfo_t, whose head is laid out so.
    let number = unsafe { (*info.cast::<SysInfo>()).number };
    let (name, length) = NAME.try_with(Cell::get).unwrap_or(([0; NAME_MAX], 0));
    let call =
        usize::try_from(number).ok().and_then(Sysno::new).map_or("unknown", |call| call.name());
    let mut digits = [0; 10];
    let parts: [&[u8]; 7] = [
        b"vmm: thread `",
        &name[..length],
        b"` made the system call `",
        call.as_bytes(),
        b"` (",
        decimal(number.unsigned_abs(), &mut digits),
        b"), which its filter forbids; the VM is ended. If no guest is behind this, please report it; \
          `--sandbox log` goes on\n",
    ];
    for part in parts {
        // SAFETY: writes bytes that are there; whether anybody reads them does not matter.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: ends the process without running anything else of it.
    unsafe { libc::_exit(EXIT_STATUS) }
}

fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 257, u32::MAX] {
            assert_eq!(decimal(number, &mut [0; 10]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn the_call_is_where_the_kernel_puts_it() {
        // include/uapi/asm-generic/siginfo.h: three ints, and on 64 bits a gap, before the union.
        assert_eq!(std::mem::offset_of!(SysInfo, address), 16);
        assert_eq!(std::mem::offset_of!(SysInfo, number), 24);
    }
}
