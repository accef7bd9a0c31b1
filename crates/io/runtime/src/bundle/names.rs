//! The two files from which an instance learns names: `/etc/hosts` and `/etc/resolv.conf`.

use std::{fmt::Write as _, net::IpAddr};

use crate::InstanceSpec;

pub(super) fn hosts(spec: &InstanceSpec) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    for entry in &spec.hosts {
        let names: Vec<&str> = entry
            .names
            .iter()
            .map(String::as_str)
            .filter(|name| {
                !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '#')
            })
            .collect();
        if !names.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} {}", entry.ip, names.join(" "));
        }
    }
    text
}

pub(super) fn resolv(servers: &[IpAddr]) -> String {
    servers.iter().fold(String::new(), |mut text, server| {
        let _ = writeln!(text, "nameserver {server}");
        text
    })
}

/// A file of the Node itself; empty if there is none.
pub(super) fn of_node(path: &str) -> Result<String, crate::Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(crate::rootfs::file(
            "read",
            std::path::Path::new(path),
            error,
        )),
    }
}
