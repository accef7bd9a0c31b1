use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{process::Command, time};

use super::{Client, Error, Events};

/// How long a new keeper may take until it listens.
const START: Duration = Duration::from_secs(10);

/// Connects to the Node's keeper and starts one if there is none.
#[derive(Debug, Clone)]
pub struct Starter {
    /// The program that understands `keeper --socket … --state-dir …`: usually ourselves.
    pub program: PathBuf,
    /// The keeper's socket.
    pub socket: PathBuf,
    /// The keeper's folder.
    pub state_dir: PathBuf,
}

impl Starter {
    /// Connects, starting a keeper first if nobody answers. Says whether it was started now.
    pub async fn connect(&self) -> Result<(Client, Events, bool), Error> {
        match Client::connect(&self.socket).await {
            Ok((client, events)) => return Ok((client, events, false)),
            Err(Error::Connect { .. }) => {}
            Err(error) => return Err(error),
        }
        self.start().await?;
        let (client, events) = Client::connect(&self.socket).await?;
        Ok((client, events, true))
    }

    async fn start(&self) -> Result<(), Error> {
        let failed = |why: String| Error::Start {
            program: self.program.clone(),
            why,
        };
        let output = Command::new(&self.program)
            .arg("keeper")
            .arg("--socket")
            .arg(&self.socket)
            .arg("--state-dir")
            .arg(&self.state_dir)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = time::timeout(START, output)
            .await
            .map_err(|_| failed(format!("it did not return within {} s", START.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        match output.status.code() {
            // 3: another one was faster; it listens or will in a moment.
            Some(0 | 3) => Ok(()),
            _ => Err(failed(format!(
                "{}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
        }
    }
}
