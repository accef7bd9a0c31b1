use std::{net::IpAddr, path::PathBuf};

use aos_image::ItemImage;
use aos_launch::Instance;
use aos_runtime::{CpuQuota, HostEntry, InstanceId, InstanceSpec, Limits, StopPolicy, User};
use aos_types::{ImageUser, ItemConfig, NodeInfo, RootAccess, StopSignal};

use crate::{networks::Place, resources::Resources};

/// Processes of an instance whose item names no limit. A Node has room for many of them, and none can take all of its.
const MOST_PIDS: u64 = 4_096;

/// What of the Node and its network goes into an instance.
pub(crate) struct Surroundings<'a> {
    pub(crate) node: &'a NodeInfo,
    pub(crate) resources: &'a Resources,
    pub(crate) host_base: &'a [PathBuf],
    /// Its place in the network; nothing if it shares the Node's.
    pub(crate) place: Option<&'a Place>,
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) storage: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    /// What the instance shows to functional servers, if it has permissions there.
    pub(crate) secret: Option<String>,
}

/// What the runtime is told to start. Later variables override earlier ones: image, secret, resources, overrides
/// (`docs/protocol/items.md`, environment).
pub(crate) fn spec(
    instance: &Instance,
    image: &ItemImage,
    around: Surroundings<'_>,
) -> Result<InstanceSpec, String> {
    let default = ItemConfig::default();
    let item = image.item_config.as_ref().unwrap_or(&default);
    if !image.config.stop_signal.is_empty() {
        image
            .config
            .stop_signal
            .parse::<StopSignal>()
            .map_err(|error| format!("its image config has a wrong `StopSignal`: {error}"))?;
    }
    if around.place.is_none() {
        refuse_networks(item)?;
    }
    let mut env: Vec<(String, String)> = image
        .config
        .env
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    env.extend(around.secret.map(|secret| ("AOS_SECRET".into(), secret)));
    let hostname = item.hostname.clone();
    let own_names = [Some(instance.owner.to_string()), hostname.clone()];
    let mut spec = InstanceSpec {
        id: InstanceId::of(&instance.ident),
        ident: instance.ident.clone(),
        layers: around.layers,
        host_base: if item.base_layer_is_node_rootfs {
            around.host_base.to_vec()
        } else {
            Vec::new()
        },
        args: image.config.args(),
        env,
        cwd: image.config.working_dir.clone().into(),
        user: User {
            uid: instance.uid,
            gid: instance.gid,
            additional_gids: Vec::new(),
        },
        inside: inside(item, image)?,
        capabilities: item.capabilities.granted(),
        read_only: item.rootfs == RootAccess::ReadOnly,
        hostname,
        limits: limits(item, around.node),
        sysctl: item.sysctl.clone(),
        netns: around.place.map(|place| place.netns.clone()),
        hosts: around
            .place
            .into_iter()
            .flat_map(|place| [Some(IpAddr::V4(place.ip)), place.ip6.map(IpAddr::V6)])
            .flatten()
            .map(|ip| HostEntry {
                ip,
                names: own_names.iter().flatten().cloned().collect(),
            })
            .collect(),
        nameservers: around
            .place
            .map(|place| place.dns_servers.clone())
            .unwrap_or_default(),
        storage: around.storage,
        state: around.state,
        mounts: Vec::new(),
        devices: Vec::new(),
    };
    around.resources.grant(item, &mut spec)?;
    spec.env.extend(instance.env.iter().cloned());
    Ok(spec)
}

/// An instance in the Node's own network cannot have what takes one of its own. It is not run without it.
fn refuse_networks(item: &ItemConfig) -> Result<(), String> {
    let quotas = &item.quotas;
    let asked = [
        ("publishedPorts", !item.published_ports.is_empty()),
        ("allowedConnections", !item.allowed_connections.is_empty()),
        ("hostname", item.hostname.is_some()),
        ("quotas.uploadSpeed", quotas.upload_speed.is_some()),
        ("quotas.downloadSpeed", quotas.download_speed.is_some()),
        ("quotas.uploadLimit", quotas.upload_limit.is_some()),
        ("quotas.downloadLimit", quotas.download_limit.is_some()),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        None => Ok(()),
        Some((field, _)) => Err(format!(
            "its item asks for `{field}`, which needs a network of its own, and it is to run in the Node's: take it out of \
             the item, or name a runtime with containers"
        )),
    }
}

