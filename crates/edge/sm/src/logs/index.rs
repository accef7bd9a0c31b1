use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aos_runtime::InstanceId;
use aos_store::Records;
use aos_time::Timestamp;
use aos_types::InstanceIdent;
use serde::{Deserialize, Serialize};

/// An instance that has, or had, a log here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownLog {
    pub(crate) ident: InstanceIdent,
    /// When it was found to be gone.
    pub(crate) gone: Option<Timestamp>,
}

/// Most instances that are remembered after they are gone; the longest gone go first.
const MOST_GONE: usize = 1_000;

/// Whose file is whose: the keeper knows numbers only.
#[derive(Debug)]
pub(super) struct Index {
    records: Records<KnownLog>,
    known: Mutex<BTreeMap<String, KnownLog>>,
}

impl Index {
    pub(super) async fn open(records: Records<KnownLog>) -> Result<Self, aos_store::Error> {
        let known = records.all().await?.into_iter().collect();
        Ok(Self {
            records,
            known: Mutex::new(known),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, KnownLog>> {
        // Changes under this lock are small and whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are meant, with the names of their files, by their idents.
    pub(super) fn find(
        &self,
        takes: impl Fn(&InstanceIdent) -> bool,
    ) -> Vec<(String, InstanceIdent)> {
        let known = self.known();
        let mut found: Vec<(String, InstanceIdent)> = known
            .iter()
            .filter(|(_, known)| takes(&known.ident))
            .map(|(id, known)| (id.clone(), known.ident.clone()))
            .collect();
        found.sort_by(|a, b| a.1.cmp(&b.1));
        found
    }

    /// These are the instances of the Node.
    pub(super) async fn are(
        &self,
        idents: impl Iterator<Item = &InstanceIdent>,
        now: Timestamp,
    ) -> Result<(), aos_store::Error> {
        let present: BTreeMap<String, &InstanceIdent> = idents
            .map(|ident| (InstanceId::of(ident).to_string(), ident))
            .collect();
        let mut changes = Vec::new();
        {
            let mut known = self.known();
            for (id, ident) in &present {
                if known.get(id).is_none_or(|one| one.gone.is_some()) {
                    let ident = (*ident).clone();
                    changes.push((id.clone(), Some(KnownLog { ident, gone: None })));
                }
            }
            for (id, one) in known.iter().filter(|(id, _)| !present.contains_key(*id)) {
                if one.gone.is_none() {
                    let gone = Some(now);
                    let ident = one.ident.clone();
                    changes.push((id.clone(), Some(KnownLog { ident, gone })));
                }
            }
            for (id, change) in &changes {
                known.extend(change.clone().map(|change| (id.clone(), change)));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.records.apply(changes).await
    }

    /// Forgets those that are gone for so long; gives the names of their files.
    pub(super) async fn forget_gone(
        &self,
        after: Duration,
        now: Timestamp,
    ) -> Result<BTreeSet<String>, aos_store::Error> {
        let forgotten: BTreeSet<String> = {
            let mut known = self.known();
            let mut gone: Vec<(Timestamp, String)> = known
                .iter()
                .filter_map(|(id, one)| Some((one.gone?, id.clone())))
                .collect();
            gone.sort();
            let surplus = gone.len().saturating_sub(MOST_GONE);
            let forgotten: BTreeSet<String> = gone
                .into_iter()
                .enumerate()
                .filter(|(place, (at, _))| *place < surplus || now.since(*at) > after)
                .map(|(_, (_, id))| id)
                .collect();
            known.retain(|id, _| !forgotten.contains(id));
            forgotten
        };
        if !forgotten.is_empty() {
            let changes: Vec<_> = forgotten.iter().map(|id| (id.clone(), None)).collect();
            self.records.apply(changes).await?;
        }
        Ok(forgotten)
    }
}
