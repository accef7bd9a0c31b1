//! One entry of `items`.

use std::collections::BTreeSet;

use aos_types::{Condition, ItemType, tolerant::FieldError};

use super::{
    Dependency, Image, Item, configuration, dependencies,
    section::{Notes, Section},
};

pub(super) fn read(section: &Section<'_>) -> Option<Item> {
    section.only(&[
        "identity",
        "version",
        "sourceFolder",
        "images",
        "configuration",
        "dependencies",
    ]);
    let identity = section.section("identity");
    if identity.is_none() && section.get("identity").is_none() {
        section.error("identity", "is missing: write its `codename` and `type`");
    }
    let identity = identity?;
    identity.only(&["type", "codename", "title", "description", "id", "urn"]);
    let item_type = match identity.text("type").as_deref() {
        None | Some("service") => ItemType::Service,
        Some("component") => ItemType::Component,
        Some("layer") => ItemType::Layer,
        Some(_) => {
            identity.error("type", "must be `service`, `component` or `layer`");
            ItemType::Service
        }
    };
    let codename = identity.required_text("codename");
    if let Some(codename) = &codename
        && !is_codename(codename)
    {
        identity.error(
            "codename",
            "may hold only letters, digits, `.`, `_` and `-`, begins with a letter or digit, and has at most 64 of them",
        );
    }
    let version = section.required_text("version").and_then(|text| {
        semver::Version::parse(&text)
            .map_err(|error| {
                section.error(
                    "version",
                    format!("`{text}` is not a semantic version such as 1.2.3: {error}"),
                );
            })
            .ok()
    });
    let images = images(section, item_type);
    let configuration = configuration::read(
        section.section("configuration").as_ref(),
        section,
        item_type,
        version.as_ref(),
        &images,
    );
    let codename = codename?;
    Some(Item {
        item_type,
        title: identity
            .text("title")
            .filter(|title| !title.is_empty())
            .unwrap_or_else(|| codename.clone()),
        codename,
        description: identity.text("description").unwrap_or_default(),
        id: identity.text("id"),
        version: version?,
        source_folder: folder(section, "sourceFolder"),
        images,
        item_config: configuration.item_config,
        state: configuration.state,
        instances: configuration.instances,
        env: configuration.env,
        working_dir: configuration.working_dir,
        user: configuration.user,
        stop_signal: configuration.stop_signal,
        cmd: configuration.cmd,
        exposed_ports: configuration.exposed_ports,
        dependencies: needs(section),
    })
}

/// A name that is safe in a path, a URL and a host name's neighbourhood.
fn is_codename(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !text.contains("..")
}

/// A relative path that stays inside the bundle's folder.
fn folder(section: &Section<'_>, key: &str) -> Option<String> {
    let path = section.text(key)?;
    if crate::layout::is_inside(&path) {
        return Some(path);
    }
    section.error(
        key,
        format!("`{path}` leaves the bundle's folder: use a relative path without `..`"),
    );
    None
}

fn images(section: &Section<'_>, item_type: ItemType) -> Vec<Image> {
    let sections = section.sections("images");
    if sections.is_empty() {
        section.error(
            "images",
            "is missing or empty: name at least one image with its architecture",
        );
    }
    let mut platforms = BTreeSet::new();
    sections
        .iter()
        .filter_map(|image| read_image(image, item_type, &mut platforms))
        .collect()
}

