//! SIGKILL of cloud, IAM, CM and SM in the middle of the main loop: services keep their processes,
//! the loop goes on, no state is lost. And all certificates are renewed under way. The story is the demo's; the program is the one just built.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

use std::path::{Path, PathBuf};

use aos_demo::{Options, Plot, When};

#[test]
fn services_outlive_every_component() {
    tell(
        "services_outlive_every_component",
        Plot::Crashes(When::AtRest),
    );
}

#[test]
fn an_update_outlives_every_component() {
    tell(
        "an_update_outlives_every_component",
        Plot::Crashes(When::OnTheWay),
    );
}

#[test]
fn certificates_are_renewed_and_no_service_notices() {
    tell(
        "certificates_are_renewed_and_no_service_notices",
        Plot::Renewal,
    );
}

fn tell(test: &str, plot: Plot) {
    let skip = |reason: &str| eprintln!("SKIPPED {test}: {reason}");
    if let Some(reason) = aos_demo::stage::missing() {
        return skip(&reason);
    }
    let aos = Path::new(env!("CARGO_BIN_EXE_aos"));
    // target/debug/aos and target/examples/bundles, where `cargo xtask test` builds them.
    let examples = aos
        .ancestors()
        .nth(2)
        .map(|target| target.join("examples").join("bundles"))
        .filter(|folder| folder.join("counter").join("config.yaml").is_file())
        .or_else(|| {
            let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bundles");
            here.join("counter")
                .join("config.yaml")
                .is_file()
                .then_some(here)
        });
    let Some(examples) = examples else {
        return skip("the example services are not built: run `examples/build.sh`");
    };
    let options = Options {
        aos: aos.to_path_buf(),
        examples,
        check: true,
        keep_logs: Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test)),
        plot,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Err(error) = runtime.block_on(aos_demo::run(options)) {
        panic!("{error:#}");
    }
}
