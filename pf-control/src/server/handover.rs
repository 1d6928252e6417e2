//! Open files for VMMs, which so need no right of their own to any device: the IOMMU group of a VF
//! that they hold, and their tap.

use super::http::{Daemon, Peer, bounded};
use super::listener::Connection;
use crate::inventory::process;
use crate::ops::{LeaseId, Op, OpError, OpenRequest};
use crate::port::{Ports, audit, descriptor};
use axum::extract::{ConnectInfo, FromRequest, Json, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::{AsyncReadExt, Interest};
use tokio::time::timeout;

/// How long a VMM may take to fetch what it asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Hands the open IOMMU group of a held VF to its holder, which may lock as much memory from then on
/// as it says that its guest has. The connection is switched to `npa-descriptor`.
#[utoipa::path(post, path = "/v1/leases/{lease}/open", request_body = OpenRequest,
    params(("lease" = String, Path, description = "Address of the VF")),
    responses((status = 101), (status = "default", body = OpError)))]
pub(super) async fn open_group(
    State(Daemon { pool, .. }): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(lease): Path<LeaseId>,
    mut request: Request,
) -> Result<Response, OpError> {
    let upgrade = upgrade_of(&mut request)?;
    let invalid = |error: &dyn std::error::Error| OpError::Invalid { reason: error.to_string() };
    let Json(OpenRequest { memory }) =
        Json::from_request(request, &()).await.map_err(|error| invalid(&error))?;
    let pid = peer.process()?;
    let group = bounded(Op::GetInfo, move || {
        let group = pool.open_group(lease, pid)?;
        // Without it, the VMM's mapping says what to do.
        if let Err(error) = process::allow_locked_memory(pid, memory) {
            tracing::warn!(pid, %error, "the limit of locked memory was not raised");
        }
        Ok(group)
    })
    .await?;
    Ok(hand_over(upgrade, group))
}

/// Hands the open tap to a process of the user, or the group, that the tap is for. The connection is
/// switched to `npa-descriptor`.
#[utoipa::path(post, path = "/v1/ports/{port}/open",
    params(("port" = String, Path, description = "Name of the tap")),
    responses((status = 101), (status = "default", body = OpError)))]
pub(super) async fn open_port(
    State(Daemon { pool, .. }): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(port): Path<String>,
    mut request: Request,
) -> Result<Response, OpError> {
    let upgrade = upgrade_of(&mut request)?;
    let open = move || {
        let told =
            pool.check_policy(&port).and_then(|()| Ports::default().open(&port, peer.caller()));
        audit::port(peer.process().ok(), &port, &told);
        told
    };
    let tap = bounded(Op::GetInfo, open).await?;
    Ok(hand_over(upgrade, tap))
}

fn upgrade_of(request: &mut Request) -> Result<OnUpgrade, OpError> {
    let wanted = request.headers().get(header::UPGRADE);
    let wanted = wanted.is_some_and(|value| value == descriptor::PROTOCOL);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    upgrade.filter(|_| wanted).ok_or_else(|| {
        let reason = format!("the answer is a file: ask with `Upgrade: {}`", descriptor::PROTOCOL);
        OpError::Invalid { reason }
    })
}

/// Answers, and passes `file` on the connection as soon as that has been switched.
fn hand_over(upgrade: OnUpgrade, file: OwnedFd) -> Response {
    tokio::spawn(async move {
        let outcome = match upgrade.await {
            Ok(connection) => pass(connection, file).await,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "a file was not fetched");
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, descriptor::PROTOCOL)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Waits for the process's byte without a thread: others may be as slow as it is.
async fn pass(connection: Upgraded, file: OwnedFd) -> io::Result<()> {
    let parts = downcast::<TokioIo<Connection>>(connection)
        .map_err(|_| io::Error::other("this is no Unix socket"))?;
    if !parts.read_buf.is_empty() {
        return Err(io::Error::other("the process did not wait for the answer"));
    }
    let mut connection = parts.io.into_inner();
    timeout(PATIENCE, connection.read_exact(&mut [0; 1])).await??;
    let stream = connection.stream();
    stream.writable().await?;
    stream.try_io(Interest::WRITABLE, || descriptor::send(stream, file))
}
