//! Whole situations and the plans that follow, in full: `tests/snapshots` is the reference.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::sync::Arc;

use aos_schedule::{
    Availability, Cause, Defaults, IdRange, Image, Input, KnownInstance, Node, Overload, Placement,
    Plan, Request, Space, Usage, Why, plan,
};
use aos_types::{
    ArchInfo, BalancingPolicy, Digest, InstanceIdent, ItemConfig, ItemId, ItemResource, ItemType,
    NodeId, NodeResource, OsInfo, OwnerId, Protocol, PublishedPort, Quotas, RequestedResources,
    RuntimeId, RuntimeInfo, StoragePolicy, SubjectId,
};
use proptest::prelude::*;

fn node(id: &str) -> Node {
    Node {
        id: NodeId::new(id).unwrap(),
        availability: Availability::Ready,
        priority: 0,
        labels: vec![id.into()],
        ratios: Default::default(),
        dmips: 1000,
        ram: 1000,
        runtimes: vec![runtime(id, "crun")],
        resources: vec![NodeResource {
            name: "camera".into(),
            shared_count: 1,
        }],
        space: Space::default(),
        overload: None,
    }
}

/// Nothing is set aside for who asks for nothing, so that the numbers in these tests are those they name.
const NOTHING: Defaults = Defaults { cpu: 0, ram: 0 };

fn runtime(node: &str, kind: &str) -> RuntimeInfo {
    RuntimeInfo {
        id: RuntimeId::new(format!("{kind}-{node}")).unwrap(),
        runtime_type: kind.into(),
        arch: ArchInfo {
            architecture: "amd64".into(),
            variant: None,
        },
        os: OsInfo {
            os: "linux".into(),
            version: None,
            features: vec![],
        },
        max_dmips: None,
        allowed_dmips: None,
        total_ram: None,
        allowed_ram: None,
        max_instances: 0,
    }
}

fn image(config: ItemConfig) -> Image {
    Image {
        manifest: Digest::from_bytes([1; 32]),
        architecture: "amd64".into(),
        variant: String::new(),
        os: "linux".into(),
        os_version: String::new(),
        os_features: vec![],
        config: Arc::new(config),
    }
}

fn request(item: &str, count: u64) -> Request {
    Request {
        item: ItemId::new(item).unwrap(),
        item_type: ItemType::Service,
        version: "1.0.0".into(),
        owner: OwnerId::new("owner").unwrap(),
        subject: SubjectId::new("s").unwrap(),
        priority: 0,
        num_instances: count,
        labels: vec![],
        images: Ok(vec![image(ItemConfig::default())]),
        disabled: None,
    }
}

fn with(mut request: Request, change: impl Fn(&mut ItemConfig)) -> Request {
    for image in request.images.as_mut().unwrap() {
        change(Arc::make_mut(&mut image.config));
    }
    request
}

fn known(item: &str, index: u64, place: Option<&str>, uid: u32) -> KnownInstance {
    KnownInstance {
        ident: InstanceIdent::service(
            ItemId::new(item).unwrap(),
            SubjectId::new("s").unwrap(),
            index,
        ),
        place: place.map(|node| {
            (
                NodeId::new(node).unwrap(),
                RuntimeId::new(format!("crun-{node}")).unwrap(),
            )
        }),
        home: None,
        version: "1.0.0".into(),
        manifest: Digest::from_bytes([1; 32]),
        uid,
        gid: 5000,
        usage: Usage::default(),
    }
}

fn ram(request: Request, bytes: u64) -> Request {
    with(request, |config| {
        config.requested_resources = Some(RequestedResources {
            ram: Some(bytes),
            ..Default::default()
        });
    })
}

fn storing(request: Request, bytes: u64) -> Request {
    with(request, |config| {
        config.quotas.storage_limit = Some(bytes);
        config.requested_resources = Some(RequestedResources {
            storage: Some(bytes),
            ..Default::default()
        });
    })
}

fn two_nodes(requests: Vec<Request>) -> Input {
    Input {
        nodes: vec![node("main"), node("second")],
        requests,
        defaults: NOTHING,
        ..Input::default()
    }
}

#[test]
fn replicas_spread_and_get_ids_of_their_own() {
    insta::assert_snapshot!(plan(&two_nodes(vec![request("web", 3), request("db", 1)])));
}

