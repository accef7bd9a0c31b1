use std::collections::{BTreeMap, BTreeSet};

use aos_types::{InstanceIdent, ItemType, NodeId, RuntimeId};

use crate::{
    Image, Input, Node, Placement, Plan, Request, Unplaced, Why,
    amounts::Amounts,
    capacity::Capacity,
    identity::Identities,
    select::{Place, best, fitting},
};

type Current<'a> = BTreeMap<&'a InstanceIdent, &'a (NodeId, RuntimeId)>;

/// Places all requested instances; see the crate's description.
pub fn plan(input: &Input) -> Plan {
    let mut nodes: Vec<&Node> = input.nodes.iter().collect();
    nodes.sort_by(|one, other| {
        other
            .priority
            .cmp(&one.priority)
            .then_with(|| one.id.cmp(&other.id))
    });
    let current: Current<'_> = input
        .known
        .iter()
        .filter_map(|known| Some((&known.ident, known.place.as_ref()?)))
        .collect();
    let mut planner = Planner {
        nodes,
        capacity: Capacity::new(input),
        identities: Identities::new(input),
        plan: Plan::default(),
    };
    let mut wanted: Vec<(bool, InstanceIdent, &Request)> = Vec::new();
    for request in &input.requests {
        if request.item_type == ItemType::Component && request.num_instances == 0 {
            continue;
        }
        for index in 0..request.num_instances {
            let ident = ident(request, index);
            wanted.push((!current.contains_key(&ident), ident, request));
        }
    }
    wanted.sort_by(|(new, ident, request), (other_new, other_ident, other)| {
        other
            .priority
            .cmp(&request.priority)
            .then_with(|| new.cmp(other_new))
            .then_with(|| ident.cmp(other_ident))
    });
    let mut everywhere: Vec<&Request> = input
        .requests
        .iter()
        .filter(|request| request.item_type == ItemType::Component && request.num_instances == 0)
        .collect();
    everywhere.sort_by(|one, other| (&one.item, &one.subject).cmp(&(&other.item, &other.subject)));
    for request in everywhere {
        planner.place_everywhere(request, &current);
    }
    for (_, ident, request) in wanted {
        let place = current.get(&ident).copied();
        planner.place(request, ident, place);
    }
    planner.plan
}

fn ident(request: &Request, index: u64) -> InstanceIdent {
    InstanceIdent {
        item: request.item.clone(),
        subject: request.subject.clone(),
        index,
        item_type: request.item_type,
        preinstalled: false,
    }
}

