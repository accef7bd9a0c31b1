//! Which number of the Node stands for which number inside an instance's user namespace.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::User;

/// Numbers of one instance inside: those of an ordinary image.
const COUNT: u32 = 65_536;
/// Lines of a map that the kernel takes.
const MAX_LINES: usize = 340;

/// A range of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first one inside.
    pub(crate) inside: u32,
    /// The first one on the Node.
    pub(crate) outside: u32,
    /// How many.
    pub(crate) count: u32,
}

/// The users and groups of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMaps {
    /// Users.
    pub(crate) uids: Vec<Range>,
    /// Groups.
    pub(crate) gids: Vec<Range>,
    /// Whom it runs as, as seen from inside.
    pub(crate) user: User,
}

/// Maps an instance that runs as `node` on the Node and as `inside` in its own eyes.
///
/// Its user and group are those of the instance on the Node, so that storage and state are its own from both sides. All
/// other numbers up to 65535 are numbers of the Node that nobody else has: the instance's uid times 65536 and up. Groups
/// of Node resources are found inside at 65536 and their number, so that none of the image's is taken for them.
pub(crate) fn maps(node: &User, inside: &User) -> Result<IdMaps, String> {
    if !(16..COUNT - 1).contains(&node.uid) {
        return Err(format!(
            "the instance's uid {} has no range of numbers on the Node: it must be from 16 to 65534",
            node.uid
        ));
    }
    let base = node.uid * COUNT;
    let mut groups = BTreeMap::from([(inside.gid, node.gid)]);
    let mut user = inside.clone();
    for &gid in &node.additional_gids {
        if groups.values().any(|&known| known == gid) {
            continue;
        }
        let number = COUNT
            .checked_add(gid)
            .filter(|number| !groups.contains_key(number))
            .ok_or_else(|| format!("group {gid} of a Node resource has no number inside"))?;
        groups.insert(number, gid);
        user.additional_gids.push(number);
    }
    user.additional_gids
        .retain(|gid| *gid < COUNT || groups.contains_key(gid));
    let uids = ranges(base, &BTreeMap::from([(inside.uid, node.uid)]));
    let gids = ranges(base, &groups);
    if gids.len() > MAX_LINES {
        return Err("its Node resources have too many groups".into());
    }
    Ok(IdMaps { uids, gids, user })
}

/// `base` and up for 0 to 65535, except for what `single` says.
fn ranges(base: u32, single: &BTreeMap<u32, u32>) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut next = 0;
    for (&inside, &outside) in single {
        let end = inside.min(COUNT);
        if end > next {
            ranges.push(Range {
                inside: next,
                outside: base + next,
                count: end - next,
            });
        }
        ranges.push(Range {
            inside,
            outside,
            count: 1,
        });
        next = next.max(end).max(inside.saturating_add(1).min(COUNT));
    }
    if next < COUNT {
        ranges.push(Range {
            inside: next,
            outside: base + next,
            count: COUNT - next,
        });
    }
    ranges
}

/// The number of the Node for a number inside.
pub(crate) fn outside(ranges: &[Range], inside: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = inside.checked_sub(range.inside)?;
        (offset < range.count).then(|| range.outside + offset)
    })
}

/// As `/proc/<pid>/uid_map` takes it.
pub(super) fn text(ranges: &[Range]) -> String {
    ranges.iter().fold(String::new(), |mut text, range| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {} {}", range.inside, range.outside, range.count);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, gid: u32, more: &[u32]) -> User {
        User {
            uid,
            gid,
            additional_gids: more.to_vec(),
        }
    }

    #[test]
    fn the_user_inside_is_the_instance_outside_and_nobody_else_is_anybody() {
        for (uid, gid) in [(0, 0), (1_000, 50), (65_535, 0), (100_000, 65_535)] {
            let maps = maps(&user(5_000, 5_100, &[44]), &user(uid, gid, &[])).unwrap();
            assert_eq!(outside(&maps.uids, uid), Some(5_000));
            assert_eq!(outside(&maps.gids, gid), Some(5_100));
            assert_eq!(outside(&maps.gids, 65_536 + 44), Some(44));
            assert_eq!(maps.user.additional_gids, [65_536 + 44]);
            for other in [0, 1, 999, 1_001, 65_534, 65_535] {
                if other != uid {
                    assert_eq!(outside(&maps.uids, other), Some(5_000 * 65_536 + other));
                }
            }
            // No number inside or outside twice.
            for ranges in [&maps.uids, &maps.gids] {
                for (i, a) in ranges.iter().enumerate() {
                    for b in &ranges[i + 1..] {
                        let apart = |a: u32, n: u32, b: u32, m: u32| a + n <= b || b + m <= a;
                        assert!(apart(a.inside, a.count, b.inside, b.count), "{ranges:?}");
                        assert!(apart(a.outside, a.count, b.outside, b.count), "{ranges:?}");
                    }
                }
            }
        }
        assert_eq!(outside(&ranges(0, &BTreeMap::new()), 65_536), None);
    }

    #[test]
    fn an_instance_without_a_range_is_refused() {
        for uid in [0, 15, 65_535, 70_000] {
            assert!(
                maps(&user(uid, 5_000, &[]), &user(0, 0, &[])).is_err(),
                "{uid}"
            );
        }
    }
}
