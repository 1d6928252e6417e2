//! What must hold in every reachable state of the world.

use crate::Exploration;
use crate::world::{Deed, FRAMES, World};
use pf_control::lease::LeaseState;
use stateright::Property;
use vmm::npa::switch::Phase;

/// The properties.
pub fn all() -> Vec<Property<Exploration>> {
    vec![
        Property::always("no rule of the world is broken", |_, world: &World| {
            world.broken.is_none()
        }),
        Property::always("nothing is doubled without force", |_, world: &World| {
            world.forced || !(world.got.duplicated || world.sent.duplicated)
        }),
        Property::always("nothing is reordered without force", |_, world: &World| {
            world.forced || !(world.got.reordered || world.sent.reordered)
        }),
        Property::always("incoming frames are never reordered or doubled", |_, world: &World| {
            !world.got.reordered && !world.got.duplicated
        }),
        Property::always("nothing is lost without force", |_, world: &World| {
            world.forced
                || !ended(world)
                || (world.got.count == FRAMES && world.sent.count == FRAMES)
        }),
        Property::always(
            "outgoing frames are never lost while the guest lives",
            |_, world: &World| {
                world.guest_reset || !world.vmm || !ended(world) || world.sent.newest == FRAMES
            },
        ),
        Property::always("every way ends at rest", |_, world: &World| {
            !ended(world) || !world.vmm || world.at_rest() || !world.daemon
        }),
        Property::always("a VF that nobody uses is back in the pool", |_, world: &World| {
            !ended(world)
                || !world.daemon
                || (world.vmm && world.phase() == Phase::Active)
                || (world.lease == LeaseState::Free && !world.address_at_vf && !world.forward_to_vf)
        }),
        Property::always("an active VF has the address", |_, world: &World| {
            !world.vmm || world.phase() != Phase::Active || world.address_at_vf
        }),
        Property::always(
            "a guest off the VF is reached by the emulated path",
            |_, world: &World| {
                !world.vmm
                    || !world.daemon
                    || !matches!(
                        world.phase(),
                        Phase::Unregistered | Phase::Emulated | Phase::Failed { held: false }
                    )
                    || world.release_owed
                    || !world.address_at_vf
            },
        ),
        Property::sometimes("a VF becomes active", |_, world: &World| {
            world.phase() == Phase::Active
        }),
        Property::sometimes("and the guest is back on the emulated path", |_, world: &World| {
            world.phase() == Phase::Emulated && world.switch.generation() > 0 && !world.forced
        }),
    ]
}

/// Nothing can happen any more.
fn ended(world: &World) -> bool {
    Deed::ALL.iter().all(|deed| world.after(*deed).is_none())
}
