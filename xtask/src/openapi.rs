//! The OpenAPI document: written by the program, kept in the tree, compared in CI.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{aos_binary, output};

/// Writes `docs/openapi.json`, or with `check` compares it.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let path = root.join("docs").join("openapi.json");
    let document = output(Command::new(aos_binary(root)).args(["cloud", "openapi"]))?;
    if !check {
        std::fs::write(&path, document)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
        return Ok(());
    }
    let kept = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if kept != document {
        bail!("docs/openapi.json is not what the program serves: run `cargo xtask openapi`");
    }
    Ok(())
}
