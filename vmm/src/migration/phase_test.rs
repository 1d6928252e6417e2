//! Explores both ends together: every order of steps, deaths, cuts and lost patience.

use std::collections::{HashSet, VecDeque};

use super::*;

/// Both ends and what is on its way between them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    source: SourcePhase,
    destination: DestinationPhase,
    source_alive: bool,
    destination_alive: bool,
    /// Nothing gets through any more, and nobody is told.
    cut: bool,
    /// Messages under way.
    to_destination: VecDeque<Message>,
    to_source: VecDeque<Message>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Message {
    State,
    Ready,
    Go,
    Running,
    GiveUp,
}

impl World {
    fn start() -> Self {
        Self {
            source: SourcePhase::Checking,
            destination: DestinationPhase::Receiving,
            source_alive: true,
            destination_alive: true,
            cut: false,
            to_destination: VecDeque::new(),
            to_source: VecDeque::new(),
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    fn source_sees(&mut self, event: SourceEvent) {
        let before = self.source;
        self.source = before.after(event);
        if before == self.source {
            return;
        }
        match self.source {
            SourcePhase::Stopped => self.to_destination.push_back(Message::State),
            SourcePhase::HandingOver => self.to_destination.push_back(Message::Go),
            SourcePhase::Stayed => self.to_destination.push_back(Message::GiveUp),
            _ => {}
        }
    }

    fn destination_sees(&mut self, event: DestinationEvent) {
        let before = self.destination;
        self.destination = before.after(event);
        if before == self.destination {
            return;
        }
        match self.destination {
            DestinationPhase::Ready => self.to_source.push_back(Message::Ready),
            DestinationPhase::Running => self.to_source.push_back(Message::Running),
            // It ends its process, and the connection with it.
            DestinationPhase::Refused => self.to_source.push_back(Message::GiveUp),
            DestinationPhase::Receiving => {}
        }
    }

    /// Everything that can happen next.
    fn next(&self) -> Vec<Self> {
        let mut all = Vec::new();
        if self.source_alive {
            use SourceEvent as E;
            for event in [E::Agreed, E::FellBack, E::Stopped, E::GaveUp, E::PeerSilent, E::Followed]
            {
                // An operator cancels, and a connection is given up, at any time.
                let possible = match event {
                    E::GaveUp => self.source.can_cancel(),
                    E::Followed => self.source == SourcePhase::Following,
                    _ => true,
                };
                if possible {
                    all.push(self.with(|world| world.source_sees(event)));
                }
            }
            if let Some(message) = self.to_source.front().copied().filter(|_| !self.cut) {
                all.push(self.with(|world| {
                    world.to_source.pop_front();
                    match message {
                        Message::Ready => world.source_sees(E::PeerReady),
                        Message::Running => world.source_sees(E::PeerRunning),
                        _ => world.source_sees(E::GaveUp),
                    }
                }));
            }
            // What a dead process sent before arrives before its death does.
            if !self.destination_alive && !self.cut && self.to_source.is_empty() {
                all.push(self.with(|world| world.source_sees(E::PeerDied)));
            }
            all.push(self.with(|world| world.source_alive = false));
        }
        if self.destination_alive {
            use DestinationEvent as E;
            if let Some(message) = self.to_destination.front().copied().filter(|_| !self.cut) {
                for fits in [true, false] {
                    all.push(self.with(|world| {
                        world.to_destination.pop_front();
                        world.destination_sees(match (message, fits) {
                            (Message::State, true) => E::Restored,
                            (Message::Go, _) => E::Go,
                            _ => E::Lost,
                        });
                    }));
                }
            }
            let source_gone = !self.source_alive && self.to_destination.is_empty();
            if source_gone || self.cut {
                all.push(self.with(|world| world.destination_sees(E::Lost)));
            }
            all.push(self.with(|world| world.destination_alive = false));
        }
        if !self.cut {
            all.push(self.with(|world| {
                world.cut = true;
                world.to_source.clear();
                world.to_destination.clear();
            }));
        }
        all
    }

    fn running(&self) -> usize {
        usize::from(self.source_alive && self.source.may_run())
            + usize::from(self.destination_alive && self.destination.may_run())
    }
}

fn explore() -> HashSet<World> {
    let mut seen = HashSet::from([World::start()]);
    let mut queue = VecDeque::from([World::start()]);
    while let Some(world) = queue.pop_front() {
        for next in world.next() {
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    seen
}

#[test]
fn never_do_both_ends_run_the_vm() {
    let all = explore();
    assert!(all.len() > 200, "{}", all.len());
    for world in &all {
        assert!(world.running() <= 1, "{world:?}");
    }
}

/// With both ends alive and the network whole, a move that is over has left one running VM.
#[test]
fn a_move_that_is_over_leaves_one_running_vm_while_both_ends_and_the_network_live() {
    let over = |world: &World| {
        matches!(world.source, SourcePhase::Moved | SourcePhase::Stayed)
            && world.source_alive
            && world.destination_alive
    };
    let worlds: Vec<_> = explore().into_iter().filter(over).collect();
    assert!(!worlds.is_empty());
    for world in worlds {
        assert_eq!(world.running(), 1, "{world:?}");
    }
}

/// A death before *go*, of whichever end, or a cut, leaves the VM where it was.
#[test]
fn until_go_the_vm_stays_whatever_happens() {
    for world in explore() {
        let before_go = world.source.can_cancel() || world.source == SourcePhase::Stayed;
        if before_go && world.source_alive {
            assert!(!world.destination_alive || !world.destination.may_run(), "{world:?}");
        }
    }
}

#[test]
fn doubt_comes_only_of_silence_at_the_hand_over() {
    use SourceEvent as E;
    use SourcePhase as P;
    let phases = [
        P::Checking,
        P::FallingBack,
        P::Copying,
        P::Stopped,
        P::HandingOver,
        P::Following,
        P::Moved,
        P::Stayed,
    ];
    let events = [
        E::Agreed,
        E::FellBack,
        E::Stopped,
        E::PeerReady,
        E::PeerRunning,
        E::Followed,
        E::GaveUp,
        E::PeerDied,
        E::PeerSilent,
    ];
    for phase in phases {
        for event in events {
            let doubt = phase.after(event) == P::InDoubt;
            let expected = phase == P::HandingOver && matches!(event, E::GaveUp | E::PeerSilent);
            assert_eq!(doubt, expected, "{phase} {event:?}");
        }
    }
}
