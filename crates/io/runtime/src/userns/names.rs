//! Whom an image means by the user it names: its own `/etc/passwd` and `/etc/group` tell.

use std::{io::Read, os::fd::AsFd};

use aos_types::{Account, ImageUser};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::User;

/// Longest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// More groups of one user than these are left out.
const MAX_GROUPS: usize = 64;

/// Looks a user up in the root of an image.
pub(super) fn resolve(user: &ImageUser, root: impl AsFd) -> Result<User, String> {
    let passwd = read(&root, "/etc/passwd");
    let group = read(&root, "/etc/group");
    find(user, &passwd, &group)
}

/// A file as the instance sees it; empty if there is none that can be read.
fn read(root: impl AsFd, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(file) = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) else {
        return String::new();
    };
    let file = std::fs::File::from(file);
    let mut bytes = Vec::new();
    let plain = file.metadata().is_ok_and(|facts| facts.is_file());
    if !plain || file.take(MAX_FILE).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `name:password:uid:gid:…` and `name:password:gid:members`.
fn find(user: &ImageUser, passwd: &str, group: &str) -> Result<User, String> {
    let rows = |text: &'_ str| -> Vec<Vec<String>> {
        text.lines()
            .map(|line| line.split(':').map(str::to_owned).collect())
            .collect()
    };
    let (users, groups) = (rows(passwd), rows(group));
    let number = |row: &[String], at: usize| row.get(at)?.trim().parse::<u32>().ok();
    let named = |rows: &'_ [Vec<String>], name: &str| {
        rows.iter()
            .find(|row| row.first().is_some_and(|first| first == name))
            .cloned()
    };
    let (uid, row) = match &user.user {
        Account::Id(id) => {
            let row = users.iter().find(|row| number(row, 2) == Some(*id));
            (*id, row.cloned())
        }
        Account::Name(name) => {
            let row = named(&users, name).ok_or_else(|| {
                format!("its image names the user `{name}`, whom its /etc/passwd does not know")
            })?;
            let uid = number(&row, 2)
                .filter(|uid| *uid != u32::MAX)
                .ok_or_else(|| {
                    format!("the /etc/passwd of its image has no number for `{name}`")
                })?;
            (uid, Some(row))
        }
    };
    let gid = match &user.group {
        Some(Account::Id(id)) => *id,
        Some(Account::Name(name)) => named(&groups, name)
            .and_then(|row| number(&row, 2))
            .filter(|gid| *gid != u32::MAX)
            .ok_or_else(|| {
                format!("its image names the group `{name}`, which its /etc/group does not know")
            })?,
        // As other engines have it: who is not listed is in root's group, which is nobody's on the Node.
        None => row
            .as_deref()
            .and_then(|row| number(row, 3))
            .filter(|gid| *gid != u32::MAX)
            .unwrap_or(0),
    };
    let name = row.as_deref().and_then(|row| row.first());
    let mut additional_gids: Vec<u32> = match (&user.group, name) {
        (None, Some(name)) => groups
            .iter()
            .filter(|row| {
                row.get(3)
                    .is_some_and(|members| members.split(',').any(|member| member.trim() == name))
            })
            .filter_map(|row| number(row, 2))
            .filter(|&other| other != gid && other < 65_536)
            .collect(),
        _ => Vec::new(),
    };
    additional_gids.sort_unstable();
    additional_gids.dedup();
    additional_gids.truncate(MAX_GROUPS);
    Ok(User {
        uid,
        gid,
        additional_gids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nnonsense\napp:x:1000:50::/:\nodd:x:abc:1::/:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app\naudio:x:63:other,app\nvideo:x:44: app\n";

    #[test]
    fn users_are_found_as_other_engines_find_them() {
        for (text, wanted) in [
            ("app", (1_000, 50, vec![44, 63])),
            ("app:audio", (1_000, 63, vec![])),
            ("1000", (1_000, 50, vec![44, 63])),
            ("1000:7", (1_000, 7, vec![])),
            ("77", (77, 0, vec![])),
            ("0", (0, 0, vec![])),
            ("77:staff", (77, 50, vec![])),
        ] {
            let found = find(&text.parse().unwrap(), PASSWD, GROUP).unwrap();
            let found = (found.uid, found.gid, found.additional_gids);
            assert_eq!(found, wanted, "{text}");
        }
        for (text, word) in [
            ("nobody", "`nobody`"),
            ("app:none", "`none`"),
            ("odd", "`odd`"),
        ] {
            let error = find(&text.parse().unwrap(), PASSWD, GROUP).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
