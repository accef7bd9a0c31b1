//! `aos demo`: the whole loop on this machine.

use std::path::PathBuf;

use clap::Args;

use crate::failure::{Failure, OrFail as _};

/// Run the whole loop on this machine: a cloud, a Unit of two Nodes, two services.
///
/// Needs root, crun, nftables and iproute2. All that it makes carries a number of its own and is
/// removed at the end: network namespaces, processes, cgroups, folders.
#[derive(Args)]
pub struct Demo {
    /// Unattended: check each step from outside, end with a table, exit 0 or say what failed.
    #[arg(long)]
    check: bool,
    /// Copy the logs of all processes into this folder at the end.
    #[arg(long, value_name = "DIR")]
    keep_logs: Option<PathBuf>,
    /// The folder of built example bundles (`examples/build.sh` makes it).
    #[arg(long, value_name = "DIR", default_value = "examples/bundles")]
    examples: PathBuf,
    /// Tell the other story: components are killed on the way and started again.
    #[arg(long, hide = true, value_name = "WHEN", value_parser = ["at-rest", "on-the-way"])]
    crashes: Option<String>,
    /// Measure deployments and memory, or what monitoring costs; prints a line of JSON for each figure.
    #[arg(long, hide = true, conflicts_with = "crashes", value_name = "WHAT", num_args = 0..=1,
        default_missing_value = "runtime", value_parser = ["runtime", "senses"])]
    bench: Option<String>,
    /// An alert begins and ends while this shell command looks on.
    #[arg(long, hide = true, value_name = "COMMAND", conflicts_with_all = ["crashes", "bench", "torture", "audience"])]
    senses: Option<String>,
    /// Kill so many processes at random while desired states keep arriving; check the promises from outside.
    #[arg(long, hide = true, value_name = "KILLS", conflicts_with_all = ["crashes", "bench"])]
    torture: Option<u32>,
    /// Repeat the choices of an earlier torture.
    #[arg(long, hide = true, requires = "torture", default_value_t = 1)]
    seed: u64,
    /// One deployment while this shell command looks on; `AOS_URL`, `AOS_USER`, … tell it where.
    #[arg(long, hide = true, value_name = "COMMAND", conflicts_with = "crashes")]
    audience: Option<String>,
}

/// `aos demo`.
pub fn run(command: Demo) -> Result<(), Failure> {
    let aos = std::env::current_exe().or_fail(|| "cannot tell where this program lies")?;
    if !command.examples.join("hello").join("config.yaml").is_file() {
        return Err(Failure::new("the example services are not built")
            .why(format!(
                "there is no {}/hello/config.yaml",
                command.examples.display()
            ))
            .hint("run `examples/build.sh`, or start the demo by `cargo xtask demo`"));
    }
    let options = aos_demo::Options {
        aos,
        examples: command.examples,
        check: command.check
            || command.crashes.is_some()
            || command.bench.is_some()
            || command.senses.is_some()
            || command.torture.is_some()
            || command.audience.is_some(),
        keep_logs: command.keep_logs,
        plot: match (command.audience, command.crashes.as_deref()) {
            (Some(line), _) => aos_demo::Plot::Audience(line),
            (None, Some("at-rest")) => aos_demo::Plot::Crashes(aos_demo::When::AtRest),
            (None, Some(_)) => aos_demo::Plot::Crashes(aos_demo::When::OnTheWay),
            (None, None) if command.bench.as_deref() == Some("senses") => {
                aos_demo::Plot::BenchSenses
            }
            (None, None) if command.bench.is_some() => aos_demo::Plot::Bench,
            (None, None) if command.senses.is_some() => {
                aos_demo::Plot::Senses(command.senses.unwrap_or_default())
            }
            (None, None) => match command.torture {
                Some(kills) => aos_demo::Plot::Torture(aos_demo::torture::Dose {
                    kills,
                    seed: command.seed,
                }),
                None => aos_demo::Plot::Loop,
            },
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_fail(|| "cannot start")?;
    runtime.block_on(aos_demo::run(options)).map_err(|error| {
        error
            .chain()
            .skip(1)
            .fold(Failure::new(error.to_string()), |failure, cause| {
                failure.why(cause.to_string())
            })
    })
}
