use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs, io,
    path::PathBuf,
};

use aos_types::OwnerId;
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use rtnetlink::Handle;
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{
    Endpoint, EndpointId, Network, Prefix, Wanted,
    links::{self, Link},
    netns, nft, rules,
};

/// Endpoints made at the same time.
const PARALLEL: usize = 8;

/// Why the network is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's network interface cannot be reached.
    #[error("cannot talk to the kernel about networks")]
    Netlink(#[source] io::Error),
    /// An interface, address or route.
    #[error("cannot {what} {name}")]
    Link {
        /// What was being done.
        what: &'static str,
        /// With which interface.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A network namespace.
    #[error("cannot make the network namespace {path}")]
    Namespace {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was asked for contradicts itself.
    #[error("endpoint {endpoint} {why}")]
    Endpoint {
        /// Which.
        endpoint: EndpointId,
        /// What is wrong.
        why: String,
    },
    /// The rules cannot be written down.
    #[error("the firewall rules cannot be written")]
    Rules {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// `nft` refused; nothing of the table was changed.
    #[error("`{program}` did not take the firewall rules: {why}")]
    Nft {
        /// The program.
        program: PathBuf,
        /// What it said.
        why: String,
    },
}

/// What came of one [`NetworkStack::apply`].
#[derive(Debug, Default)]
pub struct Applied {
    /// Endpoints that could not be made, with the reason. All others are there.
    pub failed: BTreeMap<EndpointId, Error>,
    /// Networks that could not be made; their endpoints are in `failed` too.
    pub failed_networks: BTreeMap<OwnerId, String>,
}

/// Makes the Node's network as it is wanted.
#[async_trait]
pub trait NetworkStack: Send + Sync {
    /// Makes what is missing and removes what is not wanted. Repeatable; what is right already is not touched, so running
    /// instances keep their connections.
    async fn apply(&self, wanted: &Wanted) -> Result<Applied, Error>;

    /// The namespace file of an endpoint, for the container that lives in it.
    fn netns(&self, id: &EndpointId) -> PathBuf;

    /// Removes everything of this Node.
    async fn clear(&self) -> Result<(), Error>;
}

/// How a [`KernelStack`] names things.
#[derive(Debug, Clone)]
pub struct KernelOptions {
    /// First letters of all it makes.
    pub prefix: Prefix,
    /// Folder of the namespace files; `/run/netns` lets `ip netns` list them.
    pub netns_dir: PathBuf,
    /// The `nft` program.
    pub nft: PathBuf,
}

/// The network of the machine, or of the network namespace in which it is made.
pub struct KernelStack {
    options: KernelOptions,
    netlink: Handle,
    connection: JoinHandle<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The rules in the kernel, as far as we put them there.
    rules: Option<Vec<u8>>,
    /// Where the routes of endpoints lead, to take them back.
    routes: HashMap<EndpointId, (u32, std::net::Ipv4Addr)>,
}

impl KernelStack {
    /// Opens the kernel's interface in the network namespace of the calling thread.
    pub fn open(options: KernelOptions) -> Result<Self, Error> {
        let (connection, netlink, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
        Ok(Self {
            options,
            netlink,
            connection: tokio::spawn(connection),
            state: Mutex::default(),
        })
    }

    fn prefix(&self) -> &Prefix {
        &self.options.prefix
    }

    async fn links(&self) -> Result<HashMap<String, Link>, Error> {
        links::all(&self.netlink)
            .await
            .map_err(|failure| Error::Link {
                what: "list",
                name: "interfaces".into(),
                source: failure.into(),
            })
    }

    async fn remove_link(&self, name: &str, index: u32) -> Result<(), Error> {
        links::remove(&self.netlink, index)
            .await
            .map_err(|failure| Error::Link {
                what: "remove",
                name: name.into(),
                source: failure.into(),
            })
    }

    /// The bridge of a network, made or repaired if need be.
    async fn bridge(&self, network: &Network, links: &HashMap<String, Link>) -> Result<u32, Error> {
        let name = self.prefix().bridge(network.id.as_str());
        if let Some(link) = links.get(&name) {
            if link.up && link.note == links::bridge_note(network) {
                return Ok(link.index);
            }
            self.remove_link(&name, link.index).await?;
        }
        let index = links::make_bridge(&self.netlink, &name, network)
            .await
            .map_err(|failure| Error::Link {
                what: "make bridge",
                name: name.clone(),
                source: failure.into(),
            })?;
        // Published ports answer on 127.0.0.1 too; the rules keep everybody else from the loopback.
        setting(&format!("net/ipv4/conf/{name}/route_localnet"), "1");
        setting(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1");
        Ok(index)
    }

    async fn endpoint(
        &self,
        endpoint: &Endpoint,
        networks: &BTreeMap<&OwnerId, (&Network, u32)>,
        links: &HashMap<String, Link>,
    ) -> Result<(), Error> {
        let wrong = |why: String| Error::Endpoint {
            endpoint: endpoint.id.clone(),
            why,
        };
        let &(network, bridge) = networks.get(&endpoint.network).ok_or_else(|| {
            wrong(format!(
                "belongs to network {}, which is not there",
                endpoint.network
            ))
        })?;
        if !network.subnet.contains(endpoint.ip) || endpoint.ip == network.ip {
            return Err(wrong(format!(
                "has the address {}, which is not free in {}",
                endpoint.ip, network.subnet
            )));
        }
        let name = self.prefix().cable(&endpoint.id);
        let path = self.netns(&endpoint.id);
        if let Some(link) = links.get(&name) {
            let right = link.up
                && link.note == links::cable_note(endpoint, network)
                && netns::exists(&path);
            if right && link.controller == Some(bridge) {
                return Ok(());
            }
            if right {
                // Its bridge was made anew; the namespace and whoever lives in it stay.
                return links::plug_in(&self.netlink, link.index, bridge, endpoint, network)
                    .await
                    .map_err(|failure| Error::Link {
                        what: "connect",
                        name,
                        source: failure.into(),
                    });
            }
            self.remove_link(&name, link.index).await?;
        }
        let namespace = netns::make(path.clone())
            .await
            .map_err(|source| Error::Namespace {
                path: path.clone(),
                source,
            })?;
        let laid =
            links::make_cable(&self.netlink, &name, bridge, &namespace, endpoint, network).await;
        if let Err(failure) = laid {
            // Half an endpoint is none; the next attempt starts anew.
            let _ = netns::remove(&path);
            return Err(Error::Link {
                what: "connect endpoint",
                name,
                source: failure.into(),
            });
        }
        Ok(())
    }

    /// Removes what carries our prefix and is not in `keep`.
    async fn remove_others(
        &self,
        keep: &HashSet<String>,
        endpoints: &BTreeSet<&EndpointId>,
    ) -> Result<(), Error> {
        let others: Vec<u32> = self
            .links()
            .await?
            .into_iter()
            .filter(|(name, _)| self.prefix().owns_link(name) && !keep.contains(name))
            .map(|(_, link)| link.index)
            .collect();
        links::remove_all(&self.netlink, &others)
            .await
            .map_err(|failure| Error::Link {
                what: "remove",
                name: format!("{} interfaces", others.len()),
                source: failure.into(),
            })?;
        let entries = fs::read_dir(&self.options.netns_dir).into_iter().flatten();
        for entry in entries.flatten() {
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| self.prefix().endpoint(name))
            else {
                continue;
            };
            if !endpoints.contains(&id) {
                let path = entry.path();
                netns::remove(&path).map_err(|source| Error::Namespace { path, source })?;
            }
        }
        Ok(())
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

#[async_trait]
impl NetworkStack for KernelStack {
    async fn apply(&self, wanted: &Wanted) -> Result<Applied, Error> {
        let mut state = self.state.lock().await;
        let mut applied = Applied::default();
        let names: HashSet<String> = wanted
            .networks
            .iter()
            .map(|network| self.prefix().bridge(network.id.as_str()))
            .chain(wanted.endpoints.iter().map(|e| self.prefix().cable(&e.id)))
            .collect();
        let endpoints: BTreeSet<&EndpointId> = wanted.endpoints.iter().map(|e| &e.id).collect();
        for (id, (bridge, ip)) in std::mem::take(&mut state.routes) {
            if endpoints.contains(&id) {
                state.routes.insert(id, (bridge, ip));
            } else {
                links::forget_route(&self.netlink, bridge, ip).await;
            }
        }
        // First away with the old: a new endpoint may have the address of a removed one.
        self.remove_others(&names, &endpoints).await?;
        let links = self.links().await?;
        if !wanted.networks.is_empty() {
            setting("net/ipv4/ip_forward", "1");
        }
        let mut networks = BTreeMap::new();
        for network in &wanted.networks {
            match self.bridge(network, &links).await {
                Ok(bridge) => {
                    networks.insert(&network.id, (network, bridge));
                }
                Err(error) => {
                    let text = chain(&error);
                    applied.failed_networks.insert(network.id.clone(), text);
                }
            }
        }
        // The rules are there before anybody can send: no packet slips through meanwhile.
        let rules = rules::table(self.prefix(), wanted);
        let text = serde_json::to_vec(&rules).map_err(|source| Error::Rules { source })?;
        if state.rules.as_ref() != Some(&text) {
            state.rules = None;
            nft::apply(&self.options.nft, &rules).await?;
            state.rules = Some(text);
        }
        let work: Vec<BoxFuture<'_, Result<(), Error>>> = wanted
            .endpoints
            .iter()
            .map(|endpoint| self.endpoint(endpoint, &networks, &links).boxed())
            .collect();
        let made: Vec<_> = stream::iter(work).buffered(PARALLEL).collect().await;
        for (endpoint, result) in wanted.endpoints.iter().zip(made) {
            match result {
                Ok(()) => {
                    if let Some((_, bridge)) = networks.get(&endpoint.network) {
                        state
                            .routes
                            .insert(endpoint.id.clone(), (*bridge, endpoint.ip));
                    }
                }
                Err(error) => {
                    applied.failed.insert(endpoint.id.clone(), error);
                }
            }
        }
        Ok(applied)
    }

    fn netns(&self, id: &EndpointId) -> PathBuf {
        self.options.netns_dir.join(self.prefix().netns(id))
    }

    async fn clear(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        *state = State::default();
        self.remove_others(&HashSet::new(), &BTreeSet::new())
            .await?;
        nft::apply(&self.options.nft, &rules::no_table(self.prefix())).await
    }
}

/// Writes a kernel setting. Where it cannot be written (a container with a read-only `/proc/sys`) it may be right already;
/// what does not work then is seen and reported where it does not work.
fn setting(name: &str, value: &str) {
    let path = PathBuf::from("/proc/sys").join(name);
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return;
    }
    if let Err(error) = fs::write(&path, value) {
        tracing::warn!(path = %path.display(), %error, "a kernel setting stays as it is");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
