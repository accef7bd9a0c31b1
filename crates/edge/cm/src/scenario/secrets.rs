//! Nothing that opens anything is ever logged, however much is logged.

use std::{
    io,
    sync::{Arc, Mutex},
};

use aos_cloud_protocol::Body;
use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter};

use super::{
    cloud::TOKEN,
    stage::{Stage, desired},
};

/// Keeps everything that is logged.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<u8>>>);

impl io::Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Recorder {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A message of the cloud with secrets in it, as text: some can be dealt with, some cannot even be read.
fn messages() -> Vec<String> {
    let data = [
        r#""messageType":"overrideEnvVars","items":[{"item":{"id":"web"},"variables":[{"name":"A","value":"secret-env-1"}]}]"#,
        r#""messageType":"overrideEnvVars","items":[{"item":5,"variables":[{"name":"A","value":"secret-env-2"}]}]"#,
        r#""messageType":"overrideEnvVars","items":[{"variables":[{"name":"A","value":"secret-env-3","ttl":"tomorrow"}]}]"#,
        r#""messageType":"renewCertificatesNotification","certificates":[],"unitSecrets":{"version":"2","nodes":[{"node":{"codename":"main"},"secret":"secret-unit-1"}]}"#,
        r#""messageType":"renewCertificatesNotification","certificates":[],"unitSecrets":{"version":"2","nodes":[{"secret":"secret-unit-2"}]}"#,
        r#""messageType":"startProvisioningRequest","correlationId":"c","node":{"codename":"n"},"password":"secret-password-1""#,
        r#""messageType":"deprovisioningRequest","correlationId":"c","password":"secret-password-2""#,
        r#""messageType":"finishProvisioningRequest","correlationId":"c","node":{"codename":"n"},"certificates":[],"password":"secret-password-3""#,
        r#""messageType":"requestLog","correlationId":"c","logType":"systemLog","filter":{},"uploadOptions":{"type":"https","url":"https://x/secret-upload-1","bearerToken":"secret-bearer-1"}"#,
        r#""messageType":"blobUrls","correlationId":"c","items":[{"digest":"sha256:abababababababababababababababababababababababababababababababab","urls":["https://x/blobs/v7/secret-blob-1"],"sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","size":1,"decryptInfo":{"blockAlg":"AES256/CBC/pkcs7","blockIv":"c2VjcmV0","blockKey":"c2VjcmV0LWtleS0x"}}]"#,
        r#""messageType":"blobUrls","items":[{"digest":"none","urls":["https://x/blobs/v7/secret-blob-2"],"decryptInfo":{"blockKey":"secret key 2"}}]"#,
        r#""messageType":"updateState","item":{"id":"web","type":"service"},"subject":{"id":"s"},"instance":0,"stateChecksum":"c","state":"secret-state-1""#,
        r#""messageType":"startProvisioningRequest","password":"secret-password-4","oops"#,
    ];
    let header = |txn: usize| {
        format!(
            r#"{{"version":7,"systemId":"unit","createdAt":"2026-01-31T12:00:00Z","txn":"{txn}"}}"#
        )
    };
    data.iter()
        .enumerate()
        .map(|(txn, data)| format!(r#"{{"header":{},"data":{{{data}}}}}"#, header(txn)))
        .collect()
}

#[tokio::test]
async fn gap_10_nothing_secret_is_logged_at_any_level() {
    let recorder = Recorder::default();
    let logging = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(recorder.clone())
        .with_ansi(false)
        .finish();
    // For all threads: `cargo nextest` runs each test in a process of its own.
    let _ = tracing::subscriber::set_global_default(logging);
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    for message in messages() {
        stage.cloud.raw(&message).await;
    }
    // The last of them has no txn that could be answered, the one before it has.
    let answered = |txn: &'static str| {
        move |message: &aos_cloud_protocol::Message| {
            message.header.txn == txn && matches!(message.body, Body::Ack | Body::Nack(_))
        }
    };
    let last = (messages().len() - 2).to_string().leak();
    stage.cloud.message(answered(last)).await;
    stage.cloud.drop_connection().await;
    stage.cloud.status(|status| !status.is_delta).await;
    stage.stop().await;

    let log = String::from_utf8(recorder.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("the cloud is connected"), "it is recorded");
    // Lines of other crates are not ours; `aos` leaves those out that would show a handshake.
    let ours = log.lines().filter(|line| line.contains(" aos_"));
    for line in ours {
        for secret in ["secret", TOKEN, "c2VjcmV0"] {
            let known = ["(secret)", "unitSecrets", "`secret`", ".secret"];
            let rest = known
                .iter()
                .fold(line.to_owned(), |line, word| line.replace(word, ""));
            assert!(!rest.contains(secret), "{line}");
        }
    }
}
