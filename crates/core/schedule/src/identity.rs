use std::collections::{BTreeMap, BTreeSet};

use aos_types::{InstanceIdent, ItemId};

use crate::Input;

/// The numbers instances may get, both ends included. AosEdge uses 5000 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

impl Default for IdRange {
    fn default() -> Self {
        Self {
            first: 5000,
            last: 9999,
        }
    }
}

/// Gives each instance a user id of its own and each item a group id, and keeps them as long as they are known.
#[derive(Debug)]
pub(crate) struct Identities<'a> {
    range: IdRange,
    taken: &'a BTreeSet<u32>,
    uids: BTreeMap<InstanceIdent, u32>,
    used_uids: BTreeSet<u32>,
    gids: BTreeMap<ItemId, u32>,
    used_gids: BTreeSet<u32>,
}

impl<'a> Identities<'a> {
    pub(crate) fn new(input: &'a Input) -> Self {
        let known = || input.known.iter();
        Self {
            range: input.ids,
            taken: &input.taken_ids,
            uids: known().map(|one| (one.ident.clone(), one.uid)).collect(),
            used_uids: known().map(|one| one.uid).collect(),
            gids: known()
                .map(|one| (one.ident.item.clone(), one.gid))
                .collect(),
            used_gids: known().map(|one| one.gid).collect(),
        }
    }

    pub(crate) fn of(&mut self, ident: &InstanceIdent) -> Result<(u32, u32), String> {
        let uid = match self.uids.get(ident) {
            Some(uid) => *uid,
            None => {
                let uid = free(self.range, self.taken, &self.used_uids, "user")?;
                self.uids.insert(ident.clone(), uid);
                self.used_uids.insert(uid);
                uid
            }
        };
        let gid = match self.gids.get(&ident.item) {
            Some(gid) => *gid,
            None => {
                let gid = free(self.range, self.taken, &self.used_gids, "group")?;
                self.gids.insert(ident.item.clone(), gid);
                self.used_gids.insert(gid);
                gid
            }
        };
        Ok((uid, gid))
    }
}

fn free(
    range: IdRange,
    taken: &BTreeSet<u32>,
    used: &BTreeSet<u32>,
    kind: &str,
) -> Result<u32, String> {
    (range.first..=range.last)
        .find(|id| !taken.contains(id) && !used.contains(id))
        .ok_or_else(|| {
            format!(
                "no free {kind} id from {} to {}: remove instances or widen the range",
                range.first, range.last
            )
        })
}
