//! The paths of REST `/api/v11`, shared by server, CLI and demo so that they cannot drift apart.
//!
//! Every path ends in a slash, as in AosCloud (`docs/protocol/rest.md`). The constants hold `{name}` where a value goes
//! (the server registers them as they are); [`fill`] puts values in.

/// What all paths start with.
pub const BASE: &str = "/api/v11";
/// The OpenAPI document.
pub const OPENAPI: &str = "/api/v11/openapi.json";
/// Swagger UI for people.
pub const DOCS: &str = "/api/v11/docs";

/// `POST`: name and password for a session cookie.
pub const SIGN_IN: &str = "/api/v11/sign-in/";
/// `POST`: ends the session.
pub const SIGN_OUT: &str = "/api/v11/sign-out/";
/// `POST`: the one-time owner token makes the first user.
pub const OWNER_SETUP: &str = "/api/v11/owner-setup/";
/// `GET`: who am I and what may I do.
pub const ME: &str = "/api/v11/users/me/";
/// `POST`: a certificate for the signed-in user.
pub const USER_CERTIFICATES: &str = "/api/v11/user-certificates/";
/// `GET`: the root certificate.
pub const ROOT_CERTIFICATE: &str = "/api/v11/root-certificate/";

/// `GET`, `POST`.
pub const UNIT_MODELS: &str = "/api/v11/unit-models/";
/// `GET`, `PATCH`, `DELETE`.
pub const UNIT_MODEL: &str = "/api/v11/unit-models/{id}/";
/// `GET`, `POST`: the versioned unit configurations of a model.
pub const UNIT_CONFIGS: &str = "/api/v11/unit-models/{id}/unit-configs/";

/// `PUT`: order a unit configuration for all Units of a model.
pub const MODEL_UNIT_CONFIG: &str = "/api/v11/unit-models/{id}/unit-config/";
/// `GET`: the Units of a model with their unit configurations.
pub const MODEL_UNITS: &str = "/api/v11/unit-models/{id}/units/";
/// `GET`, `PUT`: when Units of a model may be updated.
pub const MODEL_SCHEDULE: &str = "/api/v11/unit-models/{id}/update-schedule/";

/// `GET`, `POST`.
pub const UNITS: &str = "/api/v11/units/";
/// `GET`, `PATCH`, `DELETE`.
pub const UNIT: &str = "/api/v11/units/{id}/";
/// `GET`.
pub const UNIT_NODES: &str = "/api/v11/units/{id}/nodes/";
/// `PATCH`: pause and resume a Node.
pub const UNIT_NODE: &str = "/api/v11/units/{id}/nodes/{node}/";
/// `GET`, `PUT`, `DELETE`: the unit configuration that is ordered for a Unit.
pub const UNIT_CONFIG: &str = "/api/v11/units/{id}/unit-config/";
/// `GET`, `PUT`: when a Unit may be updated.
pub const UNIT_SCHEDULE: &str = "/api/v11/units/{id}/update-schedule/";
/// `GET`, `POST`: environment variables set over those of the items.
pub const UNIT_ENV_VARS: &str = "/api/v11/units/{id}/env-vars/";
/// `GET`: the states of its instances, as the cloud keeps them.
pub const UNIT_STATES: &str = "/api/v11/units/{id}/states/";
/// `GET`: one state with its content.
pub const UNIT_STATE: &str = "/api/v11/units/{id}/states/{service}/{subject}/{instance}/";
/// `GET`, `POST`: requests for logs of a Unit.
pub const UNIT_LOGS: &str = "/api/v11/units/{id}/logs/";
/// `GET`, `DELETE`: one request.
pub const UNIT_LOG: &str = "/api/v11/units/{id}/logs/{log}/";
/// `POST`: ends a live log.
pub const UNIT_LOG_STOP: &str = "/api/v11/units/{id}/logs/{log}/stop/";
/// `GET`: lines of a log.
pub const UNIT_LOG_LINES: &str = "/api/v11/units/{id}/logs/{log}/lines/";
/// `GET`: a log as a gzip file.
pub const UNIT_LOG_FILE: &str = "/api/v11/units/{id}/logs/{log}/download-log-file/";
/// `DELETE`.
pub const UNIT_ENV_VAR: &str = "/api/v11/units/{id}/env-vars/{variable}/";
/// `GET`: the subjects a Unit is in, and those it reports.
pub const UNIT_SUBJECTS: &str = "/api/v11/units/{id}/subjects/";
/// `GET`.
pub const UNIT_ITEMS: &str = "/api/v11/units/{id}/items/";
/// `GET`: what runs, grouped by subject and service.
pub const UNIT_SUBJECTS_SERVICES: &str = "/api/v11/units/{id}/subjects-services/";
/// `GET`: what happened and why.
pub const UNIT_TIMELINE: &str = "/api/v11/units/{id}/timeline/";
/// `GET`: what its Nodes and instances used, with limits and alerts.
pub const UNIT_MONITORING: &str = "/api/v11/units/{id}/monitoring/";
/// `GET`: its alerts.
pub const UNIT_ALERTS: &str = "/api/v11/units/{id}/alerts/";
/// `GET`: the desired state last composed for the Unit.
pub const UNIT_DESIRED_STATE: &str = "/api/v11/units/{id}/desired-state/";
/// `GET`: why a service is or is not there.
pub const UNIT_EXPLAIN: &str = "/api/v11/units/{id}/explain/";
/// `GET`: where each instance is and why not elsewhere.
pub const UNIT_WHY: &str = "/api/v11/units/{id}/why/";
/// `GET`.
pub const UNIT_CERTIFICATES: &str = "/api/v11/units/{id}/certificates/";
/// `POST`: has certificates of a Unit renewed.
pub const UNIT_RENEW_CERTIFICATES: &str = "/api/v11/units/{id}/renew-certificates/";
/// `POST`: a Unit that calls out enrols itself; the claim code is the credential.
pub const ENROL: &str = "/api/v11/units/enrol/";
/// `POST`: a person's tool provisions a Unit.
pub const PROVISIONING: &str = "/api/v11/units/provisioning/";
/// `GET`: provisioning tools that we work with.
pub const SUPPORTED_SOFTWARE: &str = "/api/v11/units/provisioning/supported-software/";

