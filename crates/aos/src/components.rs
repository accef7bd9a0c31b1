//! From a configuration file to running components: one process, one log, one way to stop.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, OrFail as _};
use crate::{logging, table};

/// Threads that run a cloud's tasks: it serves many at once.
const CLOUD_WORKERS: usize = 4;
/// Threads that run a Node's tasks: one works, one more keeps a long task from holding up the rest.
const NODE_WORKERS: usize = 2;
/// A thread's stack on a Node, where memory is scarce.
const NODE_STACK: usize = 1 << 20;

/// A component of a Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Identity and access.
    Iam,
    /// Communication.
    Cm,
    /// Services.
    Sm,
}

/// A Node's configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    iam: Option<aos_iam::Options>,
    cm: Option<aos_cm::Options>,
    sm: Option<aos_sm::Options>,
}

type Running = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// Runs one component of a Node, or with `None` all that the file has a table for.
pub fn run_node(config: &Path, only: Option<Component>) -> Result<(), Failure> {
    let text = std::fs::read_to_string(config)
        .or_fail(|| format!("cannot read the configuration {}", config.display()))?;
    let file: NodeFile = toml::from_str(&text)
        .or_fail(|| format!("the configuration {} is wrong", config.display()))
        .map_err(|failure| failure.hint("docs/operations.md lists the keys of each table"))?;
    let wanted = |component| only.is_none_or(|only| only == component);
    let missing = |name: &str| {
        Failure::new(format!(
            "the configuration {} has no table [{name}]",
            config.display()
        ))
    };
    if wanted(Component::Sm) && file.sm.is_some() && !nix::unistd::geteuid().is_root() {
        return Err(Failure::new("SM starts containers, which needs root")
            .hint("run this command as root, for example with `sudo`"));
    }
    // A Node has one such file: where SM runs, which tells it.
    let own = file.sm.as_ref().filter(|_| wanted(Component::Sm));
    logging::start(own.map(aos_sm::Options::own_log).as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NODE_WORKERS)
        .max_blocking_threads(32)
        .thread_stack_size(NODE_STACK)
        .enable_all()
        .build()
        .or_fail(|| "cannot start the threads of this process")?;
    runtime.block_on(async {
        let stop = stop_on_signal()?;
        let mut running: Vec<Running> = Vec::new();
        if wanted(Component::Iam) {
            match file.iam {
                Some(options) => {
                    let run = aos_iam::run(options, stop.clone());
                    running.push(Box::pin(async { run.await.or_fail(|| "IAM failed") }));
                }
                None => return Err(missing("iam")),
            }
        }
        if wanted(Component::Cm) {
            match file.cm {
                Some(options) => {
                    // On the heap: it is large.
                    let run = Box::pin(aos_cm::run(options, stop.clone()));
                    running.push(Box::pin(async { run.await.or_fail(|| "CM failed") }));
                }
                None if only.is_some() => return Err(missing("cm")),
                // Only the main Node has one.
                None => {}
            }
        }
        if wanted(Component::Sm) {
            match file.sm {
                Some(options) => {
                    let run = aos_sm::run(options, stop.clone());
                    running.push(Box::pin(async { run.await.or_fail(|| "SM failed") }));
                }
                None if only.is_some() => return Err(missing("sm")),
                None => {}
            }
        }
        all(running, &stop).await
    })
}

/// Runs all to their end. When one ends, for whatever reason, the others are told to stop.
async fn all(running: Vec<Running>, stop: &CancellationToken) -> Result<(), Failure> {
    let mut left = running;
    let mut result = Ok(());
    while !left.is_empty() {
        let (ended, _, others) = futures::future::select_all(left).await;
        stop.cancel();
        result = result.and(ended);
        left = others;
    }
    result
}

/// Serves a cloud.
pub fn serve_cloud(options: aos_server::Options) -> Result<(), Failure> {
    logging::start(None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CLOUD_WORKERS)
        .enable_all()
        .build()
        .or_fail(|| "cannot start the threads of this process")?;
    runtime.block_on(async {
        let stop = stop_on_signal()?;
        aos_server::run(options, stop)
            .await
            .or_fail(|| "the cloud failed")
    })
}

/// Prints the OpenAPI document.
pub fn openapi() -> Result<(), Failure> {
    // `say` ends the line; the document has its own end.
    table::say(aos_server::openapi().trim_end());
    Ok(())
}

/// A token that the first SIGTERM or SIGINT cancels. The second one ends the process at once.
fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).or_fail(|| "cannot listen to signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).or_fail(|| "cannot listen to signals")?;
    let told = stop.clone();
    // Its owner is the process: it ends with it.
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                // Cancel-safe: a signal that arrives meanwhile is kept by the kernel's counterpart.
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if told.is_cancelled() {
                std::process::exit(130);
            }
            tracing::info!("stopping; a second signal stops at once");
            told.cancel();
        }
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_documentation_can_be_read() {
        let file: NodeFile =
            toml::from_str(include_str!("../../../docs/examples/node.toml")).unwrap();
        let iam = file.iam.unwrap();
        assert!(iam.is_main());
        let config = include_bytes!("../../../docs/examples/unit-config.json");
        let config = aos_types::UnitConfig::from_slice(config).unwrap();
        assert_eq!(config.nodes[0].node_type, iam.node.node_type);
        assert_eq!(file.cm.unwrap().iam_protected, iam.protected_listen);
        assert_eq!(file.sm.unwrap().iam_public, iam.public_listen);
    }
}
