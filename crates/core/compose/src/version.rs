use aos_types::{CONTAINERS, RuntimeInfo};

use crate::{
    Node, Platform, Readiness, Service, Version,
    explain::{Outcome, RuleName, ServiceReport},
};

/// The newest version that can be delivered and that some Node can run.
///
/// Where no Node has reported its runtimes yet, the newest is taken: the Unit itself refuses what it cannot run.
pub(crate) fn choose<'a>(
    service: &'a Service,
    nodes: &[Node],
    report: &mut ServiceReport,
) -> Option<&'a Version> {
    let mut versions: Vec<&Version> = service.versions.iter().collect();
    versions.sort_by(|a, b| newer_first(&a.version, &b.version));
    let ready: Vec<&Version> = versions
        .iter()
        .copied()
        .filter(|v| v.readiness == Readiness::Ready)
        .collect();
    let Some(newest) = ready.first() else {
        not_ready(&versions, report);
        return None;
    };
    report.rule(
        RuleName::VersionReady,
        Outcome::Pass,
        format!("version {} can be delivered", newest.version),
        None,
    );
    if nodes.iter().all(|node| node.runtimes.is_empty()) {
        report.rule(
            RuleName::PlatformFits,
            Outcome::Waiting,
            "no Node of the Unit has reported its runtimes yet; it decides itself",
            Some("bring the Unit online, with SM running on its Nodes"),
        );
        return Some(newest);
    }
    match ready
        .iter()
        .find_map(|version| Some((*version, runs_on(version, nodes)?)))
    {
        Some((version, node)) => {
            let text = if version.version == newest.version {
                format!("version {} runs on Node {}", version.version, node.id)
            } else {
                format!(
                    "version {} runs on Node {}; the newer {} runs on none",
                    version.version, node.id, newest.version
                )
            };
            report.rule(RuleName::PlatformFits, Outcome::Pass, text, None);
            Some(version)
        }
        None => {
            report.rule(
                RuleName::PlatformFits,
                Outcome::Fail,
                format!(
                    "no Node has what version {} needs: runtime {}, platform {}",
                    newest.version,
                    runtimes(newest).join(" or "),
                    platforms(newest)
                ),
                Some("publish a version with an image for an architecture of this Unit"),
            );
            None
        }
    }
}

fn not_ready(versions: &[&Version], report: &mut ServiceReport) {
    let (outcome, text, hint) = match versions.first() {
        None => (
            Outcome::Fail,
            "it has no version".to_owned(),
            "publish one: aos bundle push",
        ),
        Some(newest) => match &newest.readiness {
            Readiness::Unusable(why) => (
                Outcome::Fail,
                format!("version {} cannot be delivered: {why}", newest.version),
                "publish a corrected version",
            ),
            _ => (
                Outcome::Waiting,
                format!("version {} is being processed", newest.version),
                "wait a moment",
            ),
        },
    };
    report.rule(RuleName::VersionReady, outcome, text, Some(hint));
}

fn runs_on<'n>(version: &Version, nodes: &'n [Node]) -> Option<&'n Node> {
    let wanted = runtimes(version);
    nodes.iter().find(|node| {
        node.runtimes.iter().any(|runtime| {
            wanted.contains(&runtime.runtime_type.as_str()) && !missing_platform(version, runtime)
        })
    })
}

/// Whether no image of the version is for this runtime.
pub(crate) fn missing_platform(version: &Version, runtime: &RuntimeInfo) -> bool {
    !version.platforms.is_empty()
        && !version
            .platforms
            .iter()
            .any(|platform| fits(platform, &runtime.arch, &runtime.os))
}

/// The runtime types it may run on.
pub(crate) fn runtimes(version: &Version) -> Vec<&str> {
    if version.runtimes.is_empty() {
        CONTAINERS.to_vec()
    } else {
        version.runtimes.iter().map(String::as_str).collect()
    }
}

fn fits(wanted: &Platform, arch: &aos_types::ArchInfo, os: &aos_types::OsInfo) -> bool {
    let asked = |wanted: &str, found: &str| wanted.is_empty() || wanted.eq_ignore_ascii_case(found);
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    asked(&wanted.arch.architecture, &arch.architecture)
        && asked(&part(&wanted.arch.variant), &part(&arch.variant))
        && asked(&wanted.os.os, &os.os)
        && asked(&part(&wanted.os.version), &part(&os.version))
        && wanted
            .os
            .features
            .iter()
            .all(|feature| os.features.contains(feature))
}

/// Its platforms, for people.
pub(crate) fn platforms(version: &Version) -> String {
    if version.platforms.is_empty() {
        return "any".to_owned();
    }
    let words: Vec<String> = version
        .platforms
        .iter()
        .map(|p| format!("{}/{}", p.os.os, p.arch.architecture))
        .collect();
    words.join(", ")
}

/// Semantic versions by their order; a text that is none comes after all that are.
fn newer_first(a: &str, b: &str) -> std::cmp::Ordering {
    match (semver::Version::parse(a), semver::Version::parse(b)) {
        (Ok(a), Ok(b)) => b.cmp(&a),
        (Ok(_), Err(_)) => std::cmp::Ordering::Less,
        (Err(_), Ok(_)) => std::cmp::Ordering::Greater,
        (Err(_), Err(_)) => b.cmp(a),
    }
}
