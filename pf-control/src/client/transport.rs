//! One HTTP request over the daemon's Unix socket, with a deadline around all of it.

use super::ClientError;
use crate::ops::{OpError, Reply, Request as OpRequest};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// No answer is near this size, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Sends an operation and reads its reply.
pub(super) fn call(
    socket: &Path,
    deadline: Duration,
    request: &OpRequest,
) -> Result<Reply, ClientError> {
    let body = serde_json::to_vec(request)
        .map_err(|error| ClientError::Protocol { reason: error.to_string() })?;
    let name = request.op().name();
    let request = Request::post("/v1/ops").header("content-type", "application/json");
    run(deadline, name, exchange(socket, name, request, body))
}

/// Reads a document.
pub(super) fn get<T: for<'a> Deserialize<'a>>(
    socket: &Path,
    deadline: Duration,
    path: &str,
) -> Result<T, ClientError> {
    run(deadline, path, exchange(socket, path, Request::get(path), Vec::new()))
}

/// Runs `future` on this thread, at most until the deadline.
fn run<T>(
    deadline: Duration,
    call: &str,
    future: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ClientError::Protocol { reason: error.to_string() })?;
    runtime
        .block_on(async { tokio::time::timeout(deadline, future).await })
        .unwrap_or_else(|_| Err(ClientError::TimedOut { call: call.to_owned(), after: deadline }))
}

async fn exchange<T: for<'a> Deserialize<'a>>(
    socket: &Path,
    call: &str,
    request: hyper::http::request::Builder,
    body: Vec<u8>,
) -> Result<T, ClientError> {
    let died = |reason: String| ClientError::Died { call: call.to_owned(), reason };
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let socket = socket.to_owned();
        match source.kind() {
            ErrorKind::PermissionDenied => ClientError::Permission { socket, source },
            _ => ClientError::NotRunning { socket, source },
        }
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| died(error.to_string()))?;
    tokio::spawn(connection);
    let request = request
        .header("host", "localhost")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| ClientError::Protocol { reason: error.to_string() })?;
    let answer = sender.send_request(request).await.map_err(|error| died(error.to_string()))?;
    let status = answer.status();
    let bytes = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| died(error.to_string()))?
        .to_bytes();
    decode(status, &bytes)
}

/// A success carries `T`, everything else an [`OpError`].
fn decode<T: for<'a> Deserialize<'a>>(status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
    let garbled = |error: serde_json::Error| ClientError::Protocol {
        reason: format!("{status}: {error} in {:?}", String::from_utf8_lossy(body)),
    };
    if status.is_success() {
        serde_json::from_slice(body).map_err(garbled)
    } else {
        Err(serde_json::from_slice::<OpError>(body).map_err(garbled)?.into())
    }
}
