//! Which rights instances have at functional servers. An instance shows the secret it was given; secrets survive a restart,
//! because the containers that hold them do.

use std::{collections::BTreeMap, sync::Arc};

use aos_store::Records;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, ItemType};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// Functional server to function to `r`, `w` or `rw`.
pub(crate) type Rights = BTreeMap<String, BTreeMap<String, String>>;

/// Instances that may be registered at once.
const MAX_INSTANCES: usize = 10_000;
/// Functions an instance may have rights to.
const MAX_FUNCTIONS: usize = 4_096;

/// An instance that was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registered {
    pub ident: InstanceIdent,
    secret: String,
    pub rights: Rights,
}

/// All registered instances.
#[derive(Clone)]
pub(crate) struct Permissions {
    records: Records<Registered>,
    known: Arc<Mutex<BTreeMap<String, Registered>>>,
}

impl Permissions {
    /// Takes up what was stored.
    pub async fn load(records: Records<Registered>) -> Result<Self, aos_store::Error> {
        let known = records.all().await?.into_iter().collect();
        Ok(Self {
            records,
            known: Arc::new(Mutex::new(known)),
        })
    }

    /// Gives an instance its secret: the same one each time. The rights are those of the last call.
    pub async fn register(
        &self,
        ident: InstanceIdent,
        rights: Rights,
    ) -> Result<String, ErrorInfo> {
        let functions: usize = rights.values().map(BTreeMap::len).sum();
        if functions > MAX_FUNCTIONS {
            return Err(ErrorInfo::new(
                AosCode::OutOfRange,
                format!(
                    "instance {ident} asks for {functions} functions, at most {MAX_FUNCTIONS} are accepted"
                ),
            ));
        }
        let key = key(&ident);
        let mut known = self.known.lock().await;
        if known.len() >= MAX_INSTANCES && !known.contains_key(&key) {
            return Err(ErrorInfo::new(
                AosCode::OutOfRange,
                format!("{MAX_INSTANCES} instances are registered already"),
            ));
        }
        let secret = known
            .get(&key)
            .map_or_else(new_secret, |found| found.secret.clone());
        let registered = Registered {
            ident,
            secret: secret.clone(),
            rights,
        };
        if known.get(&key) != Some(&registered) {
            self.records
                .put(key.clone(), &registered)
                .await
                .map_err(|error| ErrorInfo::from_error(AosCode::Runtime, &error))?;
            known.insert(key, registered);
        }
        Ok(secret)
    }

    /// Forgets an instance; one that is not known is forgotten already.
    pub async fn unregister(&self, ident: &InstanceIdent) -> Result<(), ErrorInfo> {
        let key = key(ident);
        let mut known = self.known.lock().await;
        if known.contains_key(&key) {
            self.records
                .remove(key.clone())
                .await
                .map_err(|error| ErrorInfo::from_error(AosCode::Runtime, &error))?;
            known.remove(&key);
        }
        Ok(())
    }

    /// Whose secret it is and which functions of the server it may use.
    pub async fn find(
        &self,
        secret: &str,
        server: &str,
    ) -> Result<(InstanceIdent, BTreeMap<String, String>), ErrorInfo> {
        let known = self.known.lock().await;
        known
            .values()
            .find(|one| one.secret == secret)
            .and_then(|one| Some((one.ident.clone(), one.rights.get(server)?.clone())))
            .ok_or_else(|| {
                ErrorInfo::new(
                    AosCode::NotFound,
                    "no instance with this secret has rights at this functional server",
                )
            })
    }
}

/// No id holds a control character, so the parts cannot run into each other.
fn key(ident: &InstanceIdent) -> String {
    let kind = match ident.item_type {
        ItemType::Component => "component",
        ItemType::Service | ItemType::Layer => "service",
    };
    format!("{kind}\n{}\n{}\n{}", ident.item, ident.subject, ident.index)
}

/// 244 random bits.
fn new_secret() -> String {
    format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    )
}

#[cfg(test)]
mod tests {
    use aos_store::Store;
    use aos_types::{ItemId, SubjectId};

    use super::*;

    fn ident(index: u64) -> InstanceIdent {
        InstanceIdent::service(
            ItemId::new("item").unwrap(),
            SubjectId::new("subject").unwrap(),
            index,
        )
    }

    fn rights(access: &str) -> Rights {
        let functions = BTreeMap::from([("door".to_owned(), access.to_owned())]);
        BTreeMap::from([("vis".to_owned(), functions)])
    }

    #[tokio::test]
    async fn secrets_survive_a_restart_and_rights_are_the_last_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("iam.db");
        let open = async || {
            let store = Store::open(&path, &[Records::<Registered>::SCHEMA]).unwrap();
            Permissions::load(Records::new(store, "permission"))
                .await
                .unwrap()
        };
        let first = open().await;
        let secret = first.register(ident(0), rights("r")).await.unwrap();
        let other = first.register(ident(1), rights("r")).await.unwrap();
        assert_ne!(secret, other);
        drop(first);
        let again = open().await;
        assert_eq!(
            again.register(ident(0), rights("rw")).await.unwrap(),
            secret
        );
        let (found, functions) = again.find(&secret, "vis").await.unwrap();
        assert_eq!((found, functions["door"].as_str()), (ident(0), "rw"));
        assert!(again.find(&secret, "other").await.is_err());
        assert!(again.find("guess", "vis").await.is_err());
        again.unregister(&ident(0)).await.unwrap();
        again.unregister(&ident(0)).await.unwrap();
        assert!(open().await.find(&secret, "vis").await.is_err());
        assert!(open().await.find(&other, "vis").await.is_ok());
    }
}
