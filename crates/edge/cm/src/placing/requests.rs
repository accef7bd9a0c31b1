use std::{collections::BTreeMap, sync::Arc};

use aos_schedule::{Availability, Image, Node, Overload, Request, Space};
use aos_types::{
    AlertRules, InstanceIdent, ItemConfig, ItemId, ItemType, NodeId, NodeInfo, NodeState,
    SubjectId, UnitConfig,
};
use aos_update::Target;

use super::Placed;
use crate::{contract::Images, world::KnownNode};

/// The Nodes as the scheduler wants them; `measured` says what is free on one and whether it is overloaded by its rules.
pub(crate) fn nodes(
    world: &BTreeMap<NodeId, KnownNode>,
    config: Option<&UnitConfig>,
    measured: impl Fn(&NodeInfo, Option<&AlertRules>) -> (Space, Option<Overload>),
) -> Vec<Node> {
    world
        .values()
        .map(|node| {
            let part = config.map(|config| config.for_node(&node.info.id, &node.info.node_type));
            let part = part.unwrap_or_default();
            let (space, overload) = measured(&node.info, part.alert_rules.as_ref());
            Node {
                id: node.info.id.clone(),
                availability: availability(node),
                priority: part.priority,
                labels: part.labels,
                ratios: part.resource_ratios.unwrap_or_default(),
                dmips: node.info.max_dmips,
                ram: node.info.total_ram,
                runtimes: node.runtimes.clone(),
                resources: node.resources.clone(),
                space,
                overload,
            }
        })
        .collect()
}

fn availability(node: &KnownNode) -> Availability {
    match node.info.state {
        NodeState::Provisioned if node.is_ready() => Availability::Ready,
        NodeState::Provisioned if node.is_away => Availability::Away,
        NodeState::Provisioned => Availability::Unusable("runs no SM".into()),
        NodeState::Paused if node.is_paused_shortly => Availability::Paused,
        NodeState::Paused => Availability::Unusable("is paused".into()),
        NodeState::Unprovisioned => Availability::Unusable("is not provisioned".into()),
        NodeState::Error => Availability::Unusable(match &node.info.error {
            Some(error) => format!("is in error: {error}"),
            None => "is in error".into(),
        }),
    }
}

/// The instances of a set as the scheduler wants them, with the images of their items. Those of a subject that the Unit
/// itself must report, and does not, are disabled.
pub(crate) async fn requests(
    target: &Target,
    images: &dyn Images,
    placed: &BTreeMap<InstanceIdent, Placed>,
    reported: &[SubjectId],
) -> Vec<Request> {
    let mut known: BTreeMap<&ItemId, Result<Vec<Image>, String>> = BTreeMap::new();
    let mut requests = Vec::new();
    for entry in &target.instances {
        let Some(item) = target.item(&entry.item) else {
            continue;
        };
        if item.item_type == ItemType::Layer {
            continue;
        }
        let of_item = match known.get(&item.id) {
            Some(images) => images.clone(),
            None => {
                let read = images.images_of(item).await;
                let read = read.map_err(|error| format!("its images cannot be used: {error}"));
                known.insert(&item.id, read.clone());
                read
            }
        };
        let of_item = of_item.or_else(|why| {
            remembered(placed, &item.id, &item.version)
                .map(|image| vec![image])
                .ok_or(why)
        });
        requests.push(Request {
            item: item.id.clone(),
            item_type: item.item_type,
            version: item.version.clone(),
            owner: item.owner.clone(),
            subject: entry.subject.clone(),
            priority: entry.priority,
            num_instances: entry.num_instances,
            labels: entry.labels.clone(),
            images: of_item,
            disabled: target
                .subjects
                .iter()
                .find(|subject| subject.id == entry.subject)
                .filter(|subject| subject.is_reported_from_unit && !reported.contains(&subject.id))
                .map(|subject| format!("the Unit does not report subject {}", subject.id)),
        });
    }
    requests
}

/// What runs must not stop because CM cannot read its images any more: the Node has its own copy. It takes as much as when it
/// was placed.
fn remembered(
    placed: &BTreeMap<InstanceIdent, Placed>,
    item: &ItemId,
    version: &str,
) -> Option<Image> {
    let running = placed.values().find(|placed| {
        placed.ident.item == *item && placed.version == version && placed.place.is_some()
    })?;
    let mut config = running.demand.clone().unwrap_or_else(|| {
        // Placed by a CM that did not keep it.
        let mut config = ItemConfig::default();
        config.quotas.storage_limit = running.storage.then_some(1);
        config.quotas.state_limit = running.state.then_some(1);
        config
    });
    config.alert_rules.clone_from(&running.alert_rules);
    Some(Image {
        manifest: running.manifest,
        architecture: String::new(),
        variant: String::new(),
        os: String::new(),
        os_version: String::new(),
        os_features: Vec::new(),
        config: Arc::new(config),
    })
}
