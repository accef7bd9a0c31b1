//! What a machine needs besides Rust and a C compiler, and how it gets it.

use anyhow::{Context, Result, bail};

use crate::privilege::as_root;
use crate::process::{self, found};

/// One thing needed: how it is noticed, and the Debian package that brings it.
struct Need {
    /// A program in `PATH`, or (with a `/`) a file or folder.
    probe: &'static str,
    package: &'static str,
    what_for: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        probe: "crun",
        package: "crun",
        what_for: "starts the containers",
    },
    Need {
        probe: "nft",
        package: "nftables",
        what_for: "publishes and filters their ports",
    },
    Need {
        probe: "ip",
        package: "iproute2",
        what_for: "makes the demo's network namespaces",
    },
    Need {
        probe: "chromium",
        package: "chromium",
        what_for: "runs the web UI's tests",
    },
    Need {
        probe: "/usr/share/fonts/truetype/dejavu",
        package: "fonts-dejavu-core",
        what_for: "gives the browser a font",
    },
    Need {
        probe: "node",
        package: "nodejs",
        what_for: "builds the web UI",
    },
    Need {
        probe: "npm",
        package: "npm",
        what_for: "builds the web UI",
    },
];

fn missing() -> Vec<&'static Need> {
    NEEDS
        .iter()
        .filter(|need| {
            if need.probe.contains('/') {
                !std::path::Path::new(need.probe).exists()
            } else {
                !found(need.probe)
            }
        })
        .collect()
}

/// Installs what is missing. Says what it does before it does it.
pub fn run() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        println!("set-up: everything needed is here, nothing was installed");
        return Ok(());
    }
    println!("set-up: these Debian packages are missing and will be installed:");
    for need in &missing {
        println!("  {:<18} {}", need.package, need.what_for);
    }
    if !found("apt-get") {
        bail!(
            "there is no apt-get on this machine: install the programs above \
             by the means of your distribution and try again"
        );
    }
    process::run(as_root("apt-get")?.args(["update", "-qq"])).context(
        "the package lists could not be refreshed: check the network and /etc/apt/sources.list",
    )?;
    process::run(
        as_root("env")?
            .args([
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "install",
                "--yes",
                "-qq",
            ])
            .arg("--no-install-recommends")
            .args(missing.iter().map(|need| need.package)),
    )?;
    let still = self::missing();
    if let Some(need) = still.first() {
        bail!(
            "package {} was installed but {} is still not found",
            need.package,
            need.probe
        );
    }
    println!("set-up: installed {} package(s)", missing.len());
    Ok(())
}
