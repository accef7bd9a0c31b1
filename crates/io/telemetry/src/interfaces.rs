use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{Error, read};

/// What went through a network interface since it was made, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    /// In.
    pub received: u64,
    /// Out.
    pub sent: u64,
}

/// All interfaces of the network namespace of the calling thread, by name: one small file, however many there are.
pub fn interfaces() -> Result<BTreeMap<String, Bytes>, Error> {
    let path = PathBuf::from("/proc/thread-self/net/dev");
    parse(&read(&path)?).ok_or_else(|| content(&path))
}

fn content(path: &Path) -> Error {
    Error::Content {
        path: path.to_path_buf(),
        what: "table of interfaces",
    }
}

/// proc_pid_net(5): two lines of heads, then `name: bytes packets … bytes packets …`, eight columns for each direction.
fn parse(text: &str) -> Option<BTreeMap<String, Bytes>> {
    let mut all = BTreeMap::new();
    for line in text.lines().skip(2) {
        let (name, columns) = line.rsplit_once(':')?;
        let mut columns = columns.split_whitespace();
        let received = columns.next()?.parse().ok()?;
        let sent = columns.nth(7)?.parse().ok()?;
        all.insert(name.trim().to_owned(), Bytes { received, sent });
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_each_interface_are_found() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:  100       1    0    0    0     0          0         0      200       2    0    0    0     0       0          0\n\
            aosve-12345678:77 1 0 0 0 0 0 0 88 2 0 0 0 0 0 0\n";
        let all = parse(text).unwrap();
        let bytes = |received, sent| Bytes { received, sent };
        assert_eq!(all.get("lo"), Some(&bytes(100, 200)));
        assert_eq!(all.get("aosve-12345678"), Some(&bytes(77, 88)));
        assert_eq!(parse("a\nb\nnonsense\n"), None);
        assert!(interfaces().unwrap().contains_key("lo"));
    }
}
