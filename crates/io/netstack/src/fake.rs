use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;

use crate::{Applied, Counted, EndpointId, Error, NetworkStack, Wanted};

/// A network in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeStack(Arc<Mutex<Wanted>>);

impl FakeStack {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it was asked for last.
    pub fn wanted(&self) -> Wanted {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[async_trait]
impl NetworkStack for FakeStack {
    async fn apply(&self, wanted: &Wanted) -> Result<Applied, Error> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = wanted.clone();
        Ok(Applied::default())
    }

    fn netns(&self, id: &EndpointId) -> PathBuf {
        PathBuf::from("/run/netns").join(id.to_string())
    }

    async fn traffic(&self) -> Result<BTreeMap<EndpointId, Counted>, Error> {
        let endpoints = self.wanted().endpoints;
        Ok(endpoints
            .into_iter()
            .map(|endpoint| (endpoint.id, Counted::default()))
            .collect())
    }

    async fn can_vlan(&self) -> bool {
        false
    }

    async fn clear(&self) -> Result<(), Error> {
        self.apply(&Wanted::default()).await.map(|_| ())
    }
}
