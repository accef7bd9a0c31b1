//! What an instance had in the network before it was to be replaced.

use aos_types::InstanceIdent;

use super::{Networks, traits::Traits};
use crate::records::StoredEndpoint;

/// What an instance had in the network at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Had {
    endpoint: Option<StoredEndpoint>,
    traits: Option<Traits>,
}

impl Networks {
    /// What an instance has in the network, to be [put back](Self::put_back) if it is not replaced after all.
    pub(crate) async fn had(&self, ident: &InstanceIdent) -> Had {
        let state = self.state.lock().await;
        Had {
            endpoint: state.endpoints.get(ident).cloned(),
            traits: state.traits.get(ident).cloned(),
        }
    }

    /// The instance goes on with what it had.
    pub(crate) async fn put_back(&self, ident: &InstanceIdent, had: Had) {
        let Some(endpoint) = had.endpoint else { return };
        if let Err(error) = self.store(&[], &[(ident.clone(), endpoint.clone())]).await {
            tracing::warn!(%ident, %error, "its address is another one after the next restart");
        }
        let mut state = self.state.lock().await;
        state.endpoints.insert(ident.clone(), endpoint);
        match had.traits {
            Some(traits) => state.traits.insert(ident.clone(), traits),
            None => state.traits.remove(ident),
        };
    }
}
