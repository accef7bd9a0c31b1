use aos_api::{
    AddServices, AddUnits, ListQuery, NewAssignment, NewSubject, Overrides, Page, Subject,
    SubjectPatch, SubjectService, SubjectUnit, paths,
};
use axum::{Json, extract::State};
use http::StatusCode;

use crate::{
    ApiError, ApiState, Caller,
    extract::{Body, Id, Path, Query, id},
    openapi::Refused,
};

const WHAT: &str = "subject";
/// Most Units or services in one request.
const MAX_MEMBERS: usize = 1000;

/// Subjects
#[utoipa::path(get, path = paths::SUBJECTS, tag = "subjects", operation_id = "subjects_list", params(ListQuery),
    responses((status = 200, description = "A page", body = Page<Subject>), Refused))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Subject>>, ApiError> {
    Ok(Json(state.db().subjects(&caller.actor(), &query).await?))
}

/// Make a subject
#[utoipa::path(post, path = paths::SUBJECTS, tag = "subjects", operation_id = "subjects_create", request_body = NewSubject,
    responses((status = 201, description = "Made", body = Subject), Refused))]
pub(crate) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(new): Body<NewSubject>,
) -> Result<(StatusCode, Json<Subject>), ApiError> {
    let made = state.db().create_subject(&caller.actor(), &new).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// One subject
#[utoipa::path(get, path = paths::SUBJECT, tag = "subjects", operation_id = "subjects_read",
    params(Id), responses((status = 200, description = "It", body = Subject), Refused))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
) -> Result<Json<Subject>, ApiError> {
    Ok(Json(
        state
            .db()
            .subject(&caller.actor(), id(WHAT, &text)?)
            .await?,
    ))
}

/// Rename a subject or change its priority
#[utoipa::path(patch, path = paths::SUBJECT, tag = "subjects", operation_id = "subjects_update",
    params(Id), request_body = SubjectPatch,
    responses((status = 200, description = "Changed", body = Subject), Refused))]
pub(crate) async fn patch(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Body(patch): Body<SubjectPatch>,
) -> Result<Json<Subject>, ApiError> {
    Ok(Json(
        state
            .db()
            .patch_subject(&caller.actor(), id(WHAT, &text)?, &patch)
            .await?,
    ))
}

/// Delete a subject; what it brought leaves its Units
#[utoipa::path(delete, path = paths::SUBJECT, tag = "subjects", operation_id = "subjects_delete",
    params(Id), responses((status = 204, description = "Gone"), Refused))]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
) -> Result<StatusCode, ApiError> {
    state
        .db()
        .delete_subject(&caller.actor(), id(WHAT, &text)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The Units of a subject
#[utoipa::path(get, path = paths::SUBJECT_UNITS, tag = "subjects", operation_id = "subjects_units_list",
    params(Id, ListQuery),
    responses((status = 200, description = "A page", body = Page<SubjectUnit>), Refused))]
pub(crate) async fn units(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<SubjectUnit>>, ApiError> {
    Ok(Json(
        state
            .db()
            .subject_units(&caller.actor(), id(WHAT, &text)?, &query)
            .await?,
    ))
}

/// The Units that report a subject by themselves
#[utoipa::path(get, path = paths::SUBJECT_REPORTED, tag = "subjects", operation_id = "subjects_units_reported",
    params(Id, ListQuery), responses((status = 200, description = "A page", body = Page<SubjectUnit>), Refused))]
pub(crate) async fn reported(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<SubjectUnit>>, ApiError> {
    Ok(Json(
        state
            .db()
            .subject_reported(&caller.actor(), id(WHAT, &text)?, &query)
            .await?,
    ))
}

/// Subject, Units and services in one step, all or none: each Unit gets one new desired state
#[utoipa::path(post, path = paths::ASSIGNMENTS, tag = "subjects", operation_id = "assignments_create",
    request_body = NewAssignment, responses((status = 201, description = "The subject", body = Subject), Refused))]
pub(crate) async fn assign_at_once(
    State(state): State<ApiState>,
    caller: Caller,
    Body(new): Body<NewAssignment>,
) -> Result<(StatusCode, Json<Subject>), ApiError> {
    for (field, count) in [
        ("system_uids", new.system_uids.len()),
        ("services", new.services.len()),
    ] {
        if count > 0 {
            check_count(field, count)?;
        }
    }
    let made = state.db().assign(&caller.actor(), &new).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Put Units into a subject, all or none
#[utoipa::path(post, path = paths::SUBJECT_UNITS, tag = "subjects", operation_id = "subjects_units_create",
    params(Id), request_body = AddUnits,
    responses((status = 201, description = "The first page of its Units", body = Page<SubjectUnit>), Refused))]
