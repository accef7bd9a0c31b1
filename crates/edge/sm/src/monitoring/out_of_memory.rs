use std::collections::BTreeMap;

use aos_time::Timestamp;
use aos_types::InstanceIdent;

/// Notices processes of instances that the kernel ended for want of memory while the instance itself went on: a service that
/// loses its workers is sick, and its own end tells nothing of it.
#[derive(Debug, Default)]
pub(super) struct OutOfMemory(BTreeMap<InstanceIdent, Seen>);

/// What the last pass saw of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    kills: u64,
    last_end: Option<Timestamp>,
}

impl OutOfMemory {
    /// Takes the counts of those that run, and when each ended last; gives those that lost processes since the last pass, with
    /// how many. Whoever is seen for the first time, or has ended meanwhile, begins anew: its end is told by itself.
    pub(super) fn pass(
        &mut self,
        counts: &BTreeMap<InstanceIdent, u64>,
        last_end: impl Fn(&InstanceIdent) -> Option<Timestamp>,
    ) -> Vec<(InstanceIdent, u64)> {
        self.0.retain(|ident, _| counts.contains_key(ident));
        let mut lost = Vec::new();
        for (ident, kills) in counts {
            let now = Seen {
                kills: *kills,
                last_end: last_end(ident),
            };
            let before = self.0.insert(ident.clone(), now);
            if let Some(before) = before
                && before.last_end == now.last_end
                && now.kills > before.kills
            {
                lost.push((ident.clone(), now.kills - before.kills));
            }
        }
        lost
    }
}

/// What people are told.
pub(super) fn words(lost: u64) -> String {
    let what = match lost {
        1 => "one of its processes".to_owned(),
        more => format!("{more} of its processes"),
    };
    format!(
        "the kernel ended {what} because it used more memory than `quotas.ramLimit` allows; the instance itself goes on"
    )
}

#[cfg(test)]
mod tests {
    use aos_types::{ItemId, SubjectId};

    use super::*;

    #[test]
    fn what_is_lost_while_it_goes_on_is_told_once() {
        let ident =
            InstanceIdent::service(ItemId::new("web").unwrap(), SubjectId::new("s").unwrap(), 0);
        let counts = |kills| BTreeMap::from([(ident.clone(), kills)]);
        let (never, once) = (|_: &InstanceIdent| None, Timestamp::from_secs(5));
        let mut seen = OutOfMemory::default();
        // What another SM may have told already.
        assert_eq!(seen.pass(&counts(2), never), []);
        assert_eq!(seen.pass(&counts(2), never), []);
        assert_eq!(seen.pass(&counts(5), never), [(ident.clone(), 3)]);
        assert_eq!(seen.pass(&counts(5), never), []);
        // It ended itself: that is told as its end.
        assert_eq!(seen.pass(&counts(6), |_| Some(once)), []);
        assert_eq!(seen.pass(&counts(7), |_| Some(once)), [(ident.clone(), 1)]);
        // Gone, and back in a new cgroup.
        assert_eq!(seen.pass(&BTreeMap::new(), never), []);
        assert_eq!(seen.pass(&counts(1), never), []);
        assert!(words(1).contains("one of its processes"));
        assert!(words(3).contains("3 of its processes"));
    }
}
