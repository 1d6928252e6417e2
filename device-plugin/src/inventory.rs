//! The host's VFs as pf-control tells of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use pf_control::client::{Client, ClientError};
use pf_control::ops::{AdapterEntry, VfEntry};
use tokio::sync::watch;

/// Pause before the daemon, which is away, is looked for again.
const ABSENCE: Duration = Duration::from_secs(1);

/// What is known of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// All VFs that the daemon has told of, in the order of their addresses.
    pub vfs: Vec<VfEntry>,
    /// All adapters.
    pub adapters: Vec<AdapterEntry>,
    /// The daemon answers.
    pub there: bool,
}

/// Follows the daemon behind `client` on a thread of its own, for as long as anybody listens. While
/// the daemon is away, what it told last stays, and it is looked for every second.
///
/// # Errors
/// The host has no thread left.
pub fn follow(client: Client) -> std::io::Result<watch::Receiver<Inventory>> {
    let (told, listener) = watch::channel(Inventory::default());
    thread::Builder::new().name("inventory".to_owned()).spawn(move || {
        while !told.is_closed() {
            match watch(&client, &told) {
                Ok(()) => return,
                Err(error) => {
                    if told.borrow().there {
                        tracing::warn!(%error, "pf-control is away");
                    }
                    told.send_modify(|inventory| inventory.there = false);
                    thread::sleep(ABSENCE);
                }
            }
        }
    })?;
    Ok(listener)
}

/// Tells what the daemon tells, until it ends or nobody listens.
fn watch(client: &Client, told: &watch::Sender<Inventory>) -> Result<(), ClientError> {
    let adapters = client.adapters()?;
    let mut vfs: BTreeMap<_, _> = client.list()?.into_iter().map(|vf| (vf.vf, vf)).collect();
    let publish = |vfs: &BTreeMap<_, VfEntry>| {
        let vfs = vfs.values().cloned().collect();
        let now = Inventory { vfs, adapters: adapters.clone(), there: true };
        told.send_if_modified(|inventory| {
            let changed = *inventory != now;
            *inventory = now;
            changed
        });
    };
    publish(&vfs);
    client.follow(|entry| {
        if let Some(entry) = entry {
            vfs.insert(entry.vf, entry);
            publish(&vfs);
        }
        match told.is_closed() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
}
