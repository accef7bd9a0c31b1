use std::{collections::BTreeMap, fs, io, net::IpAddr, path::Path};

use aos_runtime::{Device, HostEntry, InstanceSpec, Mount};
use aos_types::{ItemConfig, NodeResource};
use serde::Deserialize;

use crate::Error;

/// Longest resources file read.
const MAX_BYTES: usize = 1 << 20;

/// A resource of the Node, from its resources file (`docs/protocol/items.md`, Node resources).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    #[serde(default)]
    shared_count: u64,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    mounts: Vec<ResourceMount>,
    #[serde(default)]
    envs: Vec<String>,
    #[serde(default)]
    hosts: Vec<ResourceHost>,
    #[serde(default)]
    devices: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct ResourceMount {
    destination: String,
    source: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct ResourceHost {
    ip: IpAddr,
    hostname: String,
}

/// What instances may ask for by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resources {
    by_name: BTreeMap<String, Resource>,
}

impl Resources {
    /// Reads the file; without one there are no resources.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let bad = |why: String| Error::Option {
            field: "resources_file",
            why: format!("{} {why}", path.display()),
        };
        match fs::read(path) {
            Ok(bytes) if bytes.len() > MAX_BYTES => Err(bad("is too long".into())),
            Ok(bytes) => Self::parse(&bytes).map_err(bad),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(bad(format!("cannot be read: {error}"))),
        }
    }

    fn parse(json: &[u8]) -> Result<Self, String> {
        let list: Vec<Resource> = serde_json::from_slice(json)
            .map_err(|error| format!("is no resource list: {error}"))?;
        Ok(Self {
            by_name: list
                .into_iter()
                .map(|resource| (resource.name.clone(), resource))
                .collect(),
        })
    }

    /// As CM is told of them.
    pub(crate) fn list(&self) -> Vec<NodeResource> {
        self.by_name
            .values()
            .map(|resource| NodeResource {
                name: resource.name.clone(),
                shared_count: resource.shared_count,
            })
            .collect()
    }

    /// Puts what an item asks for into the specification of its instance.
    pub(crate) fn grant(&self, item: &ItemConfig, spec: &mut InstanceSpec) -> Result<(), String> {
        for wanted in &item.resources {
            let resource = self
                .by_name
                .get(&wanted.name)
                .ok_or_else(|| format!("this Node has no resource `{}`", wanted.name))?;
            for group in &resource.groups {
                let gid = group_id(group)
                    .ok_or_else(|| format!("resource `{}`: no group `{group}`", wanted.name))?;
                spec.user.additional_gids.push(gid);
            }
            for mount in &resource.mounts {
                let bind = mount.kind.is_empty() || mount.kind == "bind";
                let mut options = mount.options.clone();
                if bind && !options.iter().any(|o| o == "bind" || o == "rbind") {
                    options.push("rbind".into());
                }
                spec.mounts.push(Mount {
                    destination: mount.destination.clone().into(),
                    source: mount.source.clone(),
                    kind: if bind {
                        "bind".into()
                    } else {
                        mount.kind.clone()
                    },
                    options,
                });
            }
            for env in &resource.envs {
                if let Some((name, value)) = env.split_once('=') {
                    spec.env.push((name.into(), value.into()));
                }
            }
            for host in &resource.hosts {
                spec.hosts.push(HostEntry {
                    ip: host.ip,
                    names: vec![host.hostname.clone()],
                });
            }
            for device in &resource.devices {
                let (host, inside) = device.split_once(':').unwrap_or((device, device));
                spec.devices.push(Device {
                    host_path: host.into(),
                    path: inside.into(),
                    access: wanted.mode.clone(),
                });
            }
        }
        Ok(())
    }
}

/// The number of a group of the Node.
fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_list_is_read_and_told() {
        let json = br#"[{"name":"camera","sharedCount":2,"groups":["root"],"devices":["/dev/null:/dev/cam"],
            "mounts":[{"destination":"/etc/cam","source":"/tmp","options":["ro"]}],
            "envs":["CAM=1"],"hosts":[{"ip":"10.0.0.1","hostname":"cam"}]}]"#;
        let resources = Resources::parse(json).unwrap();
        assert_eq!(resources.list()[0].shared_count, 2);
        assert!(Resources::parse(b"{}").is_err());
        assert!(Resources::load(None).unwrap().list().is_empty());
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("no such group"), None);
    }
}
