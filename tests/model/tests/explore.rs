//! Exhaustive explorations, each with another set of interferences.

use stateright::{Checker, Model};
use switch_model::Exploration;
use switch_model::world::Budget;

const QUIET: Budget = Budget {
    attaches: 1,
    detaches: 1,
    deadlines: 0,
    host_faults: 0,
    shell_faults: 0,
    vf_losses: 0,
    daemon_deaths: 0,
    guest_resets: 0,
    unloads: 0,
    vmm_deaths: 0,
};

fn explore(name: &str, budget: Budget) {
    let checker = Exploration { budget }.checker().threads(2).spawn_bfs().join();
    eprintln!("{name}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    assert!(checker.is_done());
    checker.assert_properties();
}

#[test]
fn undisturbed_twice() {
    explore("undisturbed twice", Budget { attaches: 2, detaches: 2, ..QUIET });
}

#[test]
fn deadlines_and_host_faults() {
    explore(
        "deadlines and host faults",
        Budget { deadlines: 1, host_faults: 1, attaches: 2, ..QUIET },
    );
}

#[test]
fn shell_faults_and_unload() {
    explore("shell faults and unload", Budget { shell_faults: 1, unloads: 1, ..QUIET });
}

#[test]
fn vf_loss_and_deadline() {
    explore("VF loss and deadline", Budget { vf_losses: 1, deadlines: 1, ..QUIET });
}

#[test]
fn daemon_death() {
    explore("daemon death", Budget { daemon_deaths: 1, deadlines: 1, ..QUIET });
}

#[test]
fn guest_reset_and_vmm_death() {
    explore("guest reset", Budget { guest_resets: 1, attaches: 2, ..QUIET });
    explore("VMM death", Budget { vmm_deaths: 1, daemon_deaths: 1, ..QUIET });
}
