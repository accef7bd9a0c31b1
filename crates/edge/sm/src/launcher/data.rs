use aos_ipc::proto::aos::node::v1::Space;
use aos_runtime::{InstanceId, RootUse};
use aos_types::{AosCode, ErrorInfo, InstanceIdent};

use super::Launcher;

/// Free space is told in steps of this many bytes.
const STEP: u64 = 1 << 20;

impl Launcher {
    /// Removes the storage and state of an instance that this Node does not have any more.
    pub(crate) async fn remove_data(&self, ident: &InstanceIdent) -> Result<(), ErrorInfo> {
        // No start or exchange begins meanwhile.
        let _switching = self.switching.read().await;
        if self.entries().contains_key(ident) {
            return Err(ErrorInfo::new(
                AosCode::WrongState,
                format!("instance {ident} is on this Node's list"),
            ));
        }
        let (places, ident) = (self.setup.places.clone(), ident.clone());
        tracing::info!(instance = %ident, "its storage and state are removed");
        tokio::task::spawn_blocking(move || places.remove(&ident))
            .await
            .map_err(|error| ErrorInfo::from_error(AosCode::Failed, &error))?
            .map_err(|why| ErrorInfo::new(AosCode::Failed, why))
    }

    /// How full the writable part of an instance's root is; nothing if nobody knows.
    pub(crate) fn root_use(&self, ident: &InstanceIdent) -> Option<RootUse> {
        let runtime = self.runtime_of(ident).ok()?;
        runtime.root_use(InstanceId::of(ident))
    }

    /// What is free for storages and states; `None` if it cannot be told.
    pub(crate) async fn space(&self) -> Option<Space> {
        let places = self.setup.places.clone();
        let measured = tokio::task::spawn_blocking(move || places.space()).await;
        let space = measured.ok().flatten()?;
        Some(Space {
            storage_free: space.storage / STEP * STEP,
            state_free: space.state / STEP * STEP,
            shared: space.shared,
        })
    }
}
