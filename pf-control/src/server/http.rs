//! The HTTP interface: one entry for the op table, the inventory and its changes, maintenance, and
//! a ping.

use super::events::{self, Inventory};
use super::handover;
use super::listener::FairListener;
use super::metrics::{self, Metrics};
use super::watch::Doorbell;
use crate::client::Pong;
use crate::ops::{AdapterEntry, Op, OpError, Reply, Request, RequestEntry, VfEntry};
use crate::pool::Pool;
use crate::port::{Caller, Ports, audit};
use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use utoipa::OpenApi;

/// How long an operation may take. Its steps are bounded one by one; this bounds their sum, and
/// is shorter than a client's patience.
const DEADLINE: Duration = Duration::from_millis(4500);
/// No request is near this size, in bytes.
const MAX_REQUEST: usize = 64 << 10;

/// The process at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// Its number; `None` where the kernel does not tell, as for one in another PID namespace.
    pid: Option<u32>,
    /// Its user, likewise.
    uid: Option<u32>,
    /// Its first group.
    gid: Option<u32>,
}

impl Peer {
    /// Whether it may do what concerns others: root, and the daemon's own user.
    fn is_admin(&self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.uid.is_some_and(|uid| uid == 0 || uid == own)
    }

    /// Its number.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub(super) fn process(&self) -> Result<u32, OpError> {
        self.pid.ok_or_else(|| OpError::Invalid {
            reason: "the kernel does not tell which process asks: use the same PID namespace"
                .into(),
        })
    }

    /// What a port is to know of it.
    pub(super) fn caller(&self) -> Caller {
        Caller { uid: self.uid, gid: self.gid, is_admin: self.is_admin() }
    }

    /// Whether it may know of a VF: its own, those that are nobody's, and for an admin all.
    pub(super) fn sees(&self, entry: &VfEntry) -> bool {
        self.is_admin() || entry.owner_pid.is_none() || entry.owner_pid == self.pid
    }
}

impl Connected<IncomingStream<'_, FairListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, FairListener>) -> Self {
        let credentials = stream.io().stream().peer_cred().ok();
        let pid = credentials.and_then(|credentials| credentials.pid());
        let pid = pid.and_then(|pid| pid.try_into().ok()).filter(|&pid| pid != 0);
        let uid = credentials.map(|credentials| credentials.uid());
        Self { pid, uid, gid: credentials.map(|credentials| credentials.gid()) }
    }
}

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Daemon {
    pub(super) pool: Arc<Pool>,
    /// Told when a VF has a new owner to be watched.
    pub(super) doorbell: Doorbell,
    /// All VFs, as they are now.
    pub(super) inventory: Inventory,
    pub(super) metrics: Arc<Metrics>,
}

/// The interface's description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "pf-control",
        description = "The host's VF and policy daemon. Unix socket only; errors say what to do."
    ),
    paths(
        operation,
        list,
        adapters,
        requests,
        follow,
        drain,
        enable,
        ping,
        prometheus,
        handover::open_group,
        handover::open_port
    )
)]
struct Description;

/// The text that `/openapi.json` serves.
fn openapi_json() -> String {
    // Plain data: it cannot fail.
    Description::openapi().to_pretty_json().unwrap_or_default() + "\n"
}

async fn describe() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json()).into_response()
}

/// Counters and gauges, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics",
    responses((status = 200, body = String, content_type = metrics::CONTENT_TYPE)))]
