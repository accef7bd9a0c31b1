use aos_api::paths;
use aos_pki::{
    CertKind, KeyAlgorithm, KeyPair, PeerIdentity, certificates_from_pem, discovery_urls,
};
use serde_json::{Value, json};

use crate::bench::{As, Bench};

/// The body of a Unit of a main and a secondary Node.
fn unit(system_uid: &str, key: &KeyPair) -> Value {
    let csr = || {
        KeyPair::generate(KeyAlgorithm::EcP256)
            .unwrap()
            .request("x", &[])
            .unwrap()
    };
    json!({
        "hardware_id": system_uid, "system_uid": system_uid, "model_name": "vm", "model_version": "1.0",
        "provisioning_software": "aos:0.1.0",
        "online_public_csr": key.request("liar", &[]).unwrap(), "online_public_node_id": "main",
        "offline_public_csr": csr(), "offline_public_node_id": "main",
        "additional_csrs": [
            {"cert_type": "iam", "node_id": "main", "csr": csr()},
            {"cert_type": "cm", "node_id": "main", "csr": csr()},
            {"cert_type": "sm", "node_id": "second", "csr": csr()},
        ],
        "nodes": [
            {"id": "main", "type": "vm-main", "name": "Main", "attrs": {"MainNode": ""}, "maxDmips": 1000, "totalRam": 1024,
             "osType": "Linux", "cpus": [{"modelName": "x", "totalNumCores": 2, "totalNumThreads": 4, "arch": "amd64"}]},
            {"id": "second", "type": "vm-second"},
        ],
        "secure_data": "{\"version\":\"2.0.0\",\"nodes\":{}}",
    })
}

fn with_code(mut body: Value, code: &str) -> Value {
    body["claim_code"] = json!(code);
    body
}