#[test]
fn a_label_chooses_the_node_and_a_missing_one_is_explained() {
    let mut on_second = request("web", 1);
    on_second.labels = vec!["second".into()];
    let mut nowhere = request("lost", 1);
    nowhere.labels = vec!["main".into(), "gpu".into()];
    insta::assert_snapshot!(plan(&two_nodes(vec![on_second, nowhere])));
}

#[test]
fn the_higher_node_priority_wins_until_it_is_full() {
    let mut input = two_nodes(vec![with(request("web", 3), |config| {
        config.requested_resources = Some(RequestedResources {
            ram: Some(500),
            ..Default::default()
        });
    })]);
    input.nodes[1].priority = 10;
    insta::assert_snapshot!(plan(&input));
}

#[test]
fn a_quota_counts_by_its_ratio_and_requests_are_clamped_to_it() {
    let quota = |cpu: u64| Quotas {
        cpu_dmips_limit: Some(cpu),
        ..Quotas::default()
    };
    let half = with(request("half", 1), |config| config.quotas = quota(2000));
    let clamped = with(request("clamped", 1), |config| {
        config.quotas = quota(900);
        config.requested_resources = Some(RequestedResources {
            cpu: Some(5000),
            ..Default::default()
        });
    });
    let too_much = with(request("too-much", 1), |config| config.quotas = quota(3000));
    let unlimited = with(request("unlimited", 1), |config| {
        config.quotas = quota(9000);
        config.skip_resource_limits = true;
    });
    insta::assert_snapshot!(plan(&two_nodes(vec![half, clamped, too_much, unlimited])));
}

#[test]
fn shared_resources_and_host_ports_are_given_away_once() {
    let camera = with(request("camera", 3), |config| {
        config.resources = vec![ItemResource {
            name: "camera".into(),
            mode: "rw".into(),
        }];
    });
    let port = with(request("web", 3), |config| {
        config.published_ports = vec![PublishedPort {
            host_port: 8080,
            port: 80,
            protocol: Protocol::Tcp,
        }];
    });
    insta::assert_snapshot!(plan(&two_nodes(vec![camera, port])));
}

#[test]
fn who_is_not_counted_is_not_refused_for_those_who_are() {
    let camera = |config: &mut ItemConfig| {
        config.resources = vec![ItemResource {
            name: "camera".into(),
            mode: "rw".into(),
        }];
    };
    let free = with(with(request("free", 2), camera), |config| {
        config.skip_resource_limits = true;
    });
    // Both cameras are taken.
    let result = plan(&two_nodes(vec![with(request("counted", 3), camera), free]));
    let placed = |item: &str| {
        let all = result.placed.iter();
        all.filter(|one| one.ident.item.as_str() == item).count()
    };
    assert_eq!((placed("counted"), placed("free")), (2, 2));
}

#[test]
fn what_runs_stays_and_equals_are_not_pushed_out() {
    let mut input = two_nodes(vec![
        with(request("a-new", 2), |config| {
            config.requested_resources = Some(RequestedResources {
                ram: Some(600),
                ..Default::default()
            });
        }),
        with(request("z-old", 1), |config| {
            config.requested_resources = Some(RequestedResources {
                ram: Some(600),
                ..Default::default()
            });
        }),
    ]);
    input.nodes[0].priority = 10;
    input.known = vec![
        known("z-old", 0, Some("second"), 5007),
        known("z-old", 1, None, 5001),
    ];
    insta::assert_snapshot!(plan(&input));
}

#[test]
fn a_higher_priority_pushes_a_lower_one_out() {
    let ram = |request: Request| {
        with(request, |config| {
            config.requested_resources = Some(RequestedResources {
                ram: Some(600),
                ..Default::default()
            });
        })
    };
    let mut urgent = ram(request("urgent", 2));
    urgent.priority = 100;
    let mut input = two_nodes(vec![urgent, ram(request("old", 1))]);
    input.known = vec![known("old", 0, Some("main"), 5000)];
    insta::assert_snapshot!(plan(&input));
}

