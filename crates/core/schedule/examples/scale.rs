//! How long the scheduler takes for many instances: one JSON line each for 10,000 and 100,000 on 100 Nodes, from nothing and
//! with everything placed already.
//!
//! `cargo run --release -p aos-schedule --example scale`

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aos_schedule::{IdRange, Image, Input, KnownInstance, Node, Request, Usage, plan};
use aos_types::{
    ArchInfo, Digest, InvalidId, ItemConfig, ItemType, OsInfo, RequestedResources, RuntimeInfo,
};

const NODES: usize = 100;
/// Instances of one item.
const REPLICAS: u64 = 5;
/// The aim for 10,000 instances; for more of them the same by each.
const AIM: Duration = Duration::from_millis(100);

fn node(number: usize) -> Result<Node, InvalidId> {
    Ok(Node {
        id: format!("node-{number:03}").parse()?,
        availability: aos_schedule::Availability::Ready,
        priority: 0,
        labels: vec![format!("zone-{}", number % 4)],
        ratios: Default::default(),
        dmips: 100_000,
        ram: 64 << 30,
        runtimes: vec![RuntimeInfo {
            id: format!("crun-{number:03}").parse()?,
            runtime_type: "crun".into(),
            arch: ArchInfo {
                architecture: "amd64".into(),
                variant: None,
            },
            os: OsInfo {
                os: "linux".into(),
                ..OsInfo::default()
            },
            max_dmips: None,
            allowed_dmips: None,
            total_ram: None,
            allowed_ram: None,
            max_instances: 0,
        }],
        resources: Vec::new(),
        space: Default::default(),
        overload: None,
    })
}

fn request(number: u64) -> Result<Request, InvalidId> {
    let config = ItemConfig {
        requested_resources: Some(RequestedResources {
            cpu: Some(20 + number % 7),
            ram: Some((8 + number % 5) << 20),
            ..RequestedResources::default()
        }),
        ..ItemConfig::default()
    };
    Ok(Request {
        item: format!("item-{number:06}").parse()?,
        item_type: ItemType::Service,
        version: "1.0.0".into(),
        owner: "owner".parse()?,
        subject: "subject".parse()?,
        priority: number % 3,
        num_instances: REPLICAS,
        // Every second item may run in one zone only.
        labels: match number % 2 {
            0 => vec![format!("zone-{}", number % 4)],
            _ => Vec::new(),
        },
        images: Ok(vec![Image {
            manifest: Digest::from_bytes([7; 32]),
            architecture: "amd64".into(),
            variant: String::new(),
            os: "linux".into(),
            os_version: String::new(),
            os_features: Vec::new(),
            config: Arc::new(config),
        }]),
        disabled: None,
    })
}

/// The best of three, as others share the machine.
fn best(input: &Input) -> Duration {
    let once = || {
        let begin = Instant::now();
        let result = plan(input);
        let took = begin.elapsed();
        drop(result);
        took
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

#[allow(clippy::print_stdout, reason = "its output is what it is for")]
fn say(name: &str, took: Duration, aim: Duration) {
    let (took, aim) = (took.as_secs_f64() * 1e3, aim.as_secs_f64() * 1e3);
    println!(
        "{{\"name\":\"{name}\",\"value\":{took:.1},\"unit\":\"ms\",\"floor\":{aim:.1},\"ratio\":{:.2}}}",
        took / aim
    );
}

fn main() -> Result<(), InvalidId> {
    for instances in [10_000u32, 100_000] {
        let mut input = Input {
            nodes: (0..NODES).map(node).collect::<Result<_, _>>()?,
            requests: (0..u64::from(instances) / REPLICAS)
                .map(request)
                .collect::<Result<_, _>>()?,
            ids: IdRange {
                first: 5000,
                last: 1_000_000,
            },
            ..Input::default()
        };
        let aim = AIM * (instances / 10_000);
        say(&format!("schedule.{instances}"), best(&input), aim);
        let placed = plan(&input);
        assert_eq!(
            placed.placed.len() + placed.unplaced.len(),
            instances as usize,
            "every instance is accounted for"
        );
        input.known = placed
            .placed
            .into_iter()
            .map(|place| KnownInstance {
                ident: place.ident,
                place: Some((place.node, place.runtime)),
                home: None,
                version: place.version,
                manifest: place.manifest,
                uid: place.uid,
                gid: place.gid,
                usage: Usage::default(),
            })
            .collect();
        say(&format!("schedule.{instances}.again"), best(&input), aim);
    }
    Ok(())
}
