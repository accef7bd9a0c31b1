use std::path::Path;

use aos_api_server::openapi_json;

#[test]
fn the_document_in_docs_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/openapi.json");
    let served = openapi_json();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    if stored != served {
        let line = stored
            .lines()
            .zip(served.lines())
            .position(|(a, b)| a != b)
            .map_or_else(|| "its end".to_owned(), |line| format!("line {}", line + 1));
        panic!(
            "docs/openapi.json differs from what the program serves, first at {line}; if the change is meant, write it \
             with `UPDATE_OPENAPI=1 cargo test -p aos-api-server document` and look at the diff"
        );
    }
}

#[test]
fn every_operation_says_what_it_takes_and_gives() {
    let document: serde_json::Value = serde_json::from_str(&openapi_json()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(
            path.starts_with("/api/v11/") && path.ends_with('/'),
            "{path}"
        );
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} is there twice");
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(
                operation["responses"]["default"].is_object(),
                "{method} {path}"
            );
        }
    }
}