async fn claim_code(bench: &Bench, owner: &As, more: Value) -> String {
    let made = bench
        .post(owner, paths::CLAIM_CODES, more)
        .await
        .expect(201);
    assert!(
        made["join_command"]
            .as_str()
            .unwrap()
            .contains("--ca-fingerprint sha256:")
    );
    made["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_unit_enrols_itself_with_a_claim_code() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let code = claim_code(&bench, &owner, json!({"title": "Car 1"})).await;
    let listed = bench.get(&owner, paths::CLAIM_CODES).await.expect(200);
    assert_eq!(listed["items"][0]["state"], "open");
    assert!(!listed.to_string().contains(&code));
    let key = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
    let body = unit("car-1", &key);
    // A person may type it without dashes and in small letters.
    let typed = code.to_lowercase().replace('-', "");
    let given = bench
        .post(
            &As::default(),
            paths::ENROL,
            with_code(body.clone(), &typed),
        )
        .await
        .expect(201);
    assert_eq!(given["title"], "Car 1");
    assert_eq!(given["unit_model"]["name"], "vm");
    assert_eq!(given["discovery_urls"], json!(["https://localhost:9000"]));
    assert_eq!(given["root_certificate"], json!(bench.authority.root_pem()));

    let chain =
        certificates_from_pem(given["online_certificate"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(chain.len(), 2, "the root is last");
    let who = PeerIdentity::from_der(&chain[0]).unwrap();
    assert_eq!(who.kind, CertKind::Online);
    assert_eq!(
        who.system_id.as_ref().unwrap().as_str(),
        "car-1",
        "not what the request says"
    );
    assert_eq!(who.node_id.as_ref().unwrap().as_str(), "main");
    assert_eq!(discovery_urls(&chain[0]), ["https://localhost:9000"]);
    let linked = bench
        .db
        .unit_of_certificate("car-1", &who.fingerprint.to_string())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(json!(linked.id), given["unit_id"]);
    let more = given["additional_certs"].as_array().unwrap();
    assert_eq!(more.len(), 3);
    let sm = certificates_from_pem(more[2]["cert"].as_str().unwrap().as_bytes()).unwrap();
    let sm = PeerIdentity::from_der(&sm[0]).unwrap();
    assert_eq!(
        (sm.kind, sm.node_id.unwrap().as_str()),
        (CertKind::Sm, "second")
    );

    let shown = bench.get(&owner, "/api/v11/units/car-1/").await.expect(200);
    assert_eq!(shown["status"], "provisioned");
    assert_eq!(shown["counts"]["nodes"], 2);
    let nodes = bench
        .get(&owner, "/api/v11/units/car-1/nodes/")
        .await
        .expect(200);
    assert_eq!(nodes["items"][0]["is_main"], true);
    assert_eq!(
        bench
            .get(&owner, "/api/v11/units/car-1/certificates/")
            .await
            .expect(200)["total"],
        5
    );
    // The answer was lost: the same key asks again.
    bench
        .post(&As::default(), paths::ENROL, with_code(body, &code))
        .await
        .expect(201);
    // The Unit's own certificate opens nothing here.
    bench.get(&As::peer(who), paths::UNITS).await.expect(401);
}

#[tokio::test]
async fn a_unit_that_claims_anothers_system_id_is_refused() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let key = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
    let first = claim_code(&bench, &owner, json!({})).await;
    bench
        .post(
            &As::default(),
            paths::ENROL,
            with_code(unit("car-1", &key), &first),
        )
        .await
        .expect(201);
    let thief = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
    let second = claim_code(&bench, &owner, json!({})).await;
    let said = bench
        .post(
            &As::default(),
            paths::ENROL,
            with_code(unit("car-1", &thief), &second),
        )
        .await
        .expect(409);
    assert!(
        said["message"].as_str().unwrap().contains("another key"),
        "{said}"
    );
    bench
        .post(&owner, paths::PROVISIONING, unit("car-1", &thief))
        .await
        .expect(409);
    // The code was not spent by the refusal; a used one is of no use to others.
    bench
        .post(
            &As::default(),
            paths::ENROL,
            with_code(unit("car-2", &thief), &first),
        )
        .await
        .expect(401);
    bench
        .post(
            &As::default(),
            paths::ENROL,
            with_code(unit("car-2", &thief), &second),
        )
        .await
        .expect(201);
    // Once it is deleted it may come again.
    bench
        .delete(&owner, "/api/v11/units/car-1/")
        .await
        .expect(204);
    bench
        .post(&owner, paths::PROVISIONING, unit("car-1", &thief))
        .await
        .expect(201);
}

#[tokio::test]
async fn a_tool_of_aos_prov_s_shape_provisions() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let (tool, _) = bench.certificate(&owner, KeyAlgorithm::EcP256).await;
    let supported = bench
        .get(&tool, paths::SUPPORTED_SOFTWARE)
        .await
        .expect(200);
    assert_eq!(supported["software"][0]["name"], "aos-provisioning");
    let before = bench
        .get(&tool, "/api/v11/units/?system_uid=car-9")
        .await
        .expect(200);
    assert_eq!(before["total"], 0);
    let key = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
    let given = bench
        .post(&tool, paths::PROVISIONING, unit("car-9", &key))
        .await
        .expect(201);
    assert_eq!(given["system_uid"], "car-9");
    let after = bench
        .get(&tool, "/api/v11/units/?system_uid=car-9")
        .await
        .expect(200);
    assert_eq!(after["items"][0]["status"], "provisioned");
    assert_eq!(after["items"][0]["online_status"], "Offline");
}

#[tokio::test]
async fn bad_register_bodies_are_refused_and_store_nothing() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let key = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
    let good = unit("car-1", &key);
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body);
        body
    };
    let foreign_signature = {
        let other = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
        let pem = other.request("x", &[]).unwrap();
        // One letter in the middle of the signature.
        let at = pem.len() - 60;
        let mut bytes = pem.into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let table: Vec<(Value, &str)> = vec![
        (
            broken(&|b| {
                b["system_uid"] = json!("../../etc");
            }),
            "system_uid",
        ),
        (
            broken(&|b| {
                b["system_uid"] = json!("");
                b["hardware_id"] = json!("");
            }),
            "system_uid",
        ),
        (
            broken(&|b| b["online_public_csr"] = json!("no PEM")),
            "online_public_csr",
        ),
        (
            broken(&|b| b["online_public_csr"] = json!(foreign_signature.clone())),
            "online_public_csr",
        ),
        (
            broken(&|b| b["offline_public_csr"] = json!("")),
            "offline_public_csr",
        ),
        (
            broken(&|b| b["online_public_node_id"] = json!("ghost")),
            "online_public_node_id",
        ),
        (
            broken(&|b| b["additional_csrs"][0]["cert_type"] = json!("user")),
            "additional_csrs[0].cert_type",
        ),
        (
            broken(&|b| b["additional_csrs"][0]["cert_type"] = json!("server")),
            "additional_csrs[0].cert_type",
        ),
        (
            broken(&|b| b["additional_csrs"][0]["cert_type"] = json!("online")),
            "additional_csrs[0].cert_type",
        ),
        (
            broken(&|b| b["additional_csrs"][1]["cert_type"] = json!("iam")),
            "additional_csrs[1].csr",
        ),
        (
            broken(&|b| b["nodes"][1]["id"] = json!("main")),
            "nodes[1].id",
        ),
        (
            broken(&|b| b["nodes"][1]["id"] = json!("a/b")),
            "nodes[1].id",
        ),
        (
            broken(&|b| b["secure_data"] = json!("x".repeat(70_000))),
            "secure_data",
        ),
    ];
    for (body, field) in table {
        let said = bench
            .post(&owner, paths::PROVISIONING, body)
            .await
            .expect(422);
        assert_eq!(said["field"], field, "{said}");
    }
    assert_eq!(
        bench.get(&owner, paths::UNITS).await.expect(200)["total"],
        0
    );
}

#[tokio::test]
async fn guessing_claim_codes_is_limited() {
    let bench = Bench::new().await;
    bench.owner().await;
    let key = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
    let body = with_code(unit("car-1", &key), "00000-00000-00000-00000-000000");
    for _ in 0..30 {
        bench
            .post(&As::default(), paths::ENROL, body.clone())
            .await
            .expect(401);
    }
    bench
        .post(&As::default(), paths::ENROL, body)
        .await
        .expect(429);
}