/// Whom the instance is in its own eyes, if it has a user namespace: one whose image names a user has, unless its item
/// says no. Root, if the image names nobody.
fn inside(item: &ItemConfig, image: &ItemImage) -> Result<Option<ImageUser>, String> {
    let named = image.config.user.as_str();
    let wanted = item.user_namespace.unwrap_or(!named.is_empty());
    if !wanted {
        return Ok(None);
    }
    let named = if named.is_empty() { "0:0" } else { named };
    let user = named
        .parse()
        .map_err(|error| format!("its image config has a wrong `User`: {error}"))?;
    Ok(Some(user))
}

/// How an instance of the image is asked to end: its own signal and time, else the Node's.
pub(crate) fn stop_policy(image: &ItemImage, node: StopPolicy) -> StopPolicy {
    // A signal that cannot be read was refused when the instance was to start.
    let signal = image.config.stop_signal.parse::<StopSignal>();
    StopPolicy {
        signal: signal.map_or(node.signal, |signal| signal.0),
        grace: image
            .item_config
            .as_ref()
            .and_then(|item| item.stop_grace_period)
            .unwrap_or(node.grace),
    }
}

fn limits(item: &ItemConfig, node: &NodeInfo) -> Limits {
    let quotas = &item.quotas;
    let cores: u64 = node.cpus.iter().map(|cpu| cpu.num_cores.max(1)).sum();
    Limits {
        cpu: quotas
            .cpu_dmips_limit
            .and_then(|dmips| CpuQuota::from_dmips(dmips, node.max_dmips, cores.max(1))),
        ram: quotas.ram_limit,
        pids: Some(quotas.pids_limit.unwrap_or(MOST_PIDS)),
        open_files: quotas.no_file_limit,
        tmp: quotas.tmp_limit,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_takes_a_network_is_refused_by_name_without_one() {
        assert_eq!(refuse_networks(&ItemConfig::default()), Ok(()));
        let cases: [(&str, &str); 5] = [
            (
                "publishedPorts",
                r#"{"publishedPorts": [{"hostPort": 1, "port": 2}]}"#,
            ),
            (
                "allowedConnections",
                r#"{"allowedConnections": {"a/1": {}}}"#,
            ),
            ("hostname", r#"{"hostname": "box"}"#),
            ("uploadSpeed", r#"{"quotas": {"uploadSpeed": 1}}"#),
            ("downloadLimit", r#"{"quotas": {"downloadLimit": 1}}"#),
        ];
        for (field, text) in cases {
            let item = ItemConfig::from_slice(text.as_bytes()).unwrap();
            let why = refuse_networks(&item).unwrap_err();
            assert!(why.contains(field), "{why}");
        }
    }

    #[test]
    fn an_image_says_how_it_is_asked_to_end_and_its_item_how_long_it_may_take() {
        let node = StopPolicy::default();
        for (signal, grace, wanted) in [
            ("", None, (15, 10)),
            ("SIGQUIT", None, (3, 10)),
            ("SIGRTMIN+3", Some(60), (37, 60)),
            ("9", Some(0), (9, 0)),
            ("nonsense", None, (15, 10)),
        ] {
            let mut image = ItemImage {
                manifest: aos_types::Digest::from_bytes([0; 32]),
                config: Default::default(),
                item_config: Some(ItemConfig {
                    stop_grace_period: grace.map(Duration::from_secs),
                    ..ItemConfig::default()
                }),
                layers: Vec::new(),
                platform: Default::default(),
            };
            image.config.stop_signal = signal.into();
            let policy = stop_policy(&image, node);
            assert_eq!((policy.signal, policy.grace.as_secs()), wanted, "{signal}");
        }
    }
}
