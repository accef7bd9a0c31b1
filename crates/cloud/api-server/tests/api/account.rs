use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use aos_api::paths;
use aos_api_server::ensure_owner_link;
use aos_pki::{KeyAlgorithm, KeyPair};
use http::Method;
use serde_json::json;

use crate::bench::{As, Bench, PASSWORD};

#[tokio::test]
async fn the_owner_link_is_private_works_once_and_goes() {
    let bench = Bench::new().await;
    let first = bench.owner_token().await;
    let file = bench.data.join("owner-link.txt");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = bench.owner_token().await;
    assert_ne!(first, token, "each start makes a new one");
    let setup = |token: &str, username: &str, password: &str| json!({"token": token, "username": username, "password": password});
    let nobody = As::default();
    for (body, status) in [
        (setup(&first, "ada", PASSWORD), 401),
        (setup(&token, "a b", PASSWORD), 422),
        (setup(&token, "", PASSWORD), 422),
        (setup(&token, "ada", "short"), 422),
        (setup(&token, "ada", &"x".repeat(2000)), 422),
    ] {
        let answer = bench.post(&nobody, paths::OWNER_SETUP, body).await;
        assert_eq!(answer.status.as_u16(), status);
    }
    let answer = bench
        .post(&nobody, paths::OWNER_SETUP, setup(&token, "ada", PASSWORD))
        .await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    for part in [
        "__Host-aos-session=",
        "Secure",
        "HttpOnly",
        "SameSite=Strict",
        "Path=/",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"));
    let session = answer.expect(201);
    assert_eq!(session["user"]["role"], "oem");
    assert!(!file.exists());
    bench
        .post(&nobody, paths::OWNER_SETUP, setup(&token, "eve", PASSWORD))
        .await
        .expect(401);
    assert!(
        ensure_owner_link(&bench.state, &bench.data)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_person_signs_in_is_known_and_signs_out() {
    let bench = Bench::new().await;
    bench.owner().await;
    let nobody = As::default();
    let wrong = |body| bench.post(&nobody, paths::SIGN_IN, body);
    let bad = wrong(json!({"username": "ada", "password": "guess"}))
        .await
        .expect(401);
    let unknown = wrong(json!({"username": "bob", "password": "guess"}))
        .await
        .expect(401);
    assert_eq!(bad, unknown, "nothing tells which part is wrong");
    let answer = bench
        .post(
            &nobody,
            paths::SIGN_IN,
            json!({"username": "ada", "password": PASSWORD}),
        )
        .await;
    let who = As::session(&answer.cookie());
    answer.expect(200);
    let me = bench.get(&who, paths::ME).await.expect(200);
    assert_eq!(me["username"], "ada");
    assert_eq!(me["oem"]["title"], "Test");
    assert_eq!(me["signed_in_by"], "session");
    assert!(
        me["effective_permissions"]
            .as_array()
            .unwrap()
            .contains(&json!("deployment_bundles_create"))
    );
    let out = bench.call(&who, Method::POST, paths::SIGN_OUT, None).await;
    assert!(
        out.headers["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
    out.expect(204);
    bench.get(&who, paths::ME).await.expect(401);
}

#[tokio::test]
async fn sessions_expire() {
    let bench = Bench::new().await;
    let who = bench.owner().await;
    bench.get(&who, paths::ME).await.expect(200);
    bench.clock.advance(Duration::from_secs(12 * 3600 + 1));
    bench.get(&who, paths::ME).await.expect(401);
}

#[tokio::test]
async fn attempts_are_limited() {
    let bench = Bench::new().await;
    bench.owner().await;
    let nobody = As::default();
    let right = json!({"username": "ada", "password": PASSWORD});
    for _ in 0..10 {
        bench
            .post(
                &nobody,
                paths::SIGN_IN,
                json!({"username": "ada", "password": "x"}),
            )
            .await
            .expect(401);
    }
    let limited = bench.post(&nobody, paths::SIGN_IN, right.clone()).await;
    assert_eq!(limited.headers["retry-after"], "900");
    limited.expect(429);
    bench.clock.advance(Duration::from_secs(900));
    bench.post(&nobody, paths::SIGN_IN, right).await.expect(200);
}

#[tokio::test]
async fn writes_by_cookie_come_from_our_own_pages_only() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let new = json!({"label": "s"});
    let without = As {
        csrf: false,
        ..owner.clone()
    };
    bench
        .post(&without, paths::SUBJECTS, new.clone())
        .await
        .expect(403);
    bench.get(&without, paths::SUBJECTS).await.expect(200);
    for origin in ["https://evil.example", "null", "https://localhost:9999"] {
        let foreign = As {
            origin: Some(origin.into()),
            ..owner.clone()
        };
        bench
            .post(&foreign, paths::SUBJECTS, new.clone())
            .await
            .expect(403);
    }
    let own = As {
        origin: Some("https://localhost:10000".into()),
        ..owner.clone()
    };
    bench.post(&own, paths::SUBJECTS, new).await.expect(201);
    // A form of a foreign page cannot speak JSON.
    let form = bench.request(
        &As::default(),
        Method::POST,
        paths::SIGN_IN,
        Some("text/plain"),
        axum::body::Body::from("{\"username\":\"ada\",\"password\":\"x\"}"),
    );
    assert_eq!(bench.send(form).await.status, 415);
}

#[tokio::test]
async fn a_user_certificate_signs_in_without_cookie_and_csrf_header() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcP256] {
        let (who, _) = bench.certificate(&owner, algorithm).await;
        let peer = who.peer.clone().unwrap();
        assert_eq!(peer.common_name, "ada", "not what the request says");
        assert_eq!(peer.domain.as_deref(), Some("localhost"));
        let me = bench.get(&who, paths::ME).await.expect(200);
        assert_eq!(me["signed_in_by"], "certificate");
        bench
            .post(
                &who,
                paths::SUBJECTS,
                json!({"label": format!("{algorithm:?}")}),
            )
            .await
            .expect(201);
    }
    for bad in [
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ] {
        let said = bench
            .post(&owner, paths::USER_CERTIFICATES, json!({"csr": bad}))
            .await
            .expect(422);
        assert_eq!(said["field"], "csr");
    }
    let key = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
    let issued = bench
        .post(
            &owner,
            paths::USER_CERTIFICATES,
            json!({"csr": key.request("root", &["evil.example".into()]).unwrap()}),
        )
        .await
        .expect(201);
    assert!(!issued["serial"].as_str().unwrap().is_empty());
    let pem = bench.get(&owner, paths::ROOT_CERTIFICATE).await;
    assert_eq!(
        String::from_utf8(pem.body).unwrap(),
        bench.authority.root_pem()
    );
}

#[tokio::test]
async fn what_a_request_should_be_is_said() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let said = bench
        .post(&owner, paths::SUBJECTS, json!({}))
        .await
        .expect(422);
    assert_eq!(said["field"], "label");
    let said = bench
        .post(
            &owner,
            paths::SUBJECTS,
            json!({"label": "a", "colour": "red"}),
        )
        .await
        .expect(422);
    assert_eq!(said["field"], "colour");
    bench
        .get(&owner, "/api/v11/units/?limit=many")
        .await
        .expect(422);
    bench
        .get(&owner, "/api/v11/subjects/not-an-id/")
        .await
        .expect(404);
    let long = json!({"label": "x".repeat(3 << 20)});
    bench.post(&owner, paths::SUBJECTS, long).await.expect(413);
}
