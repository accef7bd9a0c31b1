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
    /// Only tests use it.
    tests: bool,
}

/// What the machine is set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// To build everything and run it.
    Running,
    /// Also to test it.
    Testing,
}

const NEEDS: &[Need] = &[
    Need {
        probe: "crun",
        package: "crun",
        what_for: "starts the containers",
        tests: false,
    },
    Need {
        probe: "nft",
        package: "nftables",
        what_for: "publishes and filters their ports",
        tests: false,
    },
    Need {
        probe: "ip",
        package: "iproute2",
        what_for: "makes the demo's network namespaces",
        tests: false,
    },
    Need {
        probe: "/usr/sbin/mkfs.btrfs",
        package: "btrfs-progs",
        what_for: "limits what containers keep where the file system has no quotas",
        tests: false,
    },
    Need {
        probe: "runc",
        package: "runc",
        what_for: "is the other container runtime that is tested",
        tests: true,
    },
    Need {
        probe: "umoci",
        package: "umoci",
        what_for: "builds an image that is not ours, to be run",
        tests: true,
    },
    Need {
        probe: "/bin/busybox",
        package: "busybox-static",
        what_for: "is the content of that image",
        tests: true,
    },
    Need {
        probe: "chromium",
        package: "chromium",
        what_for: "runs the web UI's tests",
        tests: true,
    },
    Need {
        probe: "qemu-system-x86_64",
        package: "qemu-system-x86",
        what_for: "runs tests on another kernel",
        tests: true,
    },
    Need {
        probe: "busybox",
        package: "busybox-static",
        what_for: "is that machine's userland",
        tests: true,
    },
    Need {
        probe: "/usr/share/fonts/truetype/dejavu",
        package: "fonts-dejavu-core",
        what_for: "gives the browser a font",
        tests: true,
    },
    Need {
        probe: "node",
        package: "nodejs",
        what_for: "builds the web UI",
        tests: false,
    },
    Need {
        probe: "npm",
        package: "npm",
        what_for: "builds the web UI",
        tests: false,
    },
];

fn missing(what: For) -> Vec<&'static Need> {
    NEEDS
        .iter()
        .filter(|need| what == For::Testing || !need.tests)
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
pub fn run(what: For) -> Result<()> {
    let missing = missing(what);
    if missing.is_empty() {
        println!("set-up: everything needed is here, nothing was installed");
        return Ok(());
    }
    println!(
        "set-up: these Debian packages are missing and will be installed, with what they need:"
    );
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
                "-o",
                "Dpkg::Use-Pty=0",
            ])
            .arg("--no-install-recommends")
            .args(missing.iter().map(|need| need.package)),
    )?;
    let still = self::missing(what);
    if let Some(need) = still.first() {
        bail!(
            "package {} was installed but {} is still not found",
            need.package,
            need.probe
        );
    }
    println!("set-up: everything needed is here now");
    Ok(())
}