#[test]
fn a_lost_node_is_left_and_one_that_is_away_keeps_what_it_has() {
    let mut input = two_nodes(vec![request("web", 2), request("new", 1)]);
    input.known = vec![
        known("web", 0, Some("main"), 5000),
        known("web", 1, Some("second"), 5001),
    ];
    input.nodes[1].availability = Availability::Away;
    let away = plan(&input).to_string();
    input.nodes[1].availability = Availability::Unusable("is paused".into());
    let paused = plan(&input).to_string();
    input.nodes.pop();
    let gone = plan(&input).to_string();
    insta::assert_snapshot!(format!("away:\n{away}\npaused:\n{paused}\ngone:\n{gone}"));
}

#[test]
fn images_are_tried_in_order_and_an_instance_stays_with_a_later_one() {
    let mut arm = image(ItemConfig::default());
    arm.architecture = "arm64".into();
    arm.manifest = Digest::from_bytes([2; 32]);
    let mut web = request("web", 2);
    web.images.as_mut().unwrap().push(arm);
    let mut input = two_nodes(vec![web]);
    input.nodes[1].runtimes[0].arch.architecture = "arm64".into();
    input.known = vec![known("web", 1, Some("second"), 5000)];
    let result = plan(&input);
    assert_eq!(result.placed[1].manifest, Digest::from_bytes([2; 32]));
    insta::assert_snapshot!(result);
}

#[test]
fn runtimes_differ_in_type_platform_pool_and_places() {
    let mut input = two_nodes(vec![
        with(request("runc-only", 1), |config| {
            config.runtimes = vec!["runc".into()];
        }),
        with(request("pool", 1), |config| {
            config.runtimes = vec!["small".into()];
            config.requested_resources = Some(RequestedResources {
                cpu: Some(50),
                ..Default::default()
            });
        }),
        with(request("too-big", 1), |config| {
            config.runtimes = vec!["small".into()];
            config.requested_resources = Some(RequestedResources {
                cpu: Some(80),
                ..Default::default()
            });
        }),
        with(request("one-each", 3), |config| {
            config.runtimes = vec!["single".into()];
        }),
        {
            let mut features = request("features", 1);
            features.images.as_mut().unwrap()[0].os_features = vec!["kvm".into()];
            features
        },
    ]);
    let mut small = runtime("main", "small");
    small.allowed_dmips = Some(100);
    input.nodes[0].runtimes.push(small);
    for index in 0..2 {
        let id = input.nodes[index].id.to_string();
        let mut single = runtime(&id, "single");
        single.max_instances = 1;
        input.nodes[index].runtimes.push(single);
    }
    insta::assert_snapshot!(plan(&input));
}

#[test]
fn a_component_without_a_number_runs_in_every_runtime_and_keeps_its_indexes() {
    let mut rootfs = with(request("rootfs", 0), |config| {
        config.runtimes = vec!["rootfs".into()];
    });
    rootfs.item_type = ItemType::Component;
    let mut input = two_nodes(vec![rootfs]);
    for index in 0..2 {
        let id = input.nodes[index].id.to_string();
        input.nodes[index].runtimes.push(runtime(&id, "rootfs"));
    }
    let mut kept = known("rootfs", 4, Some("second"), 5000);
    kept.ident.item_type = ItemType::Component;
    kept.place.as_mut().unwrap().1 = RuntimeId::new("rootfs-second").unwrap();
    input.known = vec![kept];
    insta::assert_snapshot!(plan(&input));
}

#[test]
fn no_images_no_ids_no_space_are_explained() {
    let mut unusable = request("unusable", 1);
    unusable.images = Err("its image config is not JSON: publish it again".into());
    let stored = with(request("stored", 3), |config| {
        config.quotas.storage_limit = Some(400);
    });
    let mut input = two_nodes(vec![unusable, stored, request("ids", 3)]);
    input.ids = IdRange {
        first: 7000,
        last: 7004,
    };
    input.taken_ids = [7001].into();
    for node in &mut input.nodes {
        node.space.storage = Some(300);
    }
    insta::assert_snapshot!(plan(&input));
}

/// One Node: priority, availability, memory, most instances, free space for storages, what it may use if it is overloaded.
type AnyNode = (i64, usize, u64, u64, Option<u64>, Option<u64>);

/// One request: count, priority, memory, storage, label, and what else as bits.
type AnyRequest = (u64, u64, u64, Option<u64>, usize, u8);