pub(crate) async fn add_units(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Body(new): Body<AddUnits>,
) -> Result<(StatusCode, Json<Page<SubjectUnit>>), ApiError> {
    let id = id(WHAT, &text)?;
    check_count("system_uids", new.system_uids.len())?;
    let actor = caller.actor();
    state
        .db()
        .add_subject_units(&actor, id, &new.system_uids)
        .await?;
    let page = state
        .db()
        .subject_units(&actor, id, &ListQuery::default())
        .await?;
    Ok((StatusCode::CREATED, Json(page)))
}

/// Take a Unit out of a subject
#[utoipa::path(delete, path = paths::SUBJECT_UNIT, tag = "subjects", operation_id = "subjects_units_delete",
    params(Id, ("unit" = String, Path, description = "Id or system id of the Unit")),
    responses((status = 204, description = "Out"), Refused))]
pub(crate) async fn remove_unit(
    State(state): State<ApiState>,
    caller: Caller,
    Path((text, unit)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    state
        .db()
        .remove_subject_unit(&caller.actor(), id(WHAT, &text)?, &unit)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The services of a subject
#[utoipa::path(get, path = paths::SUBJECT_SERVICES, tag = "subjects", operation_id = "subjects_services_list",
    params(Id),
    responses((status = 200, description = "All", body = Page<SubjectService>), Refused))]
pub(crate) async fn services(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
) -> Result<Json<Page<SubjectService>>, ApiError> {
    Ok(Json(
        state
            .db()
            .subject_services(&caller.actor(), id(WHAT, &text)?)
            .await?,
    ))
}

/// Assign services to a subject, all or none
#[utoipa::path(post, path = paths::SUBJECT_SERVICES, tag = "subjects", operation_id = "subjects_services_create",
    params(Id), request_body = AddServices,
    responses((status = 201, description = "All its services", body = Page<SubjectService>), Refused))]
pub(crate) async fn assign(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Body(new): Body<AddServices>,
) -> Result<(StatusCode, Json<Page<SubjectService>>), ApiError> {
    let id = id(WHAT, &text)?;
    check_count("service_ids", new.service_ids.len())?;
    let actor = caller.actor();
    let overrides = Overrides {
        num_instances: new.num_instances,
        labels: new.labels,
        priority: new.priority,
        independent: new.independent,
    };
    state
        .db()
        .assign_services(&actor, id, &new.service_ids, &overrides)
        .await?;
    let all = state.db().subject_services(&actor, id).await?;
    Ok((StatusCode::CREATED, Json(all)))
}

/// Set what an assignment overrides
#[utoipa::path(put, path = paths::SUBJECT_SERVICE, tag = "subjects", operation_id = "subjects_services_update",
    params(Id, ("service" = String, Path, description = "Id or codename")),
    request_body = Overrides, responses((status = 200, description = "Set", body = SubjectService), Refused))]
pub(crate) async fn set_overrides(
    State(state): State<ApiState>,
    caller: Caller,
    Path((text, service)): Path<(String, String)>,
    Body(overrides): Body<Overrides>,
) -> Result<Json<SubjectService>, ApiError> {
    let id = id(WHAT, &text)?;
    let actor = caller.actor();
    let find = async || {
        let all = state.db().subject_services(&actor, id).await?;
        all.items
            .into_iter()
            .find(|row| row.service.id == service || row.service.codename == service)
            .ok_or_else(|| {
                ApiError::new(
                    StatusCode::NOT_FOUND,
                    "that service is not assigned to that subject",
                )
                .hint("assign it with POST first")
            })
    };
    find().await?;
    state
        .db()
        .assign_services(&actor, id, std::slice::from_ref(&service), &overrides)
        .await?;
    find().await.map(Json)
}

/// Take a service away from a subject
#[utoipa::path(delete, path = paths::SUBJECT_SERVICE, tag = "subjects", operation_id = "subjects_services_delete",
    params(Id, ("service" = String, Path, description = "Id or codename")),
    responses((status = 204, description = "Away"), Refused))]
pub(crate) async fn unassign(
    State(state): State<ApiState>,
    caller: Caller,
    Path((text, service)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    state
        .db()
        .unassign_service(&caller.actor(), id(WHAT, &text)?, &service)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_count(field: &str, count: usize) -> Result<(), ApiError> {
    if (1..=MAX_MEMBERS).contains(&count) {
        Ok(())
    } else {
        Err(ApiError::invalid(
            field,
            format!("must hold 1 to {MAX_MEMBERS} elements"),
        ))
    }
}
