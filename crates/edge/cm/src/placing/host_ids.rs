use std::{collections::BTreeSet, fs, path::Path};

/// Most bytes of a list of users that are read.
const MOST: u64 = 4 << 20;

/// User and group ids that this machine uses itself: instances get others. A list that cannot be read takes none.
pub(super) fn taken() -> BTreeSet<u32> {
    ["/etc/passwd", "/etc/group"]
        .iter()
        .flat_map(|path| ids(Path::new(path)))
        .collect()
}

fn ids(path: &Path) -> Vec<u32> {
    let small = fs::metadata(path).is_ok_and(|facts| facts.len() <= MOST);
    let text = match small {
        true => fs::read_to_string(path).unwrap_or_default(),
        false => String::new(),
    };
    text.lines().filter_map(id).collect()
}

/// The third field of `name:password:id:…`.
fn id(line: &str) -> Option<u32> {
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_of_the_machine_are_found() {
        assert_eq!(id("anna:x:5004:5004:Anna:/home/anna:/bin/sh"), Some(5004));
        assert_eq!(id("broken line"), None);
        assert!(taken().contains(&0), "root is there");
    }
}