fn any_node() -> impl Strategy<Value = AnyNode> {
    let space = prop::option::weighted(0.5, 0..1500u64);
    let overload = prop::option::weighted(0.2, 0..1000u64);
    (0..3i64, 0..5usize, 0..1500u64, 0..4u64, space, overload)
}

fn any_request() -> impl Strategy<Value = AnyRequest> {
    let storage = prop::option::weighted(0.3, 1..900u64);
    (0..4u64, 0..3u64, 0..900u64, storage, 0..8usize, any::<u8>())
}

/// Half of what could be known is: where it runs, waits to run, or ran, and where its storage is.
fn any_known(requests: usize) -> impl Strategy<Value = Vec<(bool, usize, usize, u64)>> {
    prop::collection::vec(
        (any::<bool>(), 0..6usize, 0..6usize, 0..900u64),
        requests * 2,
    )
}

fn any_input() -> impl Strategy<Value = Input> {
    let requests = prop::collection::vec(any_request(), 0..7);
    let nodes = prop::collection::vec(any_node(), 0..4);
    (nodes, requests).prop_flat_map(|(nodes, requests)| {
        let nodes: Vec<Node> = nodes.into_iter().enumerate().map(made_node).collect();
        let requests: Vec<Request> = requests.into_iter().enumerate().map(made_request).collect();
        any_known(requests.len()).prop_map(move |known| Input {
            known: made_known(&requests, known),
            nodes: nodes.clone(),
            requests: requests.clone(),
            defaults: NOTHING,
            ..Input::default()
        })
    })
}

fn made_node((index, (priority, state, ram, most, space, overload)): (usize, AnyNode)) -> Node {
    let mut node = node(&format!("n{index}"));
    node.priority = priority;
    node.ram = ram;
    node.runtimes[0].max_instances = most;
    node.space.storage = space;
    node.overload = overload.map(|ram| Overload {
        cpu: None,
        ram: Some(ram),
    });
    if most == 3 {
        let mut small = runtime(node.id.as_str(), "small");
        small.allowed_ram = Some(400);
        node.runtimes.push(small);
    }
    node.availability = match state {
        0 | 4 => Availability::Ready,
        1 => Availability::Away,
        2 => Availability::Paused,
        _ => Availability::Unusable("is paused".into()),
    };
    node
}

fn made_request(
    (index, (count, priority, ram, storage, label, bits)): (usize, AnyRequest),
) -> Request {
    let has = |bit: u8| bits >> bit & 1 == 1;
    let mut request = with(request(&format!("i{index}"), count), |config| {
        config.requested_resources = Some(RequestedResources {
            ram: Some(ram),
            storage,
            ..Default::default()
        });
        config.quotas.storage_limit = storage;
        if has(0) && has(1) {
            config.published_ports = vec![PublishedPort {
                host_port: 80,
                port: 80,
                protocol: Protocol::Tcp,
            }];
        }
        if has(2) && has(3) {
            config.resources = vec![ItemResource {
                name: "camera".into(),
                mode: "r".into(),
            }];
        }
        if has(4) {
            config.runtimes = vec!["small".into(), "crun".into()];
        }
        if has(5) {
            config.storage_policy = StoragePolicy::Expendable;
        }
        if has(6) && has(1) {
            config.balancing_policy = BalancingPolicy::Disabled;
        }
    });
    if has(7) && has(0) {
        // A smaller image for where the first does not fit.
        let mut other = request.images.clone().unwrap().remove(0);
        other.manifest = Digest::from_bytes([2; 32]);
        let config = Arc::make_mut(&mut other.config);
        config.requested_resources.as_mut().unwrap().ram = Some(ram / 3);
        request.images.as_mut().unwrap().push(other);
    }
    if has(7) && has(2) && !has(0) {
        request.item_type = ItemType::Component;
    }
    request.priority = priority;
    if label < 4 {
        request.labels = vec![format!("n{label}")];
    }
    request
}

