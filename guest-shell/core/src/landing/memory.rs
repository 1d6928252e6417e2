//! The landing's bytes.
#![allow(unsafe_code)] // The landing is code, seen here as bytes.

use crate::os::LandingRange;

/// The first `length` bytes of the landing, or `None` if it is shorter. To be called only while
/// the hypervisor's half of `Loading` is done: from then on it does not write there.
pub fn image_bytes<'a>(landing: &LandingRange<'a>, length: u32) -> Option<&'a [u8]> {
    let length = length as usize;
    if length > landing.length {
        return None;
    }
    // SAFETY: the landing is mapped readable for its whole length as long as the shell lives, and
    // nobody writes it at this time.
    Some(unsafe { core::slice::from_raw_parts(landing.base.as_ptr(), length) })
}
