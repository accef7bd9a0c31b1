//! SM alone, for this crate's tests: `sm-process SM.TOML`.
#![allow(
    clippy::print_stderr,
    reason = "a program for tests tells them what is wrong"
)]

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let run = || -> Result<(), Box<dyn std::error::Error>> {
        // A test that is killed cannot end it.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        let path = std::env::args_os()
            .nth(1)
            .ok_or("name the file of options")?;
        let options: aos_sm::Options = toml::from_str(&std::fs::read_to_string(path)?)?;
        let runtime = tokio::runtime::Runtime::new()?;
        let stop = CancellationToken::new();
        let asked = stop.clone();
        runtime.block_on(async move {
            let mut end = signal(SignalKind::terminate())?;
            tokio::spawn(async move {
                end.recv().await;
                asked.cancel();
            });
            Ok(aos_sm::run(options, stop).await?)
        })
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