fn read_image(
    image: &Section<'_>,
    item_type: ItemType,
    platforms: &mut BTreeSet<[String; 4]>,
) -> Option<Image> {
    image.only(&[
        "sourceFolder",
        "path",
        "mediaType",
        "osInfo",
        "archInfo",
        "env",
        "workingDir",
        "cmd",
        "encryption",
    ]);
    if image.get("encryption").is_some() {
        image.error(
            "encryption",
            "is not supported yet: remove it; transport and storage are protected by TLS and signatures",
        );
    }
    let os = image.section("osInfo");
    if let Some(os) = &os {
        os.only(&["os", "version", "features"]);
    }
    let arch = image.section("archInfo");
    if arch.is_none() && image.get("archInfo").is_none() {
        image.error(
            "archInfo",
            "is missing: write `archInfo: {architecture: amd64}`",
        );
    }
    let arch = arch?;
    arch.only(&["architecture", "variant"]);
    let architecture = arch.required_text("architecture").unwrap_or_default();
    if ["x86_64", "x86-64", "aarch64"].contains(&architecture.as_str()) {
        arch.error(
            "architecture",
            format!("`{architecture}` is not an OCI name: write `amd64` or `arm64`"),
        );
    }
    let read = Image {
        source_folder: folder(image, "sourceFolder"),
        path: folder(image, "path"),
        media_type: image.text("mediaType"),
        os: os
            .as_ref()
            .and_then(|os| os.text("os"))
            .unwrap_or_else(|| "Linux".into()),
        os_version: os
            .as_ref()
            .and_then(|os| os.text("version"))
            .unwrap_or_default(),
        os_features: os.map(|os| os.texts("features")).unwrap_or_default(),
        variant: arch.text("variant").unwrap_or_default(),
        architecture,
        env: image.env("env"),
        working_dir: working_dir(image),
        cmd: image.get("cmd").map(|_| image.texts("cmd")),
    };
    if read.source_folder.is_some() && read.path.is_some() {
        image.error(
            "path",
            "cannot stand beside `sourceFolder`: keep one of them",
        );
    }
    if item_type != ItemType::Service && read.is_layout() {
        image.error("mediaType", "is that of a service's image");
    }
    if item_type == ItemType::Component && read.media_type.is_none() {
        image.error(
            "mediaType",
            "is missing: a component must say what its image is",
        );
    }
    let platform = [
        read.os.to_lowercase(),
        read.os_version.clone(),
        read.architecture.clone(),
        read.variant.clone(),
    ];
    if !platforms.insert(platform) {
        image.error(
            "archInfo",
            "names a platform that another image of this item already has",
        );
    }
    Some(read)
}

pub(super) fn working_dir(section: &Section<'_>) -> Option<String> {
    let path = section.text("workingDir")?;
    if !path.is_empty() && !path.starts_with('/') {
        section.error(
            "workingDir",
            "must be an absolute path inside the item's root",
        );
    }
    Some(path)
}

fn needs(section: &Section<'_>) -> Vec<Dependency> {
    section
        .sections("dependencies")
        .iter()
        .filter_map(|dependency| {
            dependency.only(&["identity", "versions", "includePreRelease", "condition"]);
            let identity = dependency.section("identity");
            if identity.is_none() && dependency.get("identity").is_none() {
                dependency.error("identity", "is missing: write the other item's `codename`");
            }
            let identity = identity?;
            identity.only(&["codename", "type", "title"]);
            let codename = identity.required_text("codename")?;
            let versions = dependency.text("versions").unwrap_or_else(|| "*".into());
            let versions = semver::VersionReq::parse(&versions)
                .map_err(|error| {
                    dependency.error(
                        "versions",
                        format!("`{versions}` is not a version range: {error}"),
                    );
                })
                .ok()?;
            let condition = match dependency.text("condition") {
                None => Condition::DEFAULT,
                Some(word) => word
                    .parse()
                    .map_err(|error: FieldError| dependency.error("condition", error.to_string()))
                    .ok()?,
            };
            Some(Dependency {
                codename,
                versions,
                include_pre_release: dependency.boolean("includePreRelease").unwrap_or(false),
                condition,
            })
        })
        .collect()
}

/// Rules between items.
pub(super) fn together(notes: &Notes, items: &[Item]) {
    let mut names = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        if !names.insert((item.item_type, &item.codename)) {
            notes.error(
                &format!("items[{i}].identity.codename"),
                format!("`{}` is in the bundle twice", item.codename),
            );
        }
    }
    let services = items
        .iter()
        .filter(|item| item.item_type == ItemType::Service)
        .count();
    if services > 0 && services < items.len() {
        notes.error(
            "items",
            "services cannot share a bundle with components or layers: make two bundles",
        );
    }
    dependencies::check(notes, items);
}