fn made_known(requests: &[Request], all: Vec<(bool, usize, usize, u64)>) -> Vec<KnownInstance> {
    let all = all.into_iter().enumerate();
    all.filter(|(_, (there, ..))| *there)
        .map(|(index, (_, place, home, ram))| {
            let request = &requests[index / 2];
            let uid = 5000 + u32::try_from(index).unwrap();
            let place = (place < 4).then(|| format!("n{place}"));
            let mut known = known(
                &format!("i{}", index / 2),
                (index % 2) as u64,
                place.as_deref(),
                uid,
            );
            known.ident.item_type = request.item_type;
            known.home = (home < 4).then(|| NodeId::new(format!("n{home}")).unwrap());
            known.usage.ram = ram;
            known.usage.storage = ram / 2;
            if ram % 5 == 0 {
                known.version = "0.9.0".into();
            }
            known
        })
        .collect()
}

#[test]
fn a_short_pause_is_waited_for() {
    let mut input = two_nodes(vec![request("web", 2)]);
    input.known = vec![
        known("web", 0, Some("main"), 5000),
        known("web", 1, Some("second"), 5001),
    ];
    input.nodes[1].availability = Availability::Paused;
    let result = plan(&input);
    assert_eq!(
        result.unplaced[0].cause,
        Cause::Waits(NodeId::new("second").unwrap())
    );
    insta::assert_snapshot!(result);
}

#[test]
fn a_subject_that_is_not_there_disables_its_instances() {
    let mut input = two_nodes(vec![request("web", 2)]);
    input.known = vec![known("web", 0, Some("main"), 5000)];
    input.requests[0].disabled = Some("the Unit does not report subject s".into());
    insta::assert_snapshot!(plan(&input));
}

#[test]
fn what_an_instance_keeps_holds_it_on_its_node() {
    let mut input = two_nodes(vec![storing(request("web", 1), 100)]);
    let mut web = known("web", 0, None, 5000);
    web.home = Some(NodeId::new("second").unwrap());
    input.known = vec![web];
    let at_home = plan(&input).to_string();
    input.nodes[1].availability = Availability::Unusable("is lost".into());
    let lost = plan(&input).to_string();
    input.requests[0] = with(input.requests[0].clone(), |config| {
        config.storage_policy = StoragePolicy::Expendable;
    });
    let expendable = plan(&input).to_string();
    insta::assert_snapshot!(format!(
        "home:\n{at_home}\nlost:\n{lost}\nexpendable:\n{expendable}"
    ));
}

#[test]
fn instances_leave_an_overloaded_node_if_they_may_and_can() {
    let stays = with(ram(request("a-stays", 1), 300), |config| {
        config.balancing_policy = BalancingPolicy::Disabled;
    });
    let mut input = two_nodes(vec![
        stays,
        ram(request("b-important", 1), 300),
        ram(request("c-leaves", 1), 300),
        ram(request("d-too-big", 1), 300),
        ram(request("new", 1), 10),
    ]);
    input.requests[1].priority = 10;
    input.nodes[0].overload = Some(Overload {
        cpu: None,
        ram: Some(700),
    });
    input.nodes[0].ram = 2000;
    input.nodes[1].ram = 400;
    input.known = ["a-stays", "b-important", "c-leaves", "d-too-big"]
        .iter()
        .zip(5000..)
        .map(|(item, uid)| known(item, 0, Some("main"), uid))
        .collect();
    // It uses more than it asked for.
    input.known[3].usage.ram = 350;
    insta::assert_snapshot!(plan(&input));
}

#[test]
fn of_less_important_ones_only_those_in_the_way_are_pushed_out() {
    let camera = |request: Request| {
        with(request, |config| {
            config.resources = vec![ItemResource {
                name: "camera".into(),
                mode: "r".into(),
            }];
        })
    };
    let mut urgent = camera(request("urgent", 1));
    urgent.priority = 5;
    let mut middle = camera(request("middle", 1));
    middle.priority = 2;
    let mut input = two_nodes(vec![
        urgent,
        middle,
        camera(request("low", 1)),
        request("bystander", 2),
    ]);
    input.known = vec![
        known("middle", 0, Some("main"), 5000),
        known("low", 0, Some("second"), 5001),
        known("bystander", 0, Some("second"), 5002),
        known("bystander", 1, Some("second"), 5003),
    ];
    insta::assert_snapshot!(plan(&input));
}