async fn prometheus(
    State(Daemon { pool, metrics, .. }): State<Daemon>,
) -> Result<Response, OpError> {
    let text = bounded(Op::GetInfo, move || Ok(metrics.render(&pool.list(), pool.waiting().len())))
        .await?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

pub(super) fn routes(daemon: Daemon) -> Router {
    Router::new()
        .route("/v1/ops", post(operation))
        .route("/v1/vfs", get(list))
        .route("/v1/adapters", get(adapters))
        .route("/v1/requests", get(requests))
        .route("/v1/events", get(follow))
        .route("/v1/pfs/{pf}/drain", post(drain))
        .route("/v1/pfs/{pf}/enable", post(enable))
        .route("/v1/leases/{lease}/open", post(handover::open_group))
        .route("/v1/ports/{port}/open", post(handover::open_port))
        .route("/v1/ping", get(ping))
        .route("/metrics", get(prometheus))
        .route("/openapi.json", get(describe))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(daemon)
}

/// Who is there.
#[utoipa::path(get, path = "/v1/ping", responses((status = 200, body = Pong)))]
async fn ping() -> Json<Pong> {
    Json(Pong { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() })
}

/// All VFs that the caller may see.
#[utoipa::path(get, path = "/v1/vfs", responses((status = 200, body = [VfEntry])))]
async fn list(
    State(Daemon { pool, .. }): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<Vec<VfEntry>>, OpError> {
    let mut entries = bounded(Op::GetInfo, move || Ok(pool.list())).await?;
    entries.retain(|entry| peer.sees(entry));
    Ok(Json(entries))
}

/// The host's adapters, with their links and how many VFs are free.
#[utoipa::path(get, path = "/v1/adapters", responses((status = 200, body = [AdapterEntry])))]
async fn adapters(
    State(Daemon { pool, .. }): State<Daemon>,
) -> Result<Json<Vec<AdapterEntry>>, OpError> {
    bounded(Op::GetInfo, move || Ok(pool.adapters())).await.map(Json)
}

/// What VMs ask for, as far as the caller may see it: those that have a VF, then those that wait, the
/// next one first.
#[utoipa::path(get, path = "/v1/requests", responses((status = 200, body = [RequestEntry])))]
async fn requests(
    State(Daemon { pool, .. }): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Json<Vec<RequestEntry>> {
    let mut requests = pool.requests();
    requests.retain(|entry| peer.is_admin() || Some(entry.pid) == peer.pid);
    Json(requests)
}

/// All VFs as they are, one JSON object per line, then each that changes; now and then an empty
/// line, lest silence be taken for death. Whoever reads slowly misses steps and never the last.
#[utoipa::path(get, path = "/v1/events",
    responses((status = 200, body = VfEntry, content_type = "application/x-ndjson")))]
async fn follow(
    State(Daemon { inventory, .. }): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Response {
    let lines = events::lines(inventory, move |entry| peer.sees(entry));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (headers, Body::from_stream(lines)).into_response()
}

/// Puts a PF into maintenance; answers its VFs that are still held.
#[utoipa::path(post, path = "/v1/pfs/{pf}/drain",
    params(("pf" = String, Path, description = "Network interface of the PF")),
    responses((status = 200, body = [VfEntry]), (status = "default", body = OpError)))]
async fn drain(
    State(daemon): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(pf): Path<String>,
) -> Result<Json<Vec<VfEntry>>, OpError> {
    set_maintenance(daemon, peer, pf, true).await
}

/// Ends a PF's maintenance; answers its VFs that are held.
#[utoipa::path(post, path = "/v1/pfs/{pf}/enable",
    params(("pf" = String, Path, description = "Network interface of the PF")),
    responses((status = 200, body = [VfEntry]), (status = "default", body = OpError)))]
async fn enable(
    State(daemon): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(pf): Path<String>,
) -> Result<Json<Vec<VfEntry>>, OpError> {
    set_maintenance(daemon, peer, pf, false).await
}

/// Answers the VFs of the PF that are held.
async fn set_maintenance(
    Daemon { pool, .. }: Daemon,
    peer: Peer,
    pf: String,
    on: bool,
) -> Result<Json<Vec<VfEntry>>, OpError> {
    if !peer.is_admin() {
        return Err(OpError::NotAdmin);
    }
    bounded(Op::Release, move || pool.set_maintenance(&pf, on)).await.map(Json)
}

/// Carries out one operation of the table, for the process that asks.
#[utoipa::path(post, path = "/v1/ops", request_body = Request,
    responses((status = 200, body = Reply), (status = "default", body = OpError)))]
async fn operation(
    State(daemon): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Json<Reply>, OpError> {
    let request: Request = serde_json::from_slice(&body)
        .map_err(|error| OpError::Invalid { reason: error.to_string() })?;
    let pid = peer.process()?;
    let Daemon { pool, doorbell, metrics, .. } = daemon;
    let op = request.op();
    let began = Instant::now();
    let outcome = bounded(op, move || {
        let outcome =
            may_name_port(&request, pid, peer).and_then(|()| pool.carry_out(&request, pid));
        // Also when nobody waits for the answer any more.
        if op == Op::Acquire {
            doorbell.ring();
        }
        outcome
    })
    .await;
    metrics.count(op, began.elapsed(), outcome.as_ref().err());
    outcome.map(Json)
}

/// A VM's traffic is moved from the port that is its own: another's policy is not its.
fn may_name_port(request: &Request, pid: u32, peer: Peer) -> Result<(), OpError> {
    let Request::Activate { port, .. } = request else { return Ok(()) };
    Ports::default().check(port, peer.caller()).inspect_err(|refused| {
        audit::request(pid, Some(port), request, &Err::<(), _>(refused.clone()));
    })
}

/// Does blocking work for at most the deadline. Work that takes longer still comes to its end
/// and is recorded; only the caller stops waiting.
pub(super) async fn bounded<T: Send + 'static>(
    op: Op,
    work: impl FnOnce() -> Result<T, OpError> + Send + 'static,
) -> Result<T, OpError> {
    match timeout(DEADLINE, spawn_blocking(work)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => {
            Err(OpError::Kernel { step: op.name().to_owned(), reason: panic.to_string() })
        }
        Err(_) => Err(OpError::Deadline { op, deadline_ms: DEADLINE.as_millis() as u64 }),
    }
}

