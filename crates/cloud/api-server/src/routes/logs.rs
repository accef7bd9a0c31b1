//! Logs of Units: asked for, read, followed and downloaded.

use aos_api::{ListQuery, LogLines, LogLinesQuery, LogRequest, NewLogRequest, Page, paths};
use axum::{
    Json,
    body::Body as HttpBody,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};

use crate::{
    ApiError, ApiState, Caller,
    extract::{Body, Path, Query, UnitId, id},
    log_lines::{self, MOST_PARTS},
    openapi::Refused,
};

/// Requests for logs of a Unit, the newest first
#[utoipa::path(get, path = paths::UNIT_LOGS, tag = "logs", operation_id = "units_logs_list", params(UnitId, ListQuery),
    responses((status = 200, description = "They", body = Page<LogRequest>), Refused))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<LogRequest>>, ApiError> {
    Ok(Json(state.db().logs(&caller.actor(), &unit, &query).await?))
}

/// Ask a Unit for logs
///
/// The answer comes later: read the request again, or listen to `log` events. Every request ends within a deadline, with
/// lines or with why there are none.
#[utoipa::path(post, path = paths::UNIT_LOGS, tag = "logs", operation_id = "units_logs_create", params(UnitId),
    request_body = NewLogRequest, responses((status = 201, description = "Asked", body = LogRequest), Refused))]
pub(crate) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Body(new): Body<NewLogRequest>,
) -> Result<(StatusCode, Json<LogRequest>), ApiError> {
    let log = state.db().request_log(&caller.actor(), &unit, &new).await?;
    Ok((StatusCode::CREATED, Json(log)))
}

/// One request for logs
#[utoipa::path(get, path = paths::UNIT_LOG, tag = "logs", operation_id = "units_logs_read",
    params(UnitId, ("log" = String, Path, description = "Id of the request")),
    responses((status = 200, description = "It", body = LogRequest), Refused))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    Path((unit, log)): Path<(String, String)>,
) -> Result<Json<LogRequest>, ApiError> {
    let log = id("log", &log)?;
    Ok(Json(state.db().log(&caller.actor(), &unit, log).await?))
}

/// Remove a request for logs with all that came of it
#[utoipa::path(delete, path = paths::UNIT_LOG, tag = "logs", operation_id = "units_logs_delete",
    params(UnitId, ("log" = String, Path, description = "Id of the request")),
    responses((status = 204, description = "Removed"), Refused))]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path((unit, log)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let log = id("log", &log)?;
    state.db().delete_log(&caller.actor(), &unit, log).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End a live log
#[utoipa::path(post, path = paths::UNIT_LOG_STOP, tag = "logs", operation_id = "units_logs_stop",
    params(UnitId, ("log" = String, Path, description = "Id of the request")),
    responses((status = 200, description = "It ends", body = LogRequest), Refused))]
pub(crate) async fn stop(
    State(state): State<ApiState>,
    caller: Caller,
    Path((unit, log)): Path<(String, String)>,
) -> Result<Json<LogRequest>, ApiError> {
    let log = id("log", &log)?;
    Ok(Json(
        state.db().stop_log(&caller.actor(), &unit, log).await?,
    ))
}

/// Lines of a log, the oldest first
#[utoipa::path(get, path = paths::UNIT_LOG_LINES, tag = "logs", operation_id = "units_logs_lines",
    params(UnitId, ("log" = String, Path, description = "Id of the request"), LogLinesQuery),
    responses((status = 200, description = "They", body = LogLines), Refused))]
pub(crate) async fn lines(
    State(state): State<ApiState>,
    caller: Caller,
    Path((unit, log)): Path<(String, String)>,
    Query(query): Query<LogLinesQuery>,
) -> Result<Json<LogLines>, ApiError> {
    let (actor, log) = (caller.actor(), id("log", &log)?);
    let window = log_lines::Window::read(&query)?;
    let from = window.first_part();
    // What is before that part cannot be wanted. A part may come while they are read: it is read next time.
    let parts = state
        .db()
        .log_parts(&actor, &unit, log, from, MOST_PARTS)
        .await?;
    let lines = tokio::task::spawn_blocking(move || window.lines(parts)).await;
    Ok(Json(lines.map_err(|error| ApiError::internal(&error))?))
}

/// A log as a file: text, compressed by gzip
#[utoipa::path(get, path = paths::UNIT_LOG_FILE, tag = "logs", operation_id = "units_logs_download",
    params(UnitId, ("log" = String, Path, description = "Id of the request")),
    responses((status = 200, description = "The file", body = Vec<u8>, content_type = "application/gzip"), Refused))]
pub(crate) async fn download(
    State(state): State<ApiState>,
    caller: Caller,
    Path((unit, log)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (actor, log) = (caller.actor(), id("log", &log)?);
    let found = state.db().log(&actor, &unit, log).await?;
    // Part by part: a log may be longer than what one answer should hold in memory.
    let next = futures::stream::try_unfold(
        (state.db().clone(), None),
        move |(db, after): (aos_db::Db, Option<i64>)| {
            let (actor, unit) = (actor.clone(), unit.clone());
            async move {
                let parts = db.log_parts(&actor, &unit, log, after, 1).await?;
                let Some(part) = parts.into_iter().next() else {
                    return Ok(None);
                };
                let place = part.place;
                Ok::<_, aos_db::DbError>(Some((
                    bytes::Bytes::from(part.content),
                    (db, Some(place)),
                )))
            }
        },
    );
    let name = format!(
        "{}-{}.log.gz",
        found.created_at.to_string().replace([':', '.'], "-"),
        found.id
    );
    let mut response = HttpBody::from_stream(next).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/gzip"),
    );
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}
