//! The REST API `/api/v11` of AosCloud as types: what server, CLI, demo and tests say to each other.
//!
//! Names are those of AosCloud's v11 (`docs/protocol/rest.md`); JSON keys are snake_case (register bodies of provisioning
//! tools keep their camelCase). Lists are [`Page`]`<T>` = `{items, total, offset}` and take [`ListQuery`]
//! (`limit`, `offset`, `search`). Refusals are [`ErrorBody`] = `{message, field?, hint?}` with 400 (rule), 401 (no
//! credential), 403 (no right, CSRF), 404 (absent or hidden), 409 (conflict), 413 (too big), 422 (schema), 429 (slow
//! down). Paths are constants in [`paths`] and end in a slash.
//!
//! **Credentials.** A client certificate of kind `user`, or the session cookie [`paths::SESSION_COOKIE`] that sign-in
//! sets. A write by cookie must carry the header [`paths::CSRF_HEADER`] (any value). `{id}` of a Unit is its UUID or its
//! system id; `{id}` of a service its UUID or codename.
//!
//! | method and path (below `/api/v11`) | request | answer |
//! |---|---|---|
//! | `POST /sign-in/` (open) | [`SignIn`] | 200 [`Session`], cookie |
//! | `POST /owner-setup/` (open, once) | [`OwnerSetup`] | 201 [`Session`], cookie |
//! | `POST /sign-out/` | - | 204 |
//! | `GET /users/me/` | - | [`Me`] |
//! | `POST /user-certificates/` | [`UserCertificateRequest`] | 201 [`UserCertificate`] |
//! | `GET /root-certificate/` | - | PEM text |
//! | `GET /unit-models/` | [`ListQuery`] | [`Page`]`<`[`UnitModel`]`>` |
//! | `POST /unit-models/` | [`NewUnitModel`] | 201 [`UnitModel`] |
//! | `GET`, `PATCH`, `DELETE /unit-models/{id}/` | -, [`UnitModelPatch`], - | [`UnitModel`], [`UnitModel`], 204 |
//! | `GET /unit-models/{id}/unit-configs/` | [`ListQuery`] | [`Page`]`<`[`UnitConfigVersion`]`>`, newest first |
//! | `POST /unit-models/{id}/unit-configs/` | [`NewUnitConfig`] | 201 [`UnitConfigVersion`] |
//! | `PUT /unit-models/{id}/unit-config/` | [`OrderUnitConfig`] | [`UnitModel`] |
//! | `GET /unit-models/{id}/units/` | [`ListQuery`] | [`Page`]`<`[`ModelUnit`]`>` |
//! | `GET`, `PUT /unit-models/{id}/update-schedule/` | -, [`UpdateSchedules`] | [`UpdateSchedules`] |
//! | `GET /units/` | [`UnitsQuery`] | [`Page`]`<`[`Unit`]`>` |
//! | `POST /units/` | [`NewUnit`] | 201 [`Unit`] |
//! | `GET`, `PATCH`, `DELETE /units/{id}/` | -, [`UnitPatch`], - | [`Unit`], [`Unit`], 204 |
//! | `GET /units/{id}/nodes/` | - | [`Page`]`<`[`Node`]`>` |
//! | `PATCH /units/{id}/nodes/{node}/` | [`NodePatch`] | [`Node`] |
//! | `GET`, `PUT`, `DELETE /units/{id}/unit-config/` | -, [`OrderUnitConfig`], - | [`UnitConfigOrder`] |
//! | `GET`, `PUT /units/{id}/update-schedule/` | -, [`UpdateSchedules`] | [`UnitUpdateSchedules`] |
//! | `GET /units/{id}/env-vars/` | [`EnvVarsQuery`] | [`Page`]`<`[`EnvVar`]`>` |
//! | `POST /units/{id}/env-vars/` | [`NewEnvVars`] | 201 [`Page`]`<`[`EnvVar`]`>` |
//! | `DELETE /units/{id}/env-vars/{variable}/` | - | 204 |
//! | `GET /units/{id}/subjects/` | - | [`Page`]`<`[`UnitSubject`]`>` |
//! | `GET /units/{id}/items/` | - | [`Page`]`<`[`UnitItem`]`>` |
//! | `GET /units/{id}/subjects-services/` | - | [`Page`]`<`[`UnitSubjectService`]`>` |
//! | `GET /units/{id}/timeline/` | [`ListQuery`] | [`Page`]`<`[`TimelineEvent`]`>`, newest first |
//! | `GET /units/{id}/monitoring/` | [`MonitoringQuery`] | [`UnitMonitoring`] |
//! | `GET /units/{id}/alerts/`, `GET /alerts/` | [`AlertsQuery`] | [`Page`]`<`[`Alert`]`>`, those told last first |
//! | `GET /units/{id}/desired-state/` | - | [`DesiredState`]; 404 if none was composed |
//! | `GET /units/{id}/explain/?service=` | [`ExplainQuery`] | [`Explanation`] |
//! | `GET /units/{id}/why/` | [`WhyQuery`] | [`UnitWhy`] |
//! | `GET /units/{id}/certificates/` | - | [`Page`]`<`[`UnitCertificate`]`>` |
//! | `POST /units/{id}/renew-certificates/` | [`RenewQuery`] | [`Page`]`<`[`UnitCertificate`]`>` |
//! | `POST /units/enrol/` (open: claim code) | [`EnrolUnit`] | 201 [`EnrolledUnit`] |
//! | `POST /units/provisioning/` | [`RegisterUnit`] | 201 [`ProvisionedUnit`] |
//! | `GET /units/provisioning/supported-software/` | - | [`SupportedSoftware`] |
//! | `GET /claim-codes/` | [`ListQuery`] | [`Page`]`<`[`ClaimCode`]`>` |
//! | `POST /claim-codes/` | [`NewClaimCode`] | 201 [`IssuedClaimCode`] |
//! | `DELETE /claim-codes/{id}/` | - | 204 |
//! | `POST /assignments/` | [`NewAssignment`] | 201 [`Subject`] |
//! | `GET /subjects/` | [`ListQuery`] | [`Page`]`<`[`Subject`]`>` |
//! | `POST /subjects/` | [`NewSubject`] | 201 [`Subject`] |
//! | `GET`, `PATCH`, `DELETE /subjects/{id}/` | -, [`SubjectPatch`], - | [`Subject`], [`Subject`], 204 |
//! | `GET /subjects/{id}/units/` | [`ListQuery`] | [`Page`]`<`[`SubjectUnit`]`>` |
//! | `GET /subjects/{id}/units/reported/` | [`ListQuery`] | [`Page`]`<`[`SubjectUnit`]`>` |
//! | `POST /subjects/{id}/units/` | [`AddUnits`] | 201 [`Page`]`<`[`SubjectUnit`]`>` |
//! | `DELETE /subjects/{id}/units/{unit}/` | - | 204 |
//! | `GET /subjects/{id}/services/` | - | [`Page`]`<`[`SubjectService`]`>` |
//! | `POST /subjects/{id}/services/` | [`AddServices`] | 201 [`Page`]`<`[`SubjectService`]`>` |
//! | `PUT /subjects/{id}/services/{service}/` | [`Overrides`] | [`SubjectService`] |
//! | `DELETE /subjects/{id}/services/{service}/` | - | 204 |
//! | `GET /services/` | [`ListQuery`] | [`Page`]`<`[`Service`]`>` |
//! | `GET`, `DELETE /services/{id}/` | - | [`Service`], 204 (409 while assigned) |
//! | `GET /services/{id}/service-versions/` | [`ListQuery`] | [`Page`]`<`[`ServiceVersion`]`>`, newest first |
//! | `GET /services/{id}/units/` | [`ListQuery`] | [`Page`]`<`[`ServiceUnit`]`>` |
//! | `POST /deployment-bundles/upload/` | [`UploadQuery`], multipart [`UploadForm`] | 201 [`DeploymentBundle`] |
//! | `GET /deployment-bundles/` | [`ListQuery`] | [`Page`]`<`[`DeploymentBundle`]`>`, newest first |
//! | `GET /deployment-bundles/{id}/` | - | [`DeploymentBundle`] |
//! | `GET /events/` | - | server-sent events, each a [`ChangeEvent`]; the event name is its topic |
//! | `GET /audit/` | [`ListQuery`] | [`Page`]`<`[`AuditEntry`]`>`, newest first |

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod account;
mod answers;
mod bundles;
mod env_vars;
mod events;
mod explain;
mod logs;
mod monitoring;
mod orders;
pub mod paths;
mod provisioning;
mod schedules;
mod services;
mod states;
mod subjects;
mod unit_models;
mod unit_update;
mod units;

pub use account::*;
pub use answers::*;
pub use bundles::*;
pub use env_vars::*;
pub use events::*;
pub use explain::*;
pub use logs::*;
pub use monitoring::*;
pub use orders::*;
pub use provisioning::*;
pub use schedules::*;
pub use services::*;
pub use states::*;
pub use subjects::*;
pub use unit_models::*;
pub use unit_update::*;
pub use units::*;