#[test]
fn gap_34_nothing_moves_without_cause_and_replicas_spread() {
    let mut input = two_nodes(vec![request("web", 2)]);
    let result = plan(&input);
    assert_ne!(result.placed[0].node, result.placed[1].node, "{result}");
    // Both on one Node, the other one empty and preferred: they run, so they stay.
    input.nodes[1].priority = 10;
    input.known = vec![
        known("web", 0, Some("main"), 5000),
        known("web", 1, Some("main"), 5001),
    ];
    let result = plan(&input);
    assert!(
        result.placed.iter().all(|one| one.why == Why::Stays),
        "{result}"
    );
}

#[test]
fn gap_37_the_free_space_of_the_node_counts() {
    // Both partitions are as large; one is nearly full.
    let mut input = two_nodes(vec![storing(request("web", 2), 600)]);
    input.nodes[0].space.storage = Some(500);
    input.nodes[1].space.storage = Some(1000);
    let result = plan(&input);
    assert_eq!(result.placed.len(), 1, "{result}");
    assert_eq!(result.placed[0].node.as_str(), "second");
    assert_eq!(
        &*result.unplaced[0].reason,
        "no space for storage or state (main: 600 bytes of storage are asked for, 500 are left; \
         second: 600 bytes of storage are asked for, 400 are left)"
    );
    // What is written already is not free, and not asked for twice.
    let mut web = known("web", 0, Some("second"), 5000);
    web.home = Some(NodeId::new("second").unwrap());
    web.usage.storage = 600;
    input.known = vec![web];
    input.nodes[1].space.storage = Some(700);
    assert_eq!(plan(&input).placed.len(), 2, "{}", plan(&input));
}

#[test]
fn gap_39_equals_are_told_apart_by_name_and_the_limit_of_instances_says_so() {
    let mut input = two_nodes(vec![
        request("web", 1),
        request("web2", 1),
        request("web3", 1),
    ]);
    input.nodes.reverse();
    for node in &mut input.nodes {
        node.runtimes[0].max_instances = 1;
    }
    let result = plan(&input);
    let places: Vec<&str> = result.placed.iter().map(|one| one.node.as_str()).collect();
    assert_eq!(places, ["main", "second"], "the first by name");
    assert_eq!(
        &*result.unplaced[0].reason,
        "no runtimes with a free place for an instance (main: all 1 places are taken; second: all 1 places are taken)"
    );
}

#[test]
fn gap_41_who_says_nothing_still_takes_something() {
    let mut input = two_nodes(vec![request("web", 1000)]);
    input.defaults = Defaults::default();
    for node in &mut input.nodes {
        node.ram = 64 << 20;
    }
    let result = plan(&input);
    assert_eq!(result.placed.len(), 8, "16 MiB each");
    assert!(
        result.unplaced[0]
            .reason
            .contains("no runtimes with requested RAM")
    );
}

/// The situation once a plan was carried out: everything runs where it was placed, and what had no place is remembered. The
/// shell remembers in the same way.
fn after(input: &Input, plan: &Plan) -> Input {
    let before = |ident: &InstanceIdent| input.known.iter().find(|known| known.ident == *ident);
    let placed = plan.placed.iter().map(|place| {
        let keeps = place.config.quotas.storage_limit.is_some();
        KnownInstance {
            ident: place.ident.clone(),
            place: Some((place.node.clone(), place.runtime.clone())),
            home: keeps.then(|| place.node.clone()),
            version: place.version.clone(),
            manifest: place.manifest,
            uid: place.uid,
            gid: place.gid,
            usage: before(&place.ident).map_or(Usage::default(), |known| Usage {
                storage: known
                    .usage
                    .storage
                    .min(u64::from(known.home.as_ref() == Some(&place.node)) * u64::MAX),
                ..known.usage
            }),
        }
    });
    let unplaced = plan.unplaced.iter().filter_map(|one| {
        let known = before(&one.ident)?.clone();
        Some(KnownInstance {
            place: known.place.filter(|_| matches!(one.cause, Cause::Waits(_))),
            ..known
        })
    });
    Input {
        known: placed.chain(unplaced).collect(),
        ..input.clone()
    }
}

/// Node, runtime and image.
type Place<'a> = (&'a NodeId, &'a RuntimeId, Digest);

