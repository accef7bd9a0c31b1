//! The run's network: a switch that host and places are plugged into, and no way out of it.
//!
//! The bridge lives in a namespace of its own, so that firewall rules of the host do not see what
//! the places say to each other. The host has one leg in it, `aosd<n>` with `10.91.<n>.1/24`.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Place, Stage};

/// The namespace with the bridge.
fn switch(stage: &Stage) -> String {
    format!("{}-switch", stage.prefix())
}

/// Runs `ip` with these arguments.
pub fn ip(arguments: &[&str]) -> Result<String> {
    run("ip", arguments)
}

/// Runs a program to its end; an error carries what it printed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start `{program}`"))?;
    if !output.status.success() {
        bail!(
            "`{program} {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes namespaces, bridge and legs.
pub fn build(stage: &Stage) -> Result<()> {
    let switch = switch(stage);
    ip(&["netns", "add", &switch])?;
    ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"])?;
    ip(&["-n", &switch, "link", "set", "bridge", "up"])?;

    let host = stage.prefix();
    plug(&switch, &host, "host", None)?;
    ip(&[
        "address",
        "add",
        &format!("{}/24", stage.host_address()),
        "dev",
        &host,
    ])?;
    ip(&["link", "set", &host, "up"])?;

    for place in Place::ALL {
        let namespace = stage.namespace(place);
        ip(&["netns", "add", &namespace])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        plug(&switch, "eth0", place.name(), Some(&namespace))?;
        let address = format!("{}/24", stage.address(place));
        ip(&["-n", &namespace, "address", "add", &address, "dev", "eth0"])?;
        ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
    }
    Ok(())
}

/// A cable from the bridge's port `port` to the interface `name` in `namespace` (or on the host).
fn plug(switch: &str, name: &str, port: &str, namespace: Option<&str>) -> Result<()> {
    let mut add = vec![
        "-n", switch, "link", "add", port, "type", "veth", "peer", "name", name,
    ];
    // A process id stands for the namespace that the process is in: without a name it is ours.
    let own = std::process::id().to_string();
    add.extend(["netns", namespace.unwrap_or(&own)]);
    ip(&add)?;
    ip(&["-n", switch, "link", "set", port, "master", "bridge", "up"])?;
    Ok(())
}

/// Interfaces, routes and rules of a place, for whoever looks for what went wrong.
pub fn describe(stage: &Stage, place: Place) -> String {
    let inside = format!("--net=/run/netns/{}", stage.namespace(place));
    let mut text = String::new();
    for command in [
        &["ip", "-brief", "address"][..],
        &["ip", "route"],
        &["nft", "--numeric", "list", "ruleset"],
    ] {
        let mut arguments = vec![inside.as_str(), "--"];
        arguments.extend(command);
        let answer = run("nsenter", &arguments).unwrap_or_else(|error| format!("{error:#}\n"));
        text.push_str(&format!("$ {}\n{answer}\n", command.join(" ")));
    }
    for (name, address) in instance_addresses(stage, place) {
        text.push_str(&format!("instance {name} {address}\n"));
    }
    text
}

/// The network namespaces of a Node's instances, each with the addresses of its `eth0`.
pub fn instance_addresses(stage: &Stage, place: Place) -> Vec<(String, String)> {
    let folder = stage.run_folder().join(place.name()).join("netns");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let inside = format!("--net={}", entry.path().display());
        let text = run(
            "nsenter",
            &[
                &inside, "--", "ip", "-brief", "-4", "address", "show", "eth0",
            ],
        )
        .unwrap_or_default();
        let address = text
            .split_whitespace()
            .nth(2)
            .unwrap_or_default()
            .to_owned();
        found.push((entry.file_name().to_string_lossy().into_owned(), address));
    }
    found.sort();
    found
}
