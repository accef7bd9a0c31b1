use aos_types::{Digest, InstanceIdent, OwnerId, RuntimeId};
use serde::{Deserialize, Serialize};

/// One instance as CM orders it (servicemanager.v5 `InstanceInfo`, `docs/protocol/grpc.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name.
    pub ident: InstanceIdent,
    /// The version of its item.
    pub version: String,
    /// The image manifest it runs.
    pub manifest: Digest,
    /// Who owns the item; also names the network it belongs to.
    pub owner: OwnerId,
    /// The runtime of this Node that runs it.
    pub runtime: RuntimeId,
    /// The user it runs as.
    pub uid: u32,
    /// The group it runs as.
    pub gid: u32,
    /// Higher is started first.
    pub priority: u64,
    /// Its storage, relative to the Node's storages; empty if it has none.
    pub storage_path: String,
    /// Its state, relative to the Node's states; empty if it has none.
    pub state_path: String,
    /// Variables that override those of the image, in order.
    pub env: Vec<(String, String)>,
}

impl Instance {
    /// Whether an instance started from `self` can go on running when `wanted` is asked for. The priority alone only
    /// orders starts, so it restarts nothing.
    pub fn runs_as(&self, wanted: &Self) -> bool {
        let Self {
            ident,
            version,
            manifest,
            owner,
            runtime,
            uid,
            gid,
            priority: _,
            storage_path,
            state_path,
            env,
        } = self;
        *ident == wanted.ident
            && *version == wanted.version
            && *manifest == wanted.manifest
            && *owner == wanted.owner
            && *runtime == wanted.runtime
            && *uid == wanted.uid
            && *gid == wanted.gid
            && *storage_path == wanted.storage_path
            && *state_path == wanted.state_path
            && *env == wanted.env
    }
}

/// How an instance that the Node knows is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// Its process is there, or it has completed, or it is started by a rule of its own: when what it waits for has come,
    /// or after a pause.
    Running,
    /// It is not there, and nobody is about to start it.
    Down,
}

/// An instance that the Node knows, wanted or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As it was ordered when it was started.
    pub instance: Instance,
    /// How it is doing.
    pub run: Run,
}
