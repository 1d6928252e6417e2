//! The HTTP interface: one entry for the op table, the inventory, and a ping.

use super::watch::Doorbell;
use crate::client::Pong;
use crate::ops::{Op, OpError, Reply, Request};
use crate::pool::Pool;
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

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
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        let pid = credentials.and_then(|credentials| credentials.pid());
        Self { pid: pid.and_then(|pid| pid.try_into().ok()).filter(|&pid| pid != 0) }
    }
}

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Daemon {
    pub(super) pool: Arc<Pool>,
    /// Told when a VF has a new owner to be watched.
    pub(super) doorbell: Doorbell,
}

pub(super) fn routes(daemon: Daemon) -> Router {
    Router::new()
        .route("/v1/ops", post(operation))
        .route("/v1/vfs", get(list))
        .route("/v1/ping", get(ping))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(daemon)
}

async fn ping() -> Json<Pong> {
    Json(Pong { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() })
}

async fn list(State(Daemon { pool, .. }): State<Daemon>) -> Result<Response, OpError> {
    let entries = bounded(Op::GetInfo, move || Ok(pool.list())).await?;
    Ok(Json(entries).into_response())
}

async fn operation(
    State(daemon): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Json<Reply>, OpError> {
    let request: Request = serde_json::from_slice(&body)
        .map_err(|error| OpError::Invalid { reason: error.to_string() })?;
    let pid = peer.pid.ok_or_else(|| OpError::Invalid {
        reason: "the kernel does not tell which process asks: use the same PID namespace".into(),
    })?;
    let Daemon { pool, doorbell } = daemon;
    let op = request.op();
    let reply = bounded(op, move || {
        let outcome = pool.carry_out(&request, pid);
        // Also when nobody waits for the answer any more.
        if op == Op::Acquire {
            doorbell.ring();
        }
        outcome
    });
    Ok(Json(reply.await?))
}

/// Does blocking work for at most the deadline. Work that takes longer still comes to its end
/// and is recorded; only the caller stops waiting.
async fn bounded<T: Send + 'static>(
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
            Self::NotOwner { .. } => StatusCode::FORBIDDEN,
            Self::NoSuchLease { .. } => StatusCode::NOT_FOUND,
            Self::NoVfFree { .. }
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