impl IntoResponse for OpError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::NotOwner { .. } | Self::NotAdmin | Self::Port { .. } | Self::Policy { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::NoSuchLease { .. } => StatusCode::NOT_FOUND,
            Self::NoVfFree { .. }
            | Self::Queued { .. }
            | Self::Unsuitable { .. }
            | Self::WrongState { .. }
            | Self::StillOpen { .. } => StatusCode::CONFLICT,
            Self::Kernel { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotSupported { .. } => StatusCode::NOT_IMPLEMENTED,
            Self::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
        };
        (status, Json(self)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LeaseState;
    use crate::ops::{DeviceClass, MacAddr};

    #[test]
    fn a_vmm_sees_what_is_its_own_or_nobody_s() {
        let entry = |owner_pid| VfEntry {
            vf: "0000:01:10.0".parse().unwrap(),
            pf: "eth0".into(),
            index: 0,
            class: DeviceClass::Net,
            plugin: "igbvf".into(),
            iommu_group: 7,
            state: LeaseState::Active,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            owner_pid,
            vm: None,
            device: None,
            fault: None,
            maintenance: false,
            link_up: true,
            profiles: Vec::new(),
        };
        let own = rustix::process::geteuid().as_raw();
        let stranger = Peer { pid: Some(10), uid: Some(own + 1), gid: None };
        assert!(stranger.sees(&entry(Some(10))) && stranger.sees(&entry(None)));
        assert!(!stranger.sees(&entry(Some(11))));
        assert!(!Peer { pid: None, uid: None, gid: None }.sees(&entry(Some(11))));
        for uid in [0, own] {
            assert!(Peer { pid: Some(10), uid: Some(uid), gid: None }.sees(&entry(Some(11))));
        }
    }

    #[test]
    fn the_description_in_the_tree_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, openapi_json()).unwrap();
        }
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            file == openapi_json(),
            "pf-control/openapi.json differs from the code; run \
             `UPDATE_OPENAPI=1 cargo test -p pf-control the_description`"
        );
    }

    #[test]
    fn a_stranger_does_not_move_traffic_from_another_s_port() {
        let lease = crate::ops::LeaseId("0000:01:10.0".parse().unwrap());
        let activate =
            Request::Activate { lease, mac: MacAddr([2, 0, 0, 0, 0, 1]), port: "lo".into() };
        let own = rustix::process::geteuid().as_raw();
        let peer = |uid| Peer { pid: Some(10), uid: Some(uid), gid: Some(uid) };
        let refused = may_name_port(&activate, 10, peer(own + 1));
        assert!(matches!(refused, Err(OpError::Port { .. })), "{refused:?}");
        assert!(may_name_port(&activate, 10, peer(own)).is_ok());
        assert!(may_name_port(&Request::Quiesce { lease }, 10, peer(own + 1)).is_ok());
    }

    #[tokio::test]
    async fn only_an_admin_may_drain() {
        let dir = tempfile::tempdir().unwrap();
        let pool = crate::pool::fake_host::FakeHost::default().pool(1, &dir.path().join("store"));
        let pool = Arc::new(pool);
        let inventory = events::publish(Arc::clone(&pool));
        let doorbell = crate::server::watch::start(Arc::clone(&pool)).unwrap();
        let metrics = Arc::default();
        let daemon = Daemon { pool: Arc::clone(&pool), doorbell, inventory, metrics };
        let stranger =
            Peer { pid: Some(10), uid: Some(rustix::process::geteuid().as_raw() + 1), gid: None };
        for on in [true, false] {
            let answer = set_maintenance(daemon.clone(), stranger, "eth0".into(), on).await;
            assert_eq!(answer.err(), Some(OpError::NotAdmin));
        }
        assert!(!pool.list()[0].maintenance);
    }
}
