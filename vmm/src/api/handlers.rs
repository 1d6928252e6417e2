//! The routes. Whatever may block runs on a thread that may, so that `status` answers while an
//! `attach` is under way.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use utoipa::OpenApi;

use super::error::{ApiError, ErrorBody, ErrorCode};
use super::status::{SwitchReport, VmStatus};
use super::{MigrateRequest, MigrationView, Services, SnapshotRequest, status};
use crate::metrics;
use crate::migration::Report;

/// The interface, as OpenAPI.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "vmm",
        description = "Control of one virtual machine, over HTTP on its Unix socket.",
    ),
    paths(
        vm_status,
        pause,
        resume,
        shutdown,
        attach,
        attach_when_free,
        detach,
        migrate,
        snapshot,
        migration,
        cancel_migration,
        prometheus
    ),
    components(schemas(ErrorBody, status::DeviceStatus))
)]
struct ApiDescription;

/// The OpenAPI description as JSON, the same text as `vmm/openapi.json`.
///
/// # Panics
/// Never: the description consists of strings.
pub fn openapi_json() -> String {
    let mut text = ApiDescription::openapi().to_pretty_json().expect("strings make JSON");
    text.push('\n');
    text
}

pub(super) fn router(services: Services) -> Router {
    Router::new()
        .route("/v1/vm", get(vm_status))
        .route("/v1/vm/pause", post(pause))
        .route("/v1/vm/resume", post(resume))
        .route("/v1/vm/shutdown", post(shutdown))
        .route("/v1/vm/migrate", post(migrate))
        .route("/v1/vm/snapshot", post(snapshot))
        .route("/v1/vm/migration", get(migration))
        .route("/v1/vm/migration/cancel", post(cancel_migration))
        .route("/v1/devices/{id}/attach", post(attach))
        .route("/v1/devices/{id}/attach-when-free", post(attach_when_free))
        .route("/v1/devices/{id}/detach", post(detach))
        .route("/metrics", get(prometheus))
        .route("/openapi.json", get(description))
        .fallback(no_route)
        .with_state(services)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody { error: self })).into_response()
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<R: Send + 'static>(
    services: Services,
    work: impl FnOnce(&Services) -> Result<R, ApiError> + Send + 'static,
) -> Result<R, ApiError> {
    tokio::task::spawn_blocking(move || work(&services))
        .await
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the request's thread panicked"))?
}

/// Status of the VM and its devices
#[utoipa::path(get, path = "/v1/vm", responses((status = 200, body = VmStatus)))]
async fn vm_status(State(services): State<Services>) -> Result<Json<VmStatus>, ApiError> {
    blocking(services, |services| Ok(Json(services.status()))).await
}

/// Hold all vCPUs
#[utoipa::path(post, path = "/v1/vm/pause",
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
async fn pause(State(services): State<Services>) -> Result<StatusCode, ApiError> {
    blocking(services, |services| services.machine.pause()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let the vCPUs run on
#[utoipa::path(post, path = "/v1/vm/resume",
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
async fn resume(State(services): State<Services>) -> Result<StatusCode, ApiError> {
    blocking(services, |services| services.machine.resume()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End the VM without asking the guest
#[utoipa::path(post, path = "/v1/vm/shutdown",
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
async fn shutdown(State(services): State<Services>) -> Result<StatusCode, ApiError> {
    blocking(services, |services| services.machine.shutdown()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Put a device's data path on a VF
#[utoipa::path(post, path = "/v1/devices/{id}/attach",
    params(("id" = String, Path, description = "Name of the device")),
    responses((status = 200, body = SwitchReport), (status = "4XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn attach(
    State(services): State<Services>,
    Path(id): Path<String>,
) -> Result<Json<SwitchReport>, ApiError> {
    blocking(services, move |services| services.device(&id)?.attach()).await.map(Json)
}

/// Put a device's data path on a VF as soon as it can have one
///
/// Answers at once; the status tells when it is there. Detach ends the wish.
#[utoipa::path(post, path = "/v1/devices/{id}/attach-when-free",
    params(("id" = String, Path, description = "Name of the device")),
    responses((status = 202), (status = "4XX", body = ErrorBody)))]
async fn attach_when_free(
    State(services): State<Services>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    blocking(services, move |services| services.device(&id)?.attach_when_free()).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Take a device's data path back to emulation
#[utoipa::path(post, path = "/v1/devices/{id}/detach",
    params(("id" = String, Path, description = "Name of the device")),
    responses((status = 200, body = SwitchReport), (status = "4XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn detach(
    State(services): State<Services>,
    Path(id): Path<String>,
) -> Result<Json<SwitchReport>, ApiError> {
    blocking(services, move |services| services.device(&id)?.detach()).await.map(Json)
}

/// Move the VM to another host
///
/// Answers when it runs there; `/v1/vm/migration` tells how far it is meanwhile.
#[utoipa::path(post, path = "/v1/vm/migrate", request_body = MigrateRequest,
    responses((status = 200, body = Report), (status = "4XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn migrate(
    State(services): State<Services>,
    request: Result<Json<MigrateRequest>, JsonRejection>,
) -> Result<Json<Report>, ApiError> {
    let Json(request) = request.map_err(not_understood)?;
    blocking(services, move |services| services.machine.migrate(request)).await.map(Json)
}

/// Save the VM to a folder
#[utoipa::path(post, path = "/v1/vm/snapshot", request_body = SnapshotRequest,
    responses((status = 200, body = Report), (status = "4XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn snapshot(
    State(services): State<Services>,
    request: Result<Json<SnapshotRequest>, JsonRejection>,
) -> Result<Json<Report>, ApiError> {
    let Json(request) = request.map_err(not_understood)?;
    blocking(services, move |services| services.machine.snapshot(request)).await.map(Json)
}

/// How far a move or a save is, and how the last one ended
#[utoipa::path(get, path = "/v1/vm/migration", responses((status = 200, body = MigrationView)))]
async fn migration(State(services): State<Services>) -> Result<Json<MigrationView>, ApiError> {
    blocking(services, |services| Ok(Json(services.machine.migration()))).await
}

/// End the move or save that is under way; the VM goes on here
#[utoipa::path(post, path = "/v1/vm/migration/cancel",
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
async fn cancel_migration(State(services): State<Services>) -> Result<StatusCode, ApiError> {
    blocking(services, |services| services.machine.cancel_migration()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn not_understood(error: JsonRejection) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, error.body_text())
}

/// Counters as Prometheus text
#[utoipa::path(get, path = "/metrics",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn prometheus(State(services): State<Services>) -> Result<Response, ApiError> {
    let text = blocking(services, |services| Ok(metrics::render(&services.status()))).await?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json()).into_response()
}

async fn no_route() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is no such resource")
        .hint("GET /openapi.json describes the interface")
}
