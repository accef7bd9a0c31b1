//! The user of the demo: one person with the `aos` command line and nothing else.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

/// The person and where they keep their credentials.
pub struct User {
    aos: PathBuf,
    home: PathBuf,
    /// The name they sign in with.
    pub name: String,
    /// Their password, made for this run.
    pub password: String,
}

impl User {
    /// A person with a fresh password.
    pub fn new(aos: &Path, home: &Path) -> Result<Self> {
        let mut bytes = [0; 12];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .context("no randomness for a password")?;
        let password = bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Ok(Self {
            aos: aos.to_path_buf(),
            home: home.to_path_buf(),
            name: "demo".into(),
            password,
        })
    }

    /// `aos …`, with what it printed.
    pub fn aos(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.aos);
        command.args(arguments);
        self.finish(command, None)
    }

    /// `aos … --json`, with what it answered.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let mut with = arguments.to_vec();
        with.push("--json");
        let text = self.aos(&with)?;
        serde_json::from_str(&text)
            .with_context(|| format!("`aos {}` did not print the JSON it should", with.join(" ")))
    }

    /// `aos …` with the password on its standard input.
    pub fn with_password(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.aos);
        command.args(arguments);
        self.finish(command, Some(&self.password))
    }

    /// Runs a prepared command as this person.
    pub fn finish(&self, mut command: Command, input: Option<&str>) -> Result<String> {
        let line: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy())
            .collect();
        let line = format!("aos {}", line.join(" "));
        let mut child = command
            .env("AOS_HOME", &self.home)
            .env("NO_COLOR", "1")
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
            writeln!(pipe, "{text}").with_context(|| format!("`{line}` reads no input"))?;
        }
        let output = child
            .wait_with_output()
            .with_context(|| format!("`{line}` broke off"))?;
        if !output.status.success() {
            bail!(
                "`{line}` failed ({}):\n  {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
                    .trim()
                    .replace('\n', "\n  ")
            );
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed no text"))
    }
}
