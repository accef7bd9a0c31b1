use aos_log::Crash;
use aos_runtime::InstanceId;

use super::Logs;
use crate::records::End;

/// How much of the last output is kept with a crash, in bytes.
const LAST_WORDS: usize = 64 << 10;

impl Logs {
    /// Keeps how an instance ended, with its last output, unless it ended well.
    pub(crate) async fn crashed(&self, end: &End) {
        if end.code == Some(0) {
            return;
        }
        let id = InstanceId::of(&end.ident).to_string();
        let crash = Crash {
            source: end.ident.to_string(),
            version: end.version.clone(),
            code: end.code,
            signal: end.signal,
            oom: end.oom,
            at: end.at,
            core: Vec::new(),
        };
        let store = self.store.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let output = store.last_words(&id, &crash.source, LAST_WORDS)?;
            store.put_crash(&id, &crash, &output)
        });
        let error = match kept.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(ident = %end.ident, error, "a crash log cannot be kept");
    }
}