/// What a plan says, without the words.
fn places(plan: &Plan) -> Vec<(&InstanceIdent, Option<Place<'_>>)> {
    let placed = plan
        .placed
        .iter()
        .map(|one| (&one.ident, Some((&one.node, &one.runtime, one.manifest))));
    let unplaced = plan.unplaced.iter().map(|one| (&one.ident, None));
    let mut all: Vec<_> = placed.chain(unplaced).collect();
    all.sort();
    all
}

/// What an instance takes of the memory of its Node.
fn takes(place: &Placement) -> u64 {
    match place.ident.item_type {
        ItemType::Component => 0,
        _ => place.config.requested_resources.unwrap().ram.unwrap(),
    }
}

proptest! {
    #[test]
    fn every_plan_keeps_the_rules(input in any_input()) {
        let result = plan(&input);
        for unplaced in &result.unplaced {
            prop_assert!(!unplaced.reason.is_empty());
        }
        let mut uids: Vec<u32> = result.placed.iter().map(|place| place.uid).collect();
        uids.sort_unstable();
        uids.dedup();
        prop_assert_eq!(uids.len(), result.placed.len(), "a user id each");
        for request in input.requests.iter().filter(|one| one.num_instances > 0) {
            let placed = result.placed.iter().filter(|one| one.ident.item == request.item);
            let unplaced = result.unplaced.iter().filter(|one| one.ident.item == request.item);
            prop_assert_eq!((placed.count() + unplaced.count()) as u64, request.num_instances);
        }
        for place in &result.placed {
            let request = input.requests.iter().find(|one| one.item == place.ident.item).unwrap();
            let node = input.nodes.iter().find(|node| node.id == place.node).unwrap();
            prop_assert!(request.labels.iter().all(|label| node.labels.contains(label)));
            let known = input.known.iter().find(|known| known.ident == place.ident);
            let home = known.and_then(|known| known.home.as_ref()).filter(|home| {
                let there = input.nodes.iter().any(|node| node.id == **home);
                there && place.config.storage_policy == StoragePolicy::Pinned
            });
            if place.config.quotas.storage_limit.is_some() && known.is_none_or(|known| known.place.is_none()) {
                prop_assert!(home.is_none_or(|home| *home == place.node), "away from its storage");
            }
        }
        prop_assert_eq!(&plan(&input), &result, "the same input gives the same plan");
        for node in &input.nodes {
            let here: Vec<_> = result.on_node(&node.id).collect();
            let services = || here.iter().filter(|place| place.ident.item_type == ItemType::Service);
            let ram: u64 = services()
                .filter(|place| place.runtime.as_str().starts_with("crun"))
                .map(|place| takes(place))
                .sum();
            prop_assert!(node.ram == 0 || ram <= node.ram);
            prop_assert!(services().filter(|place| !place.config.published_ports.is_empty()).count() <= 1);
            prop_assert!(services().filter(|place| !place.config.resources.is_empty()).count() <= 1);
            for runtime in &node.runtimes {
                let inside = || here.iter().filter(|place| place.runtime == runtime.id);
                let most = runtime.max_instances;
                prop_assert!(most == 0 || inside().count() as u64 <= most);
                let ram: u64 = inside().map(|place| takes(place)).sum();
                prop_assert!(runtime.allowed_ram.is_none_or(|own| ram <= own));
            }
            match &node.availability {
                Availability::Ready => {}
                Availability::Away => {
                    let were_here = here.iter().all(|place| {
                        input.known.iter().any(|known| {
                            let there = known.place.as_ref().is_some_and(|(at, _)| *at == node.id);
                            known.ident == place.ident && there
                        })
                    });
                    prop_assert!(were_here);
                }
                Availability::Paused | Availability::Unusable(_) => {
                    prop_assert!(here.is_empty());
                }
            }
        }
        // Who leaves an overloaded Node makes room there, which the next plan may give to somebody: that comes to rest too.
        let (mut last, mut then) = (result.clone(), after(&input, &result));
        if input.nodes.iter().any(|node| node.overload.is_some()) {
            for _ in 0..3 {
                last = plan(&then);
                then = after(&then, &last);
            }
        }
        let again = plan(&then);
        prop_assert_eq!(places(&again), places(&last), "{}\n{}", &last, &again);
        // The order of the lists does not matter.
        let mut turned = input;
        turned.nodes.reverse();
        turned.requests.reverse();
        turned.known.reverse();
        prop_assert_eq!(plan(&turned), result);
    }
}
