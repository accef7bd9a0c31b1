use aos_types::{InstanceIdent, ItemType, NodeId, RuntimeId, RuntimeInfo};

use crate::{Availability, Image, Node, Request, Why, amounts::Amounts, capacity::Capacity};

/// A Node and one of its runtimes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) node: &'a Node,
    pub(crate) runtime: &'a RuntimeInfo,
}

impl Place<'_> {
    pub(crate) fn is(&self, place: &(NodeId, RuntimeId)) -> bool {
        self.node.id == place.0 && self.runtime.id == place.1
    }
}

/// What a filter stopped: the headline AosEdge uses, and what each Node lacks.
#[derive(Debug, Clone)]
pub(crate) struct Stopped {
    headline: &'static str,
    details: Vec<(NodeId, String)>,
}

impl Stopped {
    pub(crate) fn text(&self) -> String {
        let details: Vec<String> = self
            .details
            .iter()
            .map(|(node, why)| format!("{node}: {why}"))
            .collect();
        if details.is_empty() {
            self.headline.into()
        } else {
            format!("{} ({})", self.headline, details.join("; "))
        }
    }
}

/// The places that are left; remembers why each Node has gone.
struct Filter<'a> {
    left: Vec<Place<'a>>,
    gone: Vec<(NodeId, String)>,
}

impl<'a> Filter<'a> {
    /// Drops the places for which `why` gives a reason; an error if none is left.
    fn drop(
        &mut self,
        headline: &'static str,
        why: impl Fn(&Place<'a>) -> Option<String>,
    ) -> Result<(), Stopped> {
        let gone = &mut self.gone;
        self.left.retain(|place| match why(place) {
            None => true,
            Some(why) => {
                // Of several runtimes the one that came furthest speaks for the Node.
                gone.retain(|(id, _)| *id != place.node.id);
                gone.push((place.node.id.clone(), why));
                false
            }
        });
        if self.left.is_empty() {
            Err(Stopped {
                headline,
                details: self.gone.clone(),
            })
        } else {
            Ok(())
        }
    }
}

/// All places that fit one image, in the reference's order of filters, and the reasons of the others.
#[allow(
    clippy::type_complexity,
    reason = "places and, for those that went, why"
)]
pub(crate) fn fitting<'a>(
    nodes: &[&'a Node],
    request: &Request,
    image: &Image,
    current: Option<&NodeId>,
    capacity: &Capacity,
) -> Result<(Vec<Place<'a>>, Vec<(NodeId, String)>), Stopped> {
    let service = request.item_type != ItemType::Component;
    let config = &image.config;
    let mut filter = Filter {
        left: nodes
            .iter()
            .flat_map(|node| {
                node.runtimes
                    .iter()
                    .map(move |runtime| Place { node, runtime })
            })
            .collect(),
        gone: nodes
            .iter()
            .filter(|node| node.runtimes.is_empty())
            .map(|node| (node.id.clone(), "has no runtime".into()))
            .collect(),
    };
    filter.drop("no usable nodes", |place| match &place.node.availability {
        Availability::Ready => None,
        Availability::Away if current == Some(&place.node.id) => None,
        Availability::Away => Some("is not connected".into()),
        Availability::Unusable(why) => Some(why.clone()),
    })?;
    filter.drop("no nodes with instance labels", |place| {
        let missing = request
            .labels
            .iter()
            .find(|label| !place.node.labels.contains(label))?;
        Some(format!("has no label `{missing}`"))
    })?;
    if service {
        filter.drop("no nodes with service resources", |place| {
            capacity.missing_resource(place.node, config)
        })?;
        filter.drop("no nodes with free host ports", |place| {
            capacity.taken_port(place.node, config)
        })?;
    }
    let types = config.runtime_types();
    filter.drop("no runtimes with requested runtime type", |place| {
        let have = &place.runtime.runtime_type;
        (!types.contains(&have.as_str()))
            .then(|| format!("runtime `{have}` is none of {}", types.join(", ")))
    })?;
    filter.drop("no runtimes with requested platform", |place| {
        platform(image, place.runtime)
    })?;
    if service {
        filter.drop("no runtimes with requested CPU", |place| {
            let wanted = Amounts::of(config, &place.node.ratios).cpu;
            let left = capacity.cpu(&place.node.id, &place.runtime.id);
            (left < wanted).then(|| format!("{wanted} DMIPS are asked for, {left} are left"))
        })?;
        filter.drop("no runtimes with requested RAM", |place| {
            let wanted = Amounts::of(config, &place.node.ratios).ram;
            let left = capacity.ram(&place.node.id, &place.runtime.id);
            (left < wanted).then(|| format!("{wanted} bytes are asked for, {left} are left"))
        })?;
        filter.drop("no space for storage or state", |place| {
            capacity.missing_space(&Amounts::of(config, &place.node.ratios))
        })?;
    }
    filter.drop("no runtimes with a free place for an instance", |place| {
        let most = place.runtime.max_instances;
        let have = capacity.instances(&place.node.id, &place.runtime.id);
        (most > 0 && have >= most).then(|| format!("all {most} places are taken"))
    })?;
    Ok((filter.left, filter.gone))
}

