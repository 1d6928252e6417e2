//! The call of a plugin's entry, and where its functions may lie.
#![allow(unsafe_code)] // Calls code that was built elsewhere.

use crate::os::LandingRange;
use core::ffi::c_void;
use npa_abi::plugin::{ERR_CONFIG, Entry, EntryCall, OK, Status};
use npa_abi::{ABI, Class};

/// Where the functions of a plugin may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Linked into the shell: anywhere.
    BuiltIn,
    /// In the landed image: addresses `start..end`.
    Landed {
        /// First address.
        start: usize,
        /// One past the last address.
        end: usize,
    },
}

impl Code {
    /// Whether a function of this plugin can be at `address`.
    pub const fn contains(self, address: usize) -> bool {
        match self {
            Self::BuiltIn => address != 0,
            Self::Landed { start, end } => start <= address && address < end,
        }
    }
}

/// Calls the entry of a plugin that is linked into the shell, with `ops`, zeroed, to be filled.
pub fn enter_built_in<T>(entry: Entry, class: Class, ops: &mut T) -> Status {
    let mut call = call(class, ops);
    // SAFETY: the entry is part of this program; `call` and the ops it points to are live and
    // exclusively borrowed for the call.
    unsafe { entry(&raw mut call) }
}

/// Calls the entry at `offset` in the landed image of `length` bytes, which has passed
/// [`crate::landing::check`].
///
/// # Errors
/// The plugin's status, if it is not [`OK`].
pub fn enter_landed<T>(
    landing: &LandingRange<'_>,
    offset: u32,
    length: u32,
    class: Class,
    ops: &mut T,
) -> Result<Code, Status> {
    if offset >= length || length as usize > landing.length {
        return Err(ERR_CONFIG);
    }
    // SAFETY: the offset lies within the landing (checked above).
    let address = unsafe { landing.base.byte_add(offset as usize) };
    // SAFETY: the landing is executable, and the image was checked to hold a function at its entry
    // (hash against what the hypervisor verified, `endbr64` at the entry).
    let entry = unsafe { core::mem::transmute::<*mut u8, Entry>(address.as_ptr()) };
    let start = landing.base.as_ptr() as usize;
    let code = Code::Landed { start, end: start.saturating_add(length as usize) };
    let mut call = call(class, ops);
    // SAFETY: see above; `call` and the ops it points to are live and exclusively borrowed.
    match unsafe { entry(&raw mut call) } {
        OK => Ok(code),
        status => Err(status),
    }
}

fn call<T>(class: Class, ops: &mut T) -> EntryCall {
    EntryCall {
        size: size_of::<EntryCall>() as u32,
        abi: ABI,
        class: class as u16,
        ops: core::ptr::from_mut(ops).cast::<c_void>(),
        ops_size: size_of::<T>() as u32,
        reserved: 0,
    }
}
