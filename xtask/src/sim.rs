//! `cargo xtask sim`: builds the simulator for speed and runs it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{cargo, output, run, target_dir};

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    /// How many seeds, from a new one each time unless `--first` says which.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Run this one seed and print all that happens in it.
    #[arg(long, conflicts_with_all = ["mutations", "first"])]
    seed: Option<u64>,
    /// The first seed.
    #[arg(long)]
    first: Option<u64>,
    /// Plant each deliberate bug in turn: each must be found within 2,000 seeds.
    #[arg(long)]
    mutations: bool,
    /// With `--mutations`: only so many of them.
    #[arg(long, requires = "mutations")]
    sample: Option<u64>,
    /// Plant this one.
    #[arg(long, conflicts_with = "mutations")]
    mutation: Option<String>,
}

/// Builds and runs the simulator; an error if it found something.
pub fn task(root: &Path, options: &Options) -> Result<()> {
    build(root)?;
    let mut command = program(root);
    match options.seed {
        Some(seed) => {
            command.args(["--seed", &seed.to_string()]);
        }
        None => {
            let first = options.first.unwrap_or_else(new_seed);
            command.args(["--first", &first.to_string()]);
            command.args(["--seeds", &options.seeds.to_string()]);
        }
    }
    if let Some(mutation) = &options.mutation {
        command.args(["--mutation", mutation]);
    }
    if options.mutations {
        command.arg("--mutations");
    }
    if let Some(sample) = options.sample {
        command.args(["--sample", &sample.to_string()]);
    }
    run(&mut command)
}

/// What a test run does: seeds nobody has seen yet, as many as fit into the time. From 2,000 on
/// each fault, each state with each event and each row of the failure table must have occurred.
pub fn some_seeds(root: &Path) -> Result<()> {
    build(root)?;
    let first = new_seed();
    println!("seeds from {first}");
    run(program(root).args([
        "--first",
        &first.to_string(),
        "--seeds",
        "2000",
        "--seconds",
        "90",
    ]))
}

/// What a test run does: some of the deliberate bugs, other ones each time.
pub fn some_mutations(root: &Path) -> Result<()> {
    build(root)?;
    let first = new_seed();
    println!("seeds from {first}");
    run(program(root).args([
        "--first",
        &first.to_string(),
        "--mutations",
        "--seconds",
        "60",
    ]))
}

/// The product holds none of the deliberate bugs: neither their names nor anything of the crate that defines them.
pub fn not_in_the_product(root: &Path) -> Result<()> {
    build(root)?;
    let names = output(program(root).arg("--names"))?;
    let mut marks: Vec<&str> = names.lines().collect();
    marks.push("aos_sim");
    let simulator = held(Path::new(program(root).get_program()), &marks)?;
    for mark in &marks {
        ensure!(
            simulator.contains(*mark),
            "the simulator itself does not hold `{mark}`: this check finds nothing"
        );
    }
    let target = target_dir(root);
    let products = ["debug", "release"].map(|profile| target.join(profile).join("aos"));
    let mut looked = 0;
    for product in products.iter().filter(|product| product.exists()) {
        looked += 1;
        if let Some(mark) = held(product, &marks)?.first() {
            bail!(
                "{} holds `{mark}`, which belongs to the simulator",
                product.display()
            );
        }
    }
    ensure!(looked > 0, "no `aos` has been built: `cargo build` first");
    println!("{looked} program(s) hold none of {} marks", marks.len());
    Ok(())
}

/// Which of the marks a program holds. `grep` looks through its hundreds of megabytes in a moment.
fn held(program: &Path, marks: &[&str]) -> Result<BTreeSet<String>> {
    let mut command = Command::new("grep");
    command.env("LC_ALL", "C").args([
        "--text",
        "--only-matching",
        "--fixed-strings",
        "--no-filename",
    ]);
    for mark in marks {
        command.arg("-e").arg(mark);
    }
    let found = command
        .arg("--")
        .arg(program)
        .output()
        .context("cannot start grep")?;
    // 1 means that there was nothing.
    ensure!(
        matches!(found.status.code(), Some(0 | 1)),
        "grep failed: {}",
        String::from_utf8_lossy(&found.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&found.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

fn build(root: &Path) -> Result<()> {
    run(cargo(root).args([
        "build",
        "--package",
        "aos-sim",
        "--profile",
        "sim",
        "--locked",
    ]))
}

fn program(root: &Path) -> Command {
    Command::new(target_dir(root).join("sim").join("aos-sim"))
}

/// One that no run has had before, short enough to be typed.
fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |since| since.as_secs() % 1_000_000_000 * 1000)
}
