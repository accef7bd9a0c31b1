//! Small names for what the cores call by long ones, so that tables of the simulator stay cheap and readable.

use std::{fmt, sync::Arc};

use aos_types::{
    Digest, InstanceIdent, ItemConfig, ItemId, ItemType, NodeId, OwnerId, RequestedResources,
    RuntimeId, StoragePolicy, SubjectId,
};

use crate::draw::{Drawn, Scene, Storage};

/// An item of the catalogue.
pub(crate) type Item = u8;
/// One of its versions, from 1.
pub(crate) type Ver = u8;

/// One instance: item, subject, index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Inst {
    pub(crate) item: Item,
    pub(crate) subject: u8,
    pub(crate) index: u8,
}

impl fmt::Display for Inst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}/s{}/{}", self.item, self.subject, self.index)
    }
}

/// One blob: a part of a version of an item. Part 0 is its index with the configurations, part 1 its layer; part 2 is a
/// layer that several versions share and carries the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Blob {
    pub(crate) item: Item,
    pub(crate) ver: Ver,
    pub(crate) part: u8,
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}v{}.{}", self.item, self.ver, self.part)
    }
}

/// All blobs of a version.
pub(crate) fn blobs_of(item: Item, ver: Ver) -> [Blob; 3] {
    [
        Blob { item, ver, part: 0 },
        Blob { item, ver, part: 1 },
        Blob {
            item,
            ver: ver - ver % 4,
            part: 2,
        },
    ]
}

/// The digest by which the cores know a version's image.
pub(crate) fn digest(item: Item, ver: Ver) -> Digest {
    let mut bytes = [0; 32];
    bytes[0] = item;
    bytes[1] = ver;
    Digest::from_bytes(bytes)
}

pub(crate) fn of_digest(digest: &Digest) -> (Item, Ver) {
    let bytes = digest.as_bytes();
    (bytes[0], bytes[1])
}

fn number(text: &str) -> u8 {
    text.get(1..).and_then(|n| n.parse().ok()).unwrap_or(0)
}

pub(crate) fn item_number(id: &ItemId) -> Item {
    number(id.as_str())
}

pub(crate) fn subject_number(id: &SubjectId) -> u8 {
    number(id.as_str())
}

pub(crate) fn node_number(id: &NodeId) -> usize {
    usize::from(number(id.as_str()))
}

pub(crate) fn version_number(text: &str) -> Ver {
    text.split('.')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

pub(crate) fn version_text(ver: Ver) -> String {
    format!("{ver}.0.0")
}

pub(crate) fn inst(ident: &InstanceIdent) -> Inst {
    Inst {
        item: item_number(&ident.item),
        subject: subject_number(&ident.subject),
        index: ident.index as u8,
    }
}

/// The long names, made once a run.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) items: Vec<ItemId>,
    pub(crate) subjects: Vec<SubjectId>,
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) runtimes: Vec<RuntimeId>,
    pub(crate) owner: OwnerId,
    /// By item.
    pub(crate) configs: Vec<Arc<ItemConfig>>,
}

/// What the configuration of an item says.
fn config(drawn: &Drawn) -> ItemConfig {
    let mut config = ItemConfig {
        requested_resources: Some(RequestedResources {
            cpu: Some(drawn.takes.cpu),
            ram: Some(drawn.takes.ram),
            ..RequestedResources::default()
        }),
        ..ItemConfig::default()
    };
    if drawn.storage != Storage::Nothing {
        config.quotas.storage_limit = Some(1);
    }
    if drawn.storage == Storage::Expendable {
        config.storage_policy = StoragePolicy::Expendable;
    }
    config
}

/// Letters and digits make an id, always.
fn named<T>(letter: char, number: usize, new: impl Fn(String) -> Option<T>) -> Option<T> {
    new(format!("{letter}{number}"))
}

impl Names {
    pub(crate) fn new(scene: &Scene) -> Option<Self> {
        let (items, subjects, nodes) = (scene.items.len(), scene.subjects, scene.nodes);
        Some(Self {
            configs: scene
                .items
                .iter()
                .map(|drawn| config(drawn).into())
                .collect(),
            items: (0..items)
                .map(|n| named('i', n, |t| ItemId::new(t).ok()))
                .collect::<Option<_>>()?,
            subjects: (0..subjects)
                .map(|n| named('s', n, |t| SubjectId::new(t).ok()))
                .collect::<Option<_>>()?,
            nodes: (0..nodes)
                .map(|n| named('n', n, |t| NodeId::new(t).ok()))
                .collect::<Option<_>>()?,
            runtimes: (0..nodes)
                .map(|n| named('r', n, |t| RuntimeId::new(t).ok()))
                .collect::<Option<_>>()?,
            owner: OwnerId::new("owner").ok()?,
        })
    }

    pub(crate) fn ident(&self, inst: Inst) -> InstanceIdent {
        InstanceIdent {
            item: self.items[usize::from(inst.item)].clone(),
            subject: self.subjects[usize::from(inst.subject)].clone(),
            index: u64::from(inst.index),
            item_type: ItemType::Service,
            preinstalled: false,
        }
    }
}