/// `GET`, `POST`.
pub const CLAIM_CODES: &str = "/api/v11/claim-codes/";
/// `DELETE`.
pub const CLAIM_CODE: &str = "/api/v11/claim-codes/{id}/";

/// `POST`: Subject, Units and services in one step.
pub const ASSIGNMENTS: &str = "/api/v11/assignments/";
/// `GET`, `POST`.
pub const SUBJECTS: &str = "/api/v11/subjects/";
/// `GET`, `PATCH`, `DELETE`.
pub const SUBJECT: &str = "/api/v11/subjects/{id}/";
/// `GET`, `POST`.
pub const SUBJECT_UNITS: &str = "/api/v11/subjects/{id}/units/";
/// `GET`: the Units that report the subject by themselves.
pub const SUBJECT_REPORTED: &str = "/api/v11/subjects/{id}/units/reported/";
/// `DELETE`.
pub const SUBJECT_UNIT: &str = "/api/v11/subjects/{id}/units/{unit}/";
/// `GET`, `POST`.
pub const SUBJECT_SERVICES: &str = "/api/v11/subjects/{id}/services/";
/// `PUT`, `DELETE`.
pub const SUBJECT_SERVICE: &str = "/api/v11/subjects/{id}/services/{service}/";

/// `GET`.
pub const SERVICES: &str = "/api/v11/services/";
/// `GET`, `DELETE`.
pub const SERVICE: &str = "/api/v11/services/{id}/";
/// `GET`.
pub const SERVICE_VERSIONS: &str = "/api/v11/services/{id}/service-versions/";
/// `GET`.
pub const SERVICE_UNITS: &str = "/api/v11/services/{id}/units/";

/// `GET`.
pub const BUNDLES: &str = "/api/v11/deployment-bundles/";
/// `GET`.
pub const BUNDLE: &str = "/api/v11/deployment-bundles/{id}/";
/// `POST`, multipart field `file`; `?check=true` for a dry run.
pub const BUNDLE_UPLOAD: &str = "/api/v11/deployment-bundles/upload/";

/// `GET`: server-sent events, one per change.
pub const EVENTS: &str = "/api/v11/events/";
/// `GET`: alerts of all Units.
pub const ALERTS: &str = "/api/v11/alerts/";
/// `GET`: who changed what, newest first.
pub const AUDIT: &str = "/api/v11/audit/";

/// Header that a browser page must send with each write it does by its session cookie. Any value counts: what matters
/// is that a foreign page cannot add it.
pub const CSRF_HEADER: &str = "x-aos-request";
/// Name of the session cookie.
pub const SESSION_COOKIE: &str = "__Host-aos-session";

/// Puts `values` in the places of `{…}` in `path`, in order, percent-encoding what cannot stand in a path.
///
/// ```
/// assert_eq!(aos_api::paths::fill(aos_api::paths::UNIT, &["a b"]), "/api/v11/units/a%20b/");
/// ```
pub fn fill(path: &str, values: &[&str]) -> String {
    let mut out = String::with_capacity(path.len() + 40);
    let mut values = values.iter();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (_, tail) = after.split_once('}').unwrap_or((after, ""));
        for byte in values.next().copied().unwrap_or_default().bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_and_placed_in_order() {
        assert_eq!(
            fill(SUBJECT_SERVICE, &["a/b", "http server"]),
            "/api/v11/subjects/a%2Fb/services/http%20server/"
        );
        assert_eq!(fill(UNITS, &[]), UNITS);
    }
}
