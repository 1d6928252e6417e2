//! The daemon: brings PFs, VFs and the switch together at start, then serves the op table over a
//! Unix socket and watches the processes that hold VFs.
//!
//! It decides nothing about leases (see [`crate::pool`]) and holds no VF open itself, so it may
//! end and start again under running VMs.

mod error;
mod events;
mod handover;
mod http;
mod listener;
mod metrics;
mod socket;
mod watch;

pub use error::ServeError;

use crate::capability::Profiles;
use crate::inventory::{ProcessTable, Sysfs, VfioNodes};
use crate::netlink::{Netlink, follow_links};
use crate::ops::PciAddress;
use crate::pool::{FaultPoint, FaultPoints, Host, Pool};
use crate::port::Policies;
use crate::state::Store;
use crate::switch::Bridge;
use crate::vendor::virtio::FIRST_INDEX;
use crate::vendor::{Families, VendorError, VirtioFunction, module_for};
use listener::FairListener;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket::Claim;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// What to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub socket: PathBuf,
    /// The group whose members may connect, beside the daemon's own user.
    pub group: Option<String>,
    /// The file in which leases and maintenance are kept.
    pub state: PathBuf,
    /// The file with the profiles that requests may name.
    pub profiles: Option<PathBuf>,
    /// The file with the policies of ports.
    pub ports: Option<PathBuf>,
    /// The file with families of cards, beside the built-in ones.
    pub families: Option<PathBuf>,
    /// Where to die, in tests.
    pub die_at: Option<FaultPoint>,
    /// Network interfaces of the PFs.
    pub pfs: Vec<String>,
    /// VFs of each PF.
    pub vfs: u32,
    /// Functions on their own, beside the PFs' VFs.
    pub functions: Vec<PciAddress>,
    /// The network interface, a port of the bridge, that is on the same network as these.
    pub uplink: Option<String>,
    /// The bridge that uplinks and taps are ports of.
    pub bridge: String,
}

/// Serves until SIGTERM or SIGINT. Leases outlive it: the next daemon adopts them.
///
/// # Errors
/// [`ServeError`], which says what to do.
pub fn serve(config: &Config) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let outcome = runtime.block_on(run(config));
    // Operations are bounded in time; one that is still going on must not delay the end.
    runtime.shutdown_background();
    outcome
}

async fn run(config: &Config) -> Result<(), ServeError> {
    // First, so that no two daemons work for the same socket.
    let claim = Claim::take(&config.socket)?;
    allow_descriptors();
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Runtime)?;
    let netlink = Netlink::open().map_err(ServeError::Netlink)?;
    let pool = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || open_pool(&config, &netlink))
            .await
            .map_err(|error| ServeError::Runtime(std::io::Error::other(error)))??
    };
    let pool = Arc::new(pool);
    let doorbell = watch::start(Arc::clone(&pool)).map_err(ServeError::Runtime)?;
    let inventory = events::publish(Arc::clone(&pool));
    let told = Arc::clone(&pool);
    follow_links(move |interface| told.link_changed(interface)).map_err(ServeError::Netlink)?;
    let listener = claim.listen(config.group.as_deref())?;
    pool.arm_faults();
    tracing::info!(socket = %config.socket.display(), vfs = pool.slots().len(), "serving");
    let server = axum::serve(
        FairListener::new(listener),
        http::routes(http::Daemon { pool, doorbell, inventory, metrics: Arc::default() })
            .into_make_service_with_connect_info::<http::Peer>(),
    );
    tokio::select! {
        outcome = server => outcome.map_err(ServeError::Runtime)?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    claim.remove();
    Ok(())
}

/// As many descriptors as this process may have: connections are limited one by one.
fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of descriptors stays");
    }
}

/// Finds and readies everything, and reconciles it with what a former daemon left. Blocks.
fn open_pool(config: &Config, netlink: &Netlink) -> Result<Pool, ServeError> {
    // Files first: a mistake in one leaves the host as it was.
    let profiles = config.profiles.as_deref().map(Profiles::load).transpose()?;
    let families = config.families.as_deref().map(Families::load).transpose()?.unwrap_or_default();
    let policies = config.ports.as_deref().map(Policies::load).transpose()?.unwrap_or_default();
    let sysfs = Sysfs::default();
    let nodes = VfioNodes::default();
    let switch = Bridge::open(&config.bridge, netlink.clone())?;
    let mut vfs = Vec::new();
    for interface in &config.pfs {
        let pf = sysfs.pf(interface)?;
        let module = module_for(pf.clone(), &families, sysfs.clone(), netlink.clone())?;
        let link = netlink.link(interface).map_err(VendorError::from)?;
        if !link.up {
            tracing::info!(%interface, "bringing the PF up: its VFs do nothing while it is down");
            netlink.set_up(link.index).map_err(VendorError::from)?;
        }
        crate::switch::Switch::check_port(&switch, interface)?;
        for vf in sysfs.provide_vfs(&pf, config.vfs, &nodes)? {
            vfs.push((vf, Arc::clone(&module)));
        }
    }
    for (index, &function) in (FIRST_INDEX..).zip(&config.functions) {
        let uplink = config.uplink.as_deref().unwrap_or_default();
        netlink.link(uplink).map_err(VendorError::from)?;
        crate::switch::Switch::check_port(&switch, uplink)?;
        let vf = sysfs.provide_function(function, index)?;
        let module = VirtioFunction::new(&vf, uplink, sysfs.clone(), netlink.clone())?;
        vfs.push((vf, Arc::new(module)));
    }
    let host = Host {
        switch: Box::new(switch),
        occupancy: Box::new(nodes),
        processes: ProcessTable::default(),
        faults: config.die_at.map(FaultPoints::die_at).unwrap_or_default(),
    };
    let boot = std::fs::read_to_string(error::BOOT_ID).map_err(ServeError::Boot)?;
    let store = Store::open(&config.state, boot.trim())?;
    Ok(Pool::new(host, vfs, store, profiles.unwrap_or_default(), policies)?)
}

#[cfg(test)]
mod server_test;
