//! The switch protocol as a model: the shell's, the VMM's and pf-control's *real* transition
//! functions, joined by a small world (landing, window, address, rings, a numbered stream each
//! way), explored over all interleavings of steps, losses, deadlines, deaths and resets.
//!
//! What the model adds to the three functions is only what their actions do to the world. What it
//! must never see is in [`properties`].

mod guest;
mod host;
pub mod properties;
pub mod world;

use stateright::{Model, Property};
use world::{Budget, Deed, World};

/// A bounded exploration: how often the outside interferes.
#[derive(Clone, Copy, Debug)]
pub struct Exploration {
    /// What may happen, and how often.
    pub budget: Budget,
}

impl Model for Exploration {
    type State = World;
    type Action = Deed;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.budget)]
    }

    fn actions(&self, world: &World, deeds: &mut Vec<Deed>) {
        deeds.extend(Deed::ALL.into_iter().filter(|deed| world.after(*deed).is_some()));
    }

    fn next_state(&self, world: &World, deed: Deed) -> Option<World> {
        world.after(deed)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
