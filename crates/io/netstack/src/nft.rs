use std::{path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command, time};

use crate::Error;

/// How long one transaction may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Carries a transaction out: all of it, or nothing.
pub(crate) async fn apply(program: &Path, script: &str) -> Result<(), Error> {
    run(program, &["--file", "-"], script).await.map(|_| ())
}

/// What the kernel has, as `nft` writes it in JSON. Nothing if there is no such thing.
pub(crate) async fn list(
    program: &Path,
    what: &[&str],
) -> Result<Option<serde_json::Value>, Error> {
    let mut arguments = vec!["--json", "list"];
    arguments.extend(what);
    match run(program, &arguments, "").await {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(Error::Nft { why, .. }) if why.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

async fn run(program: &Path, arguments: &[&str], input: &str) -> Result<Vec<u8>, Error> {
    let failed = |why: String| Error::Nft {
        program: program.to_path_buf(),
        why,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let run = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = time::timeout(DEADLINE, run)
        .await
        .map_err(|_| failed(format!("it did not finish within {} s", DEADLINE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words: String = String::from_utf8_lossy(&output.stderr)
        .chars()
        .take(600)
        .collect();
    Err(failed(format!("{}: {}", output.status, words.trim())))
}