/// The best of the places that fit, and what spoke for it.
pub(crate) fn best<'a>(
    places: &[Place<'a>],
    ident: &InstanceIdent,
    capacity: &Capacity,
) -> Option<(Place<'a>, Why)> {
    let ready = |place: &&Place<'a>| place.node.availability == Availability::Ready;
    let highest = places
        .iter()
        .filter(ready)
        .map(|place| place.node.priority)
        .max()?;
    let rank = |place: &Place<'a>| {
        let (node, runtime) = (&place.node.id, &place.runtime.id);
        (
            capacity.replicas(node, ident),
            u64::MAX - capacity.cpu(node, runtime),
            u64::MAX - capacity.ram(node, runtime),
        )
    };
    let mut ranked: Vec<Place<'a>> = places
        .iter()
        .filter(ready)
        .filter(|place| place.node.priority == highest)
        .copied()
        .collect();
    ranked.sort_by(|one, other| {
        rank(one)
            .cmp(&rank(other))
            .then_with(|| one.node.id.cmp(&other.node.id))
            .then_with(|| one.runtime.runtime_type.cmp(&other.runtime.runtime_type))
            .then_with(|| one.runtime.id.cmp(&other.runtime.id))
    });
    let chosen = *ranked.first()?;
    let rival = ranked.iter().find(|place| place.node.id != chosen.node.id);
    let lower = places.iter().any(|place| place.node.priority < highest);
    let why = match rival {
        None if lower => format!("has the highest priority, {highest}"),
        None => "is the only node that fits".to_owned(),
        Some(rival) => {
            let (chosen, rival) = (rank(&chosen), rank(rival));
            if chosen.0 != rival.0 {
                "has the fewest instances of the item".to_owned()
            } else if chosen.1 != rival.1 {
                "has the most free CPU".to_owned()
            } else if chosen.2 != rival.2 {
                "has the most free memory".to_owned()
            } else {
                "is as good as others and first by name".to_owned()
            }
        }
    };
    Some((chosen, Why::Best(why)))
}

/// Why the image cannot run in the runtime: what the image leaves empty matches anything.
fn platform(image: &Image, runtime: &RuntimeInfo) -> Option<String> {
    let differs = |what: &str, wanted: &str, have: &str| {
        (!wanted.is_empty() && wanted != have)
            .then(|| format!("the image is for {what} `{wanted}`, the runtime has `{have}`"))
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    differs(
        "architecture",
        &image.architecture,
        &runtime.arch.architecture,
    )
    .or_else(|| differs("variant", &image.variant, &text(&runtime.arch.variant)))
    .or_else(|| differs("system", &image.os, &runtime.os.os))
    .or_else(|| {
        differs(
            "system version",
            &image.os_version,
            &text(&runtime.os.version),
        )
    })
    .or_else(|| {
        image
            .os_features
            .iter()
            .find(|feature| !runtime.os.features.contains(feature))
            .map(|feature| format!("the runtime lacks system feature `{feature}`"))
    })
}
