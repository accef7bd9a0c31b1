//! `cargo xtask bench`: figures beside floors of the same run, from the release build.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::privilege::as_root;
use crate::process::{self, cargo, target_dir};
use crate::{examples, setup, ui};

/// What is measured.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum What {
    /// The service runtime: instances until they are active and until they are gone, after a crash, exchanged, and idle.
    Runtime,
    /// The update engine, the scheduler and the image store by themselves.
    Engine,
    /// Monitoring: processor time for fifty instances, the uplink of an idle Unit; how fast logs are taken in; and the networks of 1, 50 and 256 instances (as root). Takes
    /// about a quarter of an hour.
    Senses,
}

/// What `cargo xtask bench` is told.
#[derive(Args)]
pub struct Options {
    /// What to measure.
    what: What,
    /// Print one JSON object a line and nothing else.
    #[arg(long)]
    json: bool,
}

/// Builds, measures, prints.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let figures = match options.what {
        What::Runtime => demo(root, options, "runtime")?,
        What::Senses => {
            let mut figures = demo(root, options, "senses")?;
            figures.extend(programs(root, SENSES)?);
            figures
        }
        What::Engine => programs(root, ENGINE)?,
    };
    if figures.is_empty() {
        bail!("nothing was measured");
    }
    if options.json {
        figures.iter().for_each(|figure| println!("{figure}"));
    } else {
        print!("{}", table(&figures));
    }
    Ok(())
}

/// What the demo measures on its stage.
fn demo(root: &Path, options: &Options, what: &str) -> Result<Vec<Value>> {
    if !options.json {
        setup::run(setup::For::Running)?;
    }
    ui::install(root)?;
    ui::build(root)?;
    examples::build(root)?;
    process::run(cargo(root).args(["build", "--release", "--workspace", "--bins", "--locked"]))?;
    let aos = target_dir(root).join("release").join("aos");
    let mut command = as_root(aos)?;
    command
        .arg("demo")
        .args(["--bench", what])
        .arg("--examples")
        .arg(examples::folder(root));
    figures_of(&mut command)
}

/// Programs that measure one crate each, and what they are told.
const ENGINE: &[(&str, &str, &[&str])] = &[
    ("aos-update", "cycle", &["1000"]),
    ("aos-schedule", "scale", &[]),
    ("aos-image", "store_throughput", &[]),
];

const SENSES: &[(&str, &str, &[&str])] = &[
    ("aos-runtime", "log_throughput", &[]),
    ("aos-netstack", "networks", &[]),
];

fn programs(root: &Path, programs: &[(&str, &str, &[&str])]) -> Result<Vec<Value>> {
    let mut figures = Vec::new();
    for (package, example, arguments) in programs {
        let mut command = cargo(root);
        command
            .args(["run", "--release", "--quiet", "--locked"])
            .args(["--package", package, "--example", example, "--"])
            .args(*arguments);
        figures.extend(figures_of(&mut command)?);
    }
    Ok(figures)
}

/// The figures that a program prints, an object a line.
fn figures_of(command: &mut Command) -> Result<Vec<Value>> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", process::line(command)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("the measurement failed:\n{text}");
    }
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

fn table(figures: &[Value]) -> String {
    let mut text = format!(
        "{:<24}{:>12}{:>12}{:>9}\n",
        "figure", "value", "floor", "ratio"
    );
    for figure in figures {
        let number = |key: &str| figure.get(key).and_then(Value::as_f64);
        let word = |key: &str| figure.get(key).and_then(Value::as_str).unwrap_or_default();
        let with_unit = |value: f64| format!("{value:.3} {}", word("unit"));
        text.push_str(&format!(
            "{:<24}{:>12}{:>12}{:>9}\n",
            word("name"),
            number("value").map(with_unit).unwrap_or_default(),
            number("floor").map(with_unit).unwrap_or_default(),
            number("ratio")
                .map(|ratio| format!("{ratio:.2}"))
                .unwrap_or_default(),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_without_a_floor_leaves_its_columns_empty() {
        let figures = [
            serde_json::json!({"name": "deploy.active.1", "value": 0.25, "unit": "s", "floor": 0.1, "ratio": 2.5}),
            serde_json::json!({"name": "idle.pss.main", "value": 9.5, "unit": "MB"}),
        ];
        let text = table(&figures);
        assert!(text.contains("0.250 s"), "{text}");
        assert!(text.contains("2.50"), "{text}");
        assert!(
            text.lines()
                .last()
                .unwrap_or_default()
                .trim_end()
                .ends_with("9.500 MB"),
            "{text}"
        );
    }
}
