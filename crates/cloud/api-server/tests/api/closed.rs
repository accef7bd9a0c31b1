use aos_api::paths;
use aos_api_server::openapi;
use aos_pki::{CertKind, CertProfile, KeyAlgorithm, PeerIdentity};
use aos_types::SystemId;
use http::Method;
use serde_json::{Value, json};

use crate::bench::{As, Bench};

/// Every operation of the document, with something in the places of its path.
fn operations() -> Vec<(Method, String)> {
    let document = serde_json::to_value(openapi()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = ["{id}", "{unit}", "{service}", "{node}", "{variable}"]
            .iter()
            .fold(path.clone(), |path, place| {
                path.replace(place, "0190a0a0-0000-7000-8000-000000000000")
            });
        for method in item.as_object().unwrap().keys() {
            if let Ok(method) = method.to_uppercase().parse::<Method>()
                && ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str())
            {
                operations.push((method, filled.clone()));
            }
        }
    }
    assert!(operations.len() > 45, "{}", operations.len());
    operations
}

/// A body that the three open operations can read, with credentials that are wrong.
fn body(path: &str) -> Option<Value> {
    match path {
        paths::SIGN_IN => Some(json!({"username": "ada", "password": "wrong password"})),
        paths::OWNER_SETUP => {
            Some(json!({"token": "wrong", "username": "eve", "password": "long enough to be one"}))
        }
        paths::ENROL => {
            let csr = aos_pki::KeyPair::generate(KeyAlgorithm::EcP256)
                .unwrap()
                .request("x", &[])
                .unwrap();
            Some(
                json!({"claim_code": "WRONG", "system_uid": "u", "nodes": [{"id": "main"}],
                "online_public_csr": csr, "offline_public_csr": csr}),
            )
        }
        _ => None,
    }
}

#[tokio::test]
async fn every_operation_answers_401_without_a_credential() {
    let bench = Bench::new().await;
    bench.owner().await;
    for (method, path) in operations() {
        let answer = bench
            .call(&As::default(), method.clone(), &path, body(&path))
            .await;
        assert_eq!(answer.status, 401, "{method} {path}");
        let said = answer.json();
        assert!(said["message"].is_string(), "{method} {path}: {said}");
    }
}

#[tokio::test]
async fn false_credentials_are_worth_nothing_anywhere() {
    let bench = Bench::new().await;
    bench.owner().await;
    let now = aos_time::Clock::now(&bench.clock);
    let issue = |profile: &CertProfile| {
        let pair = bench
            .authority
            .issue_pair(KeyAlgorithm::EcP256, profile, now)
            .unwrap();
        As::peer(PeerIdentity::from_der(&pair.issued.certificate).unwrap())
    };
    let unit = SystemId::new("unit").unwrap();
    let liars = [
        As::session(&format!("{}=made-up", paths::SESSION_COOKIE)),
        As::session(&format!("{}=", paths::SESSION_COOKIE)),
        issue(&CertProfile::unit(CertKind::Online, &unit, None)),
        issue(&CertProfile::unit(CertKind::Iam, &unit, None)),
        // Of the right kind and authority, but not one that is on record: as after a deletion.
        issue(&CertProfile::user("somebody", "ada", "localhost")),
    ];
    for who in &liars {
        for path in [
            paths::ME,
            paths::UNITS,
            paths::EVENTS,
            paths::OPENAPI,
            "/api/v11/nothing/",
        ] {
            let answer = bench.get(who, path).await;
            assert_eq!(answer.status, 401, "{path}");
        }
    }
}

#[tokio::test]
async fn the_document_its_pages_and_what_is_not_there_are_closed_too() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let nobody = As::default();
    for path in [
        paths::OPENAPI,
        paths::DOCS,
        "/api/v11/docs/",
        "/api/v11/docs/swagger-ui.css",
        "/api/v11/none/",
        "/api/",
        "/api/v12/units/",
        "/api/v11/units",
    ] {
        let answer = bench.get(&nobody, path).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    let document = bench.get(&owner, paths::OPENAPI).await.expect(200);
    assert_eq!(document["info"]["title"], "AosCloud");
    let short = bench.get(&owner, paths::DOCS).await;
    assert!(short.status.is_redirection(), "{}", short.status);
    assert_eq!(short.headers["location"], "/api/v11/docs/");
    let docs = bench.get(&owner, "/api/v11/docs/").await;
    assert_eq!(docs.status, 200);
    let policy = docs.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'self';"), "{policy}");
    let page = String::from_utf8(docs.body).unwrap();
    assert!(!page.contains("<script>"), "no inline script: {page}");
    let missing = bench.get(&owner, "/api/v11/none/").await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["hint"].as_str().unwrap().contains("slash"));
    // Another method than those there are.
    let wrong = bench
        .call(&nobody, Method::PUT, paths::UNITS, Some(json!({})))
        .await;
    assert!(
        [401, 405].contains(&wrong.status.as_u16()),
        "{}",
        wrong.status
    );
}

#[tokio::test]
async fn static_files_are_open_and_every_answer_has_security_headers() {
    let bench = Bench::new().await;
    let nobody = As::default();
    for path in ["/", "/welcome", "/units/some-room", "/assets/missing.js"] {
        let answer = bench.get(&nobody, path).await;
        assert!(
            [200, 404].contains(&answer.status.as_u16()),
            "{path}: {}",
            answer.status
        );
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(policy.contains("script-src 'self';"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer");
    }
    assert_eq!(
        bench.get(&nobody, "/assets/missing.js").await.status,
        404,
        "a missing script is not answered with a page"
    );
    let api = bench.get(&nobody, paths::ME).await;
    assert_eq!(api.headers["cache-control"], "no-store");
    assert_eq!(api.headers["x-frame-options"], "DENY");
    let written = bench.call(&nobody, Method::POST, "/", None).await;
    assert_eq!(written.status, 405);
}
