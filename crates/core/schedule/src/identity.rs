use std::collections::{HashMap, HashSet};

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

/// Numbers of one kind. A number that is taken is never given away again.
#[derive(Debug)]
struct Numbers {
    used: HashSet<u32>,
    /// Below this nothing is free.
    next: u32,
    last: u32,
}

impl Numbers {
    fn take(&mut self) -> Option<u32> {
        while self.next <= self.last {
            let number = self.next;
            self.next = number.checked_add(1)?;
            if self.used.insert(number) {
                return Some(number);
            }
        }
        None
    }
}

/// Gives each instance a user id of its own and each item a group id, and keeps them as long as they are known.
#[derive(Debug)]
pub(crate) struct Identities<'a> {
    range: IdRange,
    known: HashMap<&'a InstanceIdent, u32>,
    known_items: HashMap<&'a ItemId, u32>,
    users: Numbers,
    groups: Numbers,
    new_items: HashMap<ItemId, u32>,
}

impl<'a> Identities<'a> {
    /// Without `keeps` the user ids of who is remembered are given away again.
    pub(crate) fn new(input: &'a Input, keeps: bool) -> Self {
        let numbers = |used: &dyn Fn(&'a crate::KnownInstance) -> u32| Numbers {
            used: input
                .taken_ids
                .iter()
                .copied()
                .chain(input.known.iter().filter(|_| keeps).map(used))
                .collect(),
            next: input.ids.first,
            last: input.ids.last,
        };
        Self {
            range: input.ids,
            known: input
                .known
                .iter()
                .filter(|_| keeps)
                .map(|one| (&one.ident, one.uid))
                .collect(),
            known_items: input
                .known
                .iter()
                .map(|one| (&one.ident.item, one.gid))
                .collect(),
            users: numbers(&|one| one.uid),
            groups: numbers(&|one| one.gid),
            new_items: HashMap::new(),
        }
    }

    /// Asked once for each instance.
    pub(crate) fn of(&mut self, ident: &InstanceIdent) -> Result<(u32, u32), String> {
        let known = self.known_items.get(&ident.item);
        let gid = match known.or_else(|| self.new_items.get(&ident.item)) {
            Some(gid) => *gid,
            None => {
                let gid = self.groups.take().ok_or_else(|| self.none("group"))?;
                self.new_items.insert(ident.item.clone(), gid);
                gid
            }
        };
        let uid = match self.known.get(ident) {
            Some(uid) => *uid,
            None => self.users.take().ok_or_else(|| self.none("user"))?,
        };
        Ok((uid, gid))
    }

    fn none(&self, kind: &str) -> String {
        format!(
            "no free {kind} id from {} to {}: remove instances, or widen the range (`placing.ids` of CM)",
            self.range.first, self.range.last
        )
    }
}
