//! One HTTP request over the daemon's Unix socket, with a deadline around all of it.

use super::ClientError;
use crate::ops::{OpError, Reply, Request as OpRequest};
use crate::port::descriptor;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
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

/// Reads a text.
pub(super) fn text(socket: &Path, deadline: Duration, path: &str) -> Result<String, ClientError> {
    run(deadline, path, async {
        let answer = send(socket, path, Request::get(path), Vec::new()).await?;
        let (status, bytes) = collect(path, answer).await?;
        match status.is_success() {
            true => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            false => decode(status, &bytes),
        }
    })
}

/// Posts an empty request.
pub(super) fn post<T: for<'a> Deserialize<'a>>(
    socket: &Path,
    deadline: Duration,
    path: &str,
) -> Result<T, ClientError> {
    run(deadline, path, exchange(socket, path, Request::post(path), Vec::new()))
}

/// Asks for an open file.
pub(super) fn open(
    socket: &Path,
    deadline: Duration,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<OwnedFd, ClientError> {
    let protocol = |reason: String| ClientError::Protocol { reason };
    let body = body.map(serde_json::to_vec).transpose();
    let body = body.map_err(|error| protocol(error.to_string()))?.unwrap_or_default();
    let request = Request::post(path)
        .header("content-type", "application/json")
        .header("connection", "upgrade")
        .header("upgrade", descriptor::PROTOCOL);
    let died = |reason: String| ClientError::Died { call: path.to_owned(), reason };
    let stream = run(deadline, path, async {
        let mut answer = send(socket, path, request, body).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (status, bytes) = collect(path, answer).await?;
            // A refusal; a success would be another program's.
            decode::<()>(status, &bytes)?;
            return Err(protocol("no file is offered".to_owned()));
        }
        let connection = hyper::upgrade::on(&mut answer).await;
        let connection = connection.map_err(|error| died(error.to_string()))?;
        let parts = connection
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| protocol("the connection is no Unix socket".to_owned()))?;
        parts.io.into_inner().into_std().map_err(|error| died(error.to_string()))
    })?;
    descriptor::take(stream, deadline).map_err(|error| died(error.to_string()))
}

/// Follows a document that never ends, line by line, until `line` breaks off, the daemon ends, or
/// nothing comes for as long as `silence`.
pub(super) fn follow<B>(
    socket: &Path,
    silence: Duration,
    path: &str,
    mut line: impl FnMut(&[u8]) -> Result<ControlFlow<B>, ClientError>,
) -> Result<B, ClientError> {
    let died = |reason: String| ClientError::Died { call: path.to_owned(), reason };
    runtime()?.block_on(async {
        let timed_out = |_| ClientError::TimedOut { call: path.to_owned(), after: silence };
        let answer = send(socket, path, Request::get(path), Vec::new());
        let answer = tokio::time::timeout(silence, answer).await.map_err(timed_out)??;
        let status = answer.status();
        let mut body = answer.into_body();
        let mut text = Vec::new();
        loop {
            let frame = tokio::time::timeout(silence, body.frame()).await.map_err(timed_out)?;
            let Some(frame) = frame else { return Err(died("the daemon has ended".to_owned())) };
            let frame = frame.map_err(|error| died(error.to_string()))?;
            text.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            if !status.is_success() || text.len() > MAX_ANSWER {
                return decode::<()>(status, &text)
                    .and(Err(ClientError::Protocol { reason: "an endless line".to_owned() }));
            }
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let rest = text.split_off(end + 1);
                let whole = std::mem::replace(&mut text, rest);
                if let ControlFlow::Break(value) = line(&whole[..end])? {
                    return Ok(value);
                }
            }
        }
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, ClientError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ClientError::Protocol { reason: error.to_string() })
}

/// Runs `future` on this thread, at most until the deadline.
fn run<T>(
    deadline: Duration,
    call: &str,
    future: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    runtime()?
        .block_on(async { tokio::time::timeout(deadline, future).await })
        .unwrap_or_else(|_| Err(ClientError::TimedOut { call: call.to_owned(), after: deadline }))
}

async fn exchange<T: for<'a> Deserialize<'a>>(
    socket: &Path,
    call: &str,
    request: hyper::http::request::Builder,
    body: Vec<u8>,
) -> Result<T, ClientError> {
    let answer = send(socket, call, request, body).await?;
    let (status, bytes) = collect(call, answer).await?;
    decode(status, &bytes)
}

async fn collect(
    call: &str,
    answer: hyper::Response<Incoming>,
) -> Result<(StatusCode, Bytes), ClientError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let died = |reason: String| ClientError::Died { call: call.to_owned(), reason };
    Ok((status, body.map_err(|error| died(error.to_string()))?.to_bytes()))
}

async fn send(
    socket: &Path,
    call: &str,
    request: hyper::http::request::Builder,
    body: Vec<u8>,
) -> Result<hyper::Response<Incoming>, ClientError> {
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
    tokio::spawn(connection.with_upgrades());
    let request = request
        .header("host", "localhost")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| ClientError::Protocol { reason: error.to_string() })?;
    sender.send_request(request).await.map_err(|error| died(error.to_string()))
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
