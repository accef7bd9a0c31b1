//! The rules that do not depend on what else is placed. Many requests are alike in them, so they are asked once for all.

use std::{collections::HashMap, rc::Rc};

use aos_types::RuntimeInfo;

use crate::{
    Excluded, Exclusions, Image, Node, Request, Rule,
    board::{Board, Site},
};

/// Which sites fit as far as these rules go, and why the Nodes that have none do not.
#[derive(Debug)]
pub(crate) struct Fit {
    /// In the order of the board.
    pub(crate) sites: Vec<Site>,
    pub(crate) gone: Exclusions,
}

/// All that these rules look at.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Signature<'a> {
    labels: &'a [String],
    service: bool,
    resources: Vec<&'a str>,
    runtimes: &'a [String],
    architecture: &'a str,
    variant: &'a str,
    os: &'a str,
    os_version: &'a str,
    os_features: &'a [String],
}

/// The answers so far.
#[derive(Default)]
pub(crate) struct Fits<'a> {
    known: HashMap<Signature<'a>, Rc<Fit>>,
}

impl<'a> Fits<'a> {
    pub(crate) fn of(
        &mut self,
        board: &Board<'a>,
        request: &'a Request,
        image: &'a Image,
        service: bool,
    ) -> Rc<Fit> {
        let signature = Signature {
            labels: &request.labels,
            service,
            resources: image
                .config
                .resources
                .iter()
                .map(|resource| resource.name.as_str())
                .collect(),
            runtimes: &image.config.runtimes,
            architecture: &image.architecture,
            variant: &image.variant,
            os: &image.os,
            os_version: &image.os_version,
            os_features: &image.os_features,
        };
        self.known
            .entry(signature)
            .or_insert_with(|| Rc::new(fit(board, request, image, service)))
            .clone()
    }
}

fn fit(board: &Board<'_>, request: &Request, image: &Image, service: bool) -> Fit {
    let mut sites = Vec::new();
    let mut gone: Vec<Option<Rule>> = board
        .nodes
        .iter()
        .map(|node| board.unusable(node).or(Some(Rule::NoRuntime)))
        .collect();
    for site in board.all_sites() {
        let number = board.node_of(site);
        let node = board.node(number);
        let fixed = || stops(node, board.runtime(site), request, image, service);
        let rule = board.unusable(node).or_else(fixed);
        let Some(known) = gone.get_mut(number as usize) else {
            continue;
        };
        match rule {
            None => {
                sites.push(site);
                *known = None;
            }
            // Of several runtimes the one that came furthest speaks for the Node.
            Some(rule)
                if known
                    .as_ref()
                    .is_some_and(|known| known.rank() <= rule.rank()) =>
            {
                *known = Some(rule);
            }
            Some(_) => {}
        }
    }
    Fit {
        sites,
        gone: (0..)
            .zip(gone)
            .filter_map(|(node, rule)| Some(Excluded { node, rule: rule? }))
            .collect(),
    }
}

/// The first rule that stops every instance of this kind in this runtime, whether or not the Node can be used now.
pub(crate) fn stops(
    node: &Node,
    runtime: &RuntimeInfo,
    request: &Request,
    image: &Image,
    service: bool,
) -> Option<Rule> {
    let missing = |label: &&String| !node.labels.contains(label);
    if let Some(label) = request.labels.iter().find(missing) {
        return Some(Rule::Label(label.as_str().into()));
    }
    if service {
        let have = |name: &str| node.resources.iter().any(|have| have.name == name);
        let mut wanted = image.config.resources.iter();
        if let Some(resource) = wanted.find(|wanted| !have(&wanted.name)) {
            return Some(Rule::NoResource(resource.name.as_str().into()));
        }
    }
    let types = image.config.runtime_types();
    let have = &runtime.runtime_type;
    if !types.contains(&have.as_str()) {
        let text = format!("runtime `{have}` is none of {}", types.join(", "));
        return Some(Rule::RuntimeType(text.into()));
    }
    platform(image, runtime).map(|text| Rule::Platform(text.into()))
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
