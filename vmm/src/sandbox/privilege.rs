//! Rights that a process has by who it is.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use super::SandboxError;

/// Gives up all capabilities, and the chance to get any by starting another program, for good.
pub(super) fn give_up() -> Result<(), SandboxError> {
    let failed =
        |step| move |errno: Errno| SandboxError::Privilege { step, source: io::Error::from(errno) };
    set_no_new_privs(true).map_err(failed("no_new_privs"))?;
    clear_ambient_capability_set().map_err(failed("ambient capabilities"))?;
    let own = capabilities(None).map_err(failed("reading capabilities"))?;
    if own.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter() {
            // What this kernel does not know cannot be held either.
            if capability_is_in_bounding_set(capability).unwrap_or(false) {
                remove_capability_from_bounding_set(capability)
                    .map_err(failed("the capability bounding set"))?;
            }
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(failed("capabilities"))
}
