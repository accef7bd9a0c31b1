//! The Rust tests: built once, run by nextest where it is installed, else program by program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::privilege::{is_root, sudo_is_silent};
use crate::process::{cargo, found, line, status, target_dir};
use crate::results::{Counts, read_junit, read_libtest};

/// One built test program.
pub struct Program {
    /// As its tests are counted.
    pub name: String,
    /// Where it is.
    pub executable: PathBuf,
    folder: PathBuf,
}

/// Builds all tests and all programs of the workspace.
pub fn build(root: &Path) -> Result<()> {
    programs(root).map(|_| ())
}

/// Asks cargo for the test programs, building what is not built.
pub fn programs(root: &Path) -> Result<Vec<Program>> {
    programs_of(root, &[])
}

/// The same of some packages, or of all if none is named.
pub fn programs_of(root: &Path, packages: &[&str]) -> Result<Vec<Program>> {
    let mut command = cargo(root);
    command.args(["test", "--no-run", "--locked"]);
    if packages.is_empty() {
        command.arg("--workspace");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    command.args(["--message-format", "json-render-diagnostics"]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", line(&command)))?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut programs = Vec::new();
    for message in text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        if let Some(program) = program(&message) {
            programs.push(program);
        }
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

fn program(message: &Value) -> Option<Program> {
    if message.get("reason")? != "compiler-artifact" || message.pointer("/profile/test")? != true {
        return None;
    }
    let executable = PathBuf::from(message.get("executable")?.as_str()?);
    let folder = Path::new(message.get("manifest_path")?.as_str()?)
        .parent()?
        .to_path_buf();
    let target = message.pointer("/target/name")?.as_str()?;
    let kind = message.pointer("/target/kind/0")?.as_str()?;
    let package = folder.file_name()?.to_str()?;
    let name = match kind {
        "lib" => target.replace('_', "-"),
        "bin" => format!("{target}::bin"),
        _ => format!("{package}::{target}"),
    };
    Some(Program {
        name,
        executable,
        folder,
    })
}

/// Runs the tests and counts them.
pub fn run(root: &Path) -> Result<Counts> {
    let mut counts = if found("cargo-nextest") {
        nextest(root)?
    } else {
        println!("cargo-nextest is not installed: the test programs run one after the other");
        one_by_one(root)?
    };
    if !is_root() {
        again_as_root(root, &mut counts)?;
    }
    Ok(counts)
}

fn nextest(root: &Path) -> Result<Counts> {
    let report = target_dir(root)
        .join("nextest")
        .join("ci")
        .join("junit.xml");
    let _ = std::fs::remove_file(&report);
    let mut command = cargo(root);
    command.args([
        "nextest",
        "run",
        "--workspace",
        "--locked",
        "--profile",
        "ci",
    ]);
    let result = status(&mut command)?;
    let text = std::fs::read_to_string(&report)
        .with_context(|| format!("nextest wrote no report to {}: {result}", report.display()))?;
    let counts = read_junit(&text);
    if !result.success() && counts.failed.is_empty() {
        bail!("`{}` failed: {result}", line(&command));
    }
    Ok(counts)
}

fn one_by_one(root: &Path) -> Result<Counts> {
    let mut counts = Counts::default();
    for program in programs(root)? {
        let command = Command::new(&program.executable);
        let part = run_program(&program, command, &[])?;
        println!("  {:<40} {}", program.name, part.line());
        counts.add(part);
    }
    Ok(counts)
}

/// Runs one test program, all of it or the tests named.
fn run_program(program: &Program, mut command: Command, only: &[&str]) -> Result<Counts> {
    command
        .args(["--show-output", "--test-threads", "2"])
        // Those for the guest run there.
        .args(["--skip", "guest_"])
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder);
    if !only.is_empty() {
        command.arg("--exact").args(only);
    }
    let output = command
        .output()
        .with_context(|| format!("cannot start `{}`", line(&command)))?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut counts = read_libtest(&program.name, &text);
    if !output.status.success() {
        println!("{text}");
        if counts.failed.is_empty() {
            counts
                .failed
                .push(format!("{}: ended by {}", program.name, output.status));
        }
    }
    Ok(counts)
}

/// Gives the tests that were skipped for want of root a second chance: their built programs, not
/// cargo, run under `sudo`, if it gives root without asking.
fn again_as_root(root: &Path, counts: &mut Counts) -> Result<()> {
    let (needy, other): (Vec<_>, Vec<_>) = std::mem::take(&mut counts.skipped)
        .into_iter()
        .partition(|(_, reason)| reason.contains("root"));
    counts.skipped = other;
    if needy.is_empty() {
        return Ok(());
    }
    if !sudo_is_silent() {
        counts.skipped.extend(needy);
        return Ok(());
    }
    println!(
        "{} test(s) need root: their programs run again under sudo",
        needy.len()
    );
    for program in programs(root)? {
        let prefixes = [format!("{}::", program.name)];
        let only: Vec<&str> = needy
            .iter()
            .filter_map(|(name, _)| prefixes.iter().find_map(|p| name.strip_prefix(p.as_str())))
            .filter(|name| !name.starts_with("bin::"))
            .collect();
        if only.is_empty() {
            continue;
        }
        let mut command = Command::new("sudo");
        command
            .args(["-n", "--preserve-env=CARGO_MANIFEST_DIR", "--"])
            .arg(&program.executable);
        counts.add(run_program(&program, command, &only)?);
    }
    Ok(())
}
