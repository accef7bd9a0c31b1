//! What an image says about the network of its instances.

use aos_netstack::{Bounds, Destination, Egress, Limit, Range};
use aos_types::{EgressRule, ItemConfig, PublishedPort, Quotas};

use crate::options::EgressDefault;

/// From the image, so it is not stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Traits {
    pub(super) published: Vec<PublishedPort>,
    pub(super) egress: Egress,
    pub(super) bounds: Bounds,
    pub(super) hostname: Option<String>,
}

impl Traits {
    pub(super) fn of(item: Option<&ItemConfig>, default: EgressDefault) -> Self {
        let otherwise = match default {
            EgressDefault::All => Egress::Open,
            EgressDefault::None => Egress::Only(Vec::new()),
        };
        let Some(item) = item else {
            return Self {
                egress: otherwise,
                ..Self::default()
            };
        };
        Self {
            published: item.published_ports.clone(),
            egress: item.egress.as_ref().map_or(otherwise, |rules| {
                Egress::Only(rules.iter().map(destination).collect())
            }),
            bounds: bounds(&item.quotas),
            hostname: item.hostname.clone(),
        }
    }
}

fn destination(rule: &EgressRule) -> Destination {
    Destination {
        range: Range {
            address: rule.address,
            length: rule.length,
        },
        ports: rule.ports,
    }
}

fn bounds(quotas: &Quotas) -> Bounds {
    // Quotas are in kilobits a second, the kernel counts bytes.
    let bytes = |kilobits: Option<u64>| kilobits.map(|rate| rate.saturating_mul(125).max(1));
    let limit = |down: Option<u64>, up: Option<u64>| {
        (down.is_some() || up.is_some()).then_some(Limit { down, up })
    };
    Bounds {
        rate: limit(bytes(quotas.download_speed), bytes(quotas.upload_speed)),
        volume: limit(quotas.download_limit, quotas.upload_limit),
        ..Bounds::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_item_says_counts_and_the_node_where_it_says_nothing() {
        let silent = ItemConfig::default();
        let of = |item: &ItemConfig, default| Traits::of(Some(item), default).egress;
        assert_eq!(of(&silent, EgressDefault::All), Egress::Open);
        assert_eq!(of(&silent, EgressDefault::None), Egress::Only(Vec::new()));
        let mut quiet = silent.clone();
        quiet.egress = Some(Vec::new());
        assert_eq!(of(&quiet, EgressDefault::All), Egress::Only(Vec::new()));
        quiet.quotas.upload_speed = Some(8);
        quiet.quotas.download_limit = Some(9);
        let bounds = Traits::of(Some(&quiet), EgressDefault::All).bounds;
        let rate = bounds.rate.unwrap();
        assert_eq!((rate.up, rate.down), (Some(1_000), None));
        assert_eq!(bounds.volume.unwrap().down, Some(9));
    }
}
