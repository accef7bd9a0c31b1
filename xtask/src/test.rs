//! `cargo xtask test`: everything CI runs, in one order, each step timed.

use std::path::Path;

use anyhow::Result;

use crate::privilege::{is_root, sudo_is_silent};
use crate::process::{cargo, found, run as run_command, target_dir};
use crate::steps::Run;
use crate::{defects, demo, examples, guest, harness, layers, openapi, setup, sim, ui};

/// Runs all steps; an error if any failed. The last line printed is the count.
pub fn run(root: &Path) -> Result<()> {
    let mut run = Run::default();
    run.check("set-up", || setup::run(setup::For::Testing));
    run.check("fmt", || {
        run_command(cargo(root).args(["fmt", "--all", "--check"]))
    });
    run.check("layers", || layers::run(root));
    run.check("known defects", || defects::run(root));
    // The UI comes before the build: the server carries `ui/dist`.
    let ui_built = run.check("web UI: install and build", || {
        ui::install(root)?;
        ui::build(root)
    });
    run.check("web UI: check", || ui::check(root));
    run.check("clippy", || {
        run_command(
            cargo(root)
                .args(["clippy", "--workspace", "--all-targets", "--locked"])
                .args(["--", "-D", "warnings"]),
        )
    });
    run.check("examples: lints", || examples::check(root));
    if found("cargo-deny") {
        run.check("deny", || run_command(cargo(root).args(["deny", "check"])));
    } else {
        run.skip("deny", "cargo-deny is not installed");
    }
    run.check("simulator: new seeds", || sim::some_seeds(root));
    run.check("simulator: planted bugs", || sim::some_mutations(root));
    let built = run.check("build of tests and programs", || harness::build(root));
    let examples_built = run.check("build of the examples", || examples::build(root));
    if built {
        run.counted("tests", || harness::run(root));
        match guest::missing(root) {
            Some(reason) => run.skip("tests in the guest", &reason),
            None => {
                run.counted("tests in the guest", || {
                    guest::run(root, &harness::programs(root)?)
                });
            }
        }
        run.check("simulator: not in the product", || {
            sim::not_in_the_product(root)
        });
        run.check("openapi document", || openapi::run(root, true));
        let missing = if !examples_built {
            Some("the examples do not build")
        } else if !is_root() && !sudo_is_silent() {
            Some("needs root, and sudo would ask for a password")
        } else {
            None
        };
        let logs = target_dir(root).join("demo-logs");
        match missing {
            Some(reason) => {
                run.skip("web UI in Chromium", reason);
                run.skip("demo", reason);
            }
            None => {
                if ui_built {
                    run.check("web UI in Chromium", || {
                        demo::watched(root, logs.join("watched"))
                    });
                    run.check("charts and alerts in Chromium", || {
                        demo::senses(root, logs.join("senses"))
                    });
                } else {
                    run.skip("web UI in Chromium", "the UI does not build");
                }
                run.check("demo", || demo::check(root, logs.join("check")));
            }
        }
    } else {
        for name in [
            "tests",
            "tests in the guest",
            "openapi document",
            "web UI in Chromium",
            "demo",
        ] {
            run.skip(name, "the build failed");
        }
    }
    if !run.finish() {
        // The count must stay the last line, so the error says nothing more.
        std::process::exit(1);
    }
    Ok(())
}
