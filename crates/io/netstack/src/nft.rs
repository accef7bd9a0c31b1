use std::{path::Path, process::Stdio, time::Duration};

use nftables::schema::Nftables;
use tokio::{io::AsyncWriteExt, process::Command, time};

use crate::Error;

/// How long one transaction may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Carries a transaction out: all of it, or nothing.
pub(crate) async fn apply(program: &Path, rules: &Nftables<'_>) -> Result<(), Error> {
    let text = serde_json::to_vec(rules).map_err(|source| Error::Rules { source })?;
    let failed = |why: String| Error::Nft {
        program: program.to_path_buf(),
        why,
    };
    let mut child = Command::new(program)
        .args(["--json", "--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let run = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&text).await?;
        }
        child.wait_with_output().await
    };
    let output = time::timeout(DEADLINE, run)
        .await
        .map_err(|_| failed(format!("it did not finish within {} s", DEADLINE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let words: String = String::from_utf8_lossy(&output.stderr)
        .chars()
        .take(600)
        .collect();
    Err(failed(format!("{}: {}", output.status, words.trim())))
}
