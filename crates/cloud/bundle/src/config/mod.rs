//! `config.yaml`, schema version 2: what a publisher says about the items of a bundle.

mod configuration;
mod dependencies;
mod item;
mod keys;
mod problem;
mod section;
mod yaml;

use aos_types::{ItemConfig, ItemType};

pub use problem::{Problem, Problems, Severity};
pub(crate) use section::Notes;
use section::Section;
pub(crate) use yaml::MAX_CONFIG;

/// The schema this version reads and writes.
pub(crate) const SCHEMA: u64 = 2;

/// Everything a `config.yaml` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Who publishes.
    pub publisher: Publisher,
    /// Where to, and with which keys.
    pub publish: Publish,
    /// At least one; services, or components and layers, but not both.
    pub items: Vec<Item>,
}

/// Who publishes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publisher {
    /// A person.
    pub author: String,
    /// The person's company.
    pub company: String,
}

/// Where a bundle goes and which keys are used. Only read on the publisher's machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publish {
    /// File with the key and certificate for the upload.
    pub tls_key: Option<String>,
    /// File with the key and certificate for the signature, if it is another one.
    pub sign_key: Option<String>,
    /// Host of the cloud.
    pub domain: Option<String>,
}

/// One Deployable Item in one version.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Service, component or layer.
    pub item_type: ItemType,
    /// Its name among the items of its owner.
    pub codename: String,
    /// Its name for people.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// The cloud's id, if the item is known there.
    pub id: Option<String>,
    /// Semantic version.
    pub version: semver::Version,
    /// Folder of the item beneath the bundle's.
    pub source_folder: Option<String>,
    /// One a platform.
    pub images: Vec<Image>,
    /// How it is run, as the Unit reads it.
    pub item_config: ItemConfig,
    /// Its state file.
    pub state: Option<State>,
    /// How many run, and where, unless an assignment says otherwise.
    pub instances: Instances,
    /// `NAME=value` for every image.
    pub env: Vec<String>,
    /// For every image that has no own one.
    pub working_dir: String,
    /// Whom it runs as in the image's own eyes; ours.
    pub user: Option<String>,
    /// What asks it to end; ours.
    pub stop_signal: Option<String>,
    /// For every image that has no own one.
    pub cmd: Vec<String>,
    /// `port[/protocol]` that the item listens on.
    pub exposed_ports: Vec<String>,
    /// Other items it needs.
    pub dependencies: Vec<Dependency>,
}

/// The files of an item for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Folder with the files.
    pub source_folder: Option<String>,
    /// A single file instead of a folder.
    pub path: Option<String>,
    /// What the single file is.
    pub media_type: Option<String>,
    /// OCI name; `Linux` by default, written to the image as `linux`.
    pub os: String,
    /// Empty is any.
    pub os_version: String,
    /// Needed features.
    pub os_features: Vec<String>,
    /// OCI name.
    pub architecture: String,
    /// Empty is any.
    pub variant: String,
    /// `NAME=value` for this image; wins over the item's.
    pub env: Vec<String>,
    /// Instead of the item's.
    pub working_dir: Option<String>,
    /// Instead of the item's.
    pub cmd: Option<Vec<String>>,
}

impl Image {
    /// Whether another tool has built it.
    pub(crate) fn is_layout(&self) -> bool {
        self.media_type.as_deref() == Some(crate::LAYOUT)
    }
}

/// An item's state file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its name in the item's folder, where the default state lies.
    pub filename: String,
    /// The item does not start without a state.
    pub required: bool,
}

/// How many instances run by default, and on which Nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instances {
    /// 1 to 100.
    pub min: u64,
    /// Higher goes first when resources are short.
    pub priority: u64,
    /// Labels a Node must carry.
    pub labels: Vec<String>,
}

impl Default for Instances {
    fn default() -> Self {
        Self {
            min: 1,
            priority: 0,
            labels: Vec::new(),
        }
    }
}

/// Another item that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Its codename.
    pub codename: String,
    /// Versions that will do.
    pub versions: semver::VersionReq,
    /// Whether pre-releases will do.
    pub include_pre_release: bool,
    /// What must be so with it.
    pub condition: aos_types::Condition,
}

impl Dependency {
    /// As a Unit reads it, which knows the other item by its id.
    pub(crate) fn on(&self, item: Option<aos_types::ItemId>) -> Option<aos_types::Dependency> {
        Some(aos_types::Dependency {
            versions: self.versions.clone(),
            include_pre_release: self.include_pre_release,
            name: Some(self.codename.clone()),
            ..aos_types::Dependency::on(item?, self.condition)
        })
    }
}

impl Config {
    /// Reads a configuration and checks every rule that needs no files. Gives the warnings along with it.
    pub fn parse(text: &str) -> Result<(Self, Problems), Problems> {
        let (config, notes) = Self::read(text)?;
        let problems = notes.take();
        match config {
            Some(config) if !problems.has_errors() => Ok((config, problems)),
            _ => Err(problems),
        }
    }

    /// Reads as much as can be read; the notes hold what is wrong.
    pub(crate) fn read(text: &str) -> Result<(Option<Self>, Notes), Problems> {
        let (value, lines) = yaml::parse(text).map_err(|problem| Problems(vec![problem]))?;
        let notes = Notes::new(lines);
        let config = Section::of(&notes, String::new(), &value).and_then(|root| top(&root));
        Ok((config, notes))
    }
}

fn top(root: &Section<'_>) -> Option<Config> {
    match root.unsigned("schemaVersion") {
        Some(SCHEMA) => {}
        Some(other) => {
            root.error(
                "schemaVersion",
                format!("version {other} is not known: this program reads version {SCHEMA}"),
            );
            // Nothing else can be judged by rules of another schema.
            return None;
        }
        None => {
            if root.get("schemaVersion").is_none() {
                root.error(
                    "schemaVersion",
                    format!("is missing: write `schemaVersion: {SCHEMA}`"),
                );
            }
            return None;
        }
    }
    root.only(&["schemaVersion", "publisher", "publish", "items"]);
    let publisher = root.section("publisher").map(|section| {
        section.only(&["author", "company"]);
        Publisher {
            author: section.text("author").unwrap_or_default(),
            company: section.text("company").unwrap_or_default(),
        }
    });
    let publish = root.section("publish").map(|section| {
        section.only(&["tlsKey", "signKey", "domain"]);
        Publish {
            tls_key: section.text("tlsKey"),
            sign_key: section.text("signKey"),
            domain: section.text("domain"),
        }
    });
    let sections = root.sections("items");
    if sections.is_empty() {
        root.error(
            "items",
            "is missing or empty: a bundle holds at least one item",
        );
    }
    let count = sections.len();
    let items: Vec<Item> = sections.iter().filter_map(item::read).collect();
    let complete = items.len() == count;
    item::together(root.notes, &items);
    complete.then(|| Config {
        publisher: publisher.unwrap_or_default(),
        publish: publish.unwrap_or_default(),
        items,
    })
}