struct Planner<'a> {
    nodes: Vec<&'a Node>,
    capacity: Capacity,
    identities: Identities<'a>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn place(
        &mut self,
        request: &Request,
        ident: InstanceIdent,
        current: Option<&(NodeId, RuntimeId)>,
    ) {
        let images = match &request.images {
            Ok(images) if images.is_empty() => {
                self.leave_out(request, ident, "the item has no image".into());
                return;
            }
            Ok(images) => images,
            Err(why) => {
                self.leave_out(request, ident, why.clone());
                return;
            }
        };
        // Any image that lets it stay is better than the first image on another Node.
        for image in images {
            if let Some(place) = self.stay(request, image, current) {
                self.take(request, ident, image, place, Why::Stays);
                return;
            }
        }
        let mut reason = String::new();
        for image in images {
            match self.select(request, &ident, image, current) {
                Ok((place, why)) => {
                    self.take(request, ident, image, place, why);
                    return;
                }
                Err(why) => reason = why,
            }
        }
        self.leave_out(request, ident, reason);
    }

    /// Its runtime, or another one of its Node: its files are there.
    fn stay(
        &self,
        request: &Request,
        image: &Image,
        current: Option<&(NodeId, RuntimeId)>,
    ) -> Option<Place<'a>> {
        let current = current?;
        let here = Some(&current.0);
        let (places, _) = fitting(&self.nodes, request, image, here, &self.capacity).ok()?;
        places
            .iter()
            .find(|place| place.is(current))
            .or_else(|| places.iter().find(|place| place.node.id == current.0))
            .copied()
    }

    fn select(
        &self,
        request: &Request,
        ident: &InstanceIdent,
        image: &Image,
        current: Option<&(NodeId, RuntimeId)>,
    ) -> Result<(Place<'a>, Why), String> {
        let here = current.map(|(node, _)| node);
        let (places, gone) = fitting(&self.nodes, request, image, here, &self.capacity)
            .map_err(|stopped| stopped.text())?;
        let (place, why) =
            best(&places, ident, &self.capacity).ok_or_else(|| "no usable nodes".to_owned())?;
        let Some((node, _)) = current else {
            return Ok((place, why));
        };
        let lost = gone
            .iter()
            .find(|(id, _)| id == node)
            .map_or("is gone", |(_, why)| why.as_str());
        Ok((place, Why::Moves(format!("{node} {lost}"))))
    }

    /// One instance of a component in every runtime that fits. Indexes stay with their place.
    fn place_everywhere(&mut self, request: &Request, current: &Current<'_>) {
        let images = match &request.images {
            Ok(images) => images,
            Err(why) => {
                self.leave_out(request, ident(request, 0), why.clone());
                return;
            }
        };
        let of_request: Vec<(&InstanceIdent, &(NodeId, RuntimeId))> = current
            .iter()
            .filter(|(ident, _)| ident.item == request.item && ident.subject == request.subject)
            .map(|(ident, place)| (*ident, *place))
            .collect();
        let mut used: BTreeSet<u64> = of_request.iter().map(|(ident, _)| ident.index).collect();
        let mut done: BTreeSet<(NodeId, RuntimeId)> = BTreeSet::new();
        let mut reason = "the item has no image".to_owned();
        for image in images {
            let places = match fitting(&self.nodes, request, image, None, &self.capacity) {
                Ok((places, _)) => places,
                Err(stopped) => {
                    reason = stopped.text();
                    continue;
                }
            };
            for place in places {
                let key = (place.node.id.clone(), place.runtime.id.clone());
                if !done.insert(key.clone()) {
                    continue;
                }
                let kept = of_request.iter().find(|(_, have)| **have == key);
                let index = match kept {
                    Some((ident, _)) => ident.index,
                    None => used.last().map_or(0, |last| last + 1),
                };
                used.insert(index);
                self.take(
                    request,
                    ident(request, index),
                    image,
                    place,
                    Why::EveryRuntime,
                );
            }
        }
        if done.is_empty() {
            self.leave_out(request, ident(request, 0), reason);
        }
    }

    fn take(
        &mut self,
        request: &Request,
        ident: InstanceIdent,
        image: &Image,
        place: Place<'a>,
        why: Why,
    ) {
        let (uid, gid) = match self.identities.of(&ident) {
            Ok(ids) => ids,
            Err(why) => {
                self.leave_out(request, ident, why);
                return;
            }
        };
        let amounts = if request.item_type == ItemType::Component {
            Amounts::default()
        } else {
            Amounts::of(&image.config, &place.node.ratios)
        };
        self.capacity.reserve(
            place.node,
            &place.runtime.id,
            &ident,
            &image.config,
            &amounts,
        );
        self.plan.placed.push(Placement {
            ident,
            version: request.version.clone(),
            owner: request.owner.clone(),
            priority: request.priority,
            node: place.node.id.clone(),
            runtime: place.runtime.id.clone(),
            manifest: image.manifest,
            config: image.config.clone(),
            uid,
            gid,
            why,
        });
    }

    fn leave_out(&mut self, request: &Request, ident: InstanceIdent, reason: String) {
        self.plan.unplaced.push(Unplaced {
            ident,
            version: request.version.clone(),
            reason,
        });
    }
}
