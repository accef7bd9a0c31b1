use aos_image::{
    BlobStore, ImageConfig, ImageIndex, ItemImage, Manifest, Platform,
    graph::{Caps, Error},
};
use aos_types::{ArchInfo, OsInfo};
use proptest::prelude::*;

fn hex(byte: u8) -> String {
    format!("sha256:{}", hex::encode([byte; 32]))
}

#[test]
fn keys_match_in_any_case_and_unknown_ones_are_passed_over() {
    let json = format!(
        r#"{{"SchemaVersion":2,"MANIFESTS":[{{"MediaType":"x","DIGEST":"{}","size":3,"new":[1],
            "platform":{{"Architecture":"arm64","OS":"linux","os.Features":["a"]}}}}]}}"#,
        hex(1)
    );
    let index = ImageIndex::parse(json.as_bytes(), &Caps::default()).unwrap();
    let platform = index.manifests[0].platform.as_ref().unwrap();
    assert_eq!(platform.architecture, "arm64");
    assert_eq!(platform.os_features, ["a"]);
    let again = ImageIndex::parse(&index.to_json(), &Caps::default()).unwrap();
    assert_eq!(again, index);
}

#[test]
fn errors_name_the_field() {
    let caps = Caps {
        manifests: 2,
        ..Caps::default()
    };
    let refused = |json: &str| ImageIndex::parse(json.as_bytes(), &caps).unwrap_err();
    let path = format!(
        r#"{{"manifests":[{{"digest":"sha256:../../{}"}}]}}"#,
        "a".repeat(58)
    );
    for (json, text) in [
        ("{", "the image index is not JSON"),
        ("[]", "`the document` of the image index is not an object"),
        ("{}", "the image index has no `manifests`"),
        (
            r#"{"manifests":7}"#,
            "`manifests` of the image index is not a list",
        ),
        (
            r#"{"manifests":[{}]}"#,
            "the image index has no `manifests[0].digest`",
        ),
        (&path, "`manifests[0].digest` of the image index is refused"),
        (
            r#"{"manifests":[1,2,3]}"#,
            "`manifests` of the image index has 3 entries, more than the allowed 2",
        ),
    ] {
        assert_eq!(refused(json).to_string(), text);
    }
    let twice = format!(
        r#"{{"manifests":[{{"digest":"{0}"}},{{"digest":"{0}"}}]}}"#,
        hex(1)
    );
    assert!(refused(&twice).to_string().contains("a second time"));
    let long = vec![b' '; 5 << 20];
    assert!(matches!(
        ImageIndex::parse(&long, &caps),
        Err(Error::TooLong { .. })
    ));
    let manifest = format!(r#"{{"config":{{"digest":"{}"}},"layers":[{{}}]}}"#, hex(1));
    assert_eq!(
        Manifest::parse(manifest.as_bytes(), &caps)
            .unwrap_err()
            .to_string(),
        "the image manifest has no `layers[0].digest`"
    );
    let config = r#"{"config":{"Env":["A=1","=2"]}}"#;
    assert_eq!(
        ImageConfig::parse(config.as_bytes(), &caps)
            .unwrap_err()
            .to_string(),
        "`config.env[1]` of the image config is not NAME=value"
    );
}

#[test]
fn an_image_config_reads_back_and_the_empty_one_stays_empty() {
    let config = ImageConfig {
        platform: Platform {
            architecture: "amd64".into(),
            os: "linux".into(),
            ..Platform::default()
        },
        exposed_ports: vec!["80/tcp".into()],
        env: vec!["A=b=c".into()],
        entrypoint: vec!["/bin/x".into()],
        cmd: vec!["-v".into()],
        working_dir: "/w".into(),
        diff_ids: vec![hex(2).parse().unwrap()],
        ..ImageConfig::default()
    };
    let read = ImageConfig::parse(&config.to_json(), &Caps::default()).unwrap();
    assert_eq!(read, config);
    assert_eq!(read.args(), ["/bin/x", "-v"]);
    assert_eq!(ImageConfig::default().to_json(), b"{}");
}

#[test]
fn a_platform_matches_what_it_asks_for() {
    let arch = |name: &str, variant: Option<&str>| ArchInfo {
        architecture: name.into(),
        variant: variant.map(Into::into),
    };
    let os = OsInfo {
        os: "linux".into(),
        version: Some("6".into()),
        features: vec!["a".into(), "b".into()],
    };
    let platform = Platform {
        architecture: "arm64".into(),
        ..Platform::default()
    };
    let fits = |p: &Platform, a: &ArchInfo| p.check(a, &os).is_ok();
    assert!(fits(&platform, &arch("arm64", Some("v8"))));
    assert!(!fits(&platform, &arch("aarch64", None)));
    assert!(fits(&Platform::default(), &arch("riscv64", None)));
    let with = |change: fn(&mut Platform)| {
        let mut p = platform.clone();
        change(&mut p);
        p
    };
    assert!(!fits(
        &with(|p| p.variant = "v8".into()),
        &arch("arm64", None)
    ));
    assert!(fits(&with(|p| p.os = "Linux".into()), &arch("arm64", None)));
    assert!(!fits(&with(|p| p.os = "qnx".into()), &arch("arm64", None)));
    assert!(!fits(
        &with(|p| p.os_version = "5".into()),
        &arch("arm64", None)
    ));
    let features = with(|p| p.os_features = vec!["b".into(), "c".into()]);
    assert_eq!(
        features
            .check(&arch("arm64", None), &os)
            .unwrap_err()
            .to_string(),
        "the image needs operating system feature `c`, the runtime has `a, b`"
    );
}

#[test]
fn a_missing_blob_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    let error = ItemImage::load(&store, &hex(3).parse().unwrap(), &Caps::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the image manifest {} cannot be read from the store",
            hex(3)
        )
    );
}

proptest! {
    /// Whatever bytes come, reading them ends with a document or an error.
    #[test]
    fn no_input_panics(json in ".{0,200}") {
        let caps = Caps::default();
        let _ = ImageIndex::parse(json.as_bytes(), &caps);
        let _ = Manifest::parse(json.as_bytes(), &caps);
        let _ = ImageConfig::parse(json.as_bytes(), &caps);
    }
}
