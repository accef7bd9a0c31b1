use std::{
    fs,
    path::{Path, PathBuf},
};

/// Which cgroup file systems are mounted, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Mount points of the v2 tree.
    pub(crate) v2: Vec<PathBuf>,
    /// Mount points of v1 trees with their controllers.
    pub(crate) v1: Vec<(PathBuf, Vec<String>)>,
}

impl Layout {
    /// Looks at the mounts of this process.
    pub fn find() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Only v2: the layout of current systems.
    pub fn unified(&self) -> bool {
        self.v1.is_empty() && !self.v2.is_empty()
    }

    /// Mount points that an OCI runtime must not see. Beside v1 trees a v2 tree with a controller of its own makes `crun`
    /// refuse to work.
    pub fn hidden(&self) -> Vec<PathBuf> {
        if self.v1.is_empty() {
            Vec::new()
        } else {
            self.v2.clone()
        }
    }

    fn parse(mountinfo: &str) -> Self {
        let mut layout = Self::default();
        for line in mountinfo.lines() {
            // proc_pid_mountinfo(5): the optional fields end with a dash.
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = left.split(' ').nth(4) else {
                continue;
            };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") => layout.v2.push(point.into()),
                Some("cgroup") => {
                    let controllers = right.nth(1).unwrap_or_default();
                    layout.v1.push((
                        point.into(),
                        controllers.split(',').map(str::to_owned).collect(),
                    ));
                }
                _ => {}
            }
        }
        layout
    }

    /// Whether the kernel bounds how much of a cgroup is in swap.
    pub fn bounds_swap(&self) -> bool {
        let memory = self
            .v1
            .iter()
            .find(|(_, controllers)| controllers.iter().any(|name| name == "memory"));
        if let Some((point, _)) = memory {
            return point.join("memory.memsw.limit_in_bytes").exists();
        }
        // The root of a v2 tree has no limits; whatever is below has those there are.
        self.v2.iter().any(|point| {
            let below = fs::read_dir(point).into_iter().flatten().flatten();
            below
                .map(|entry| entry.path().join("memory.swap.max"))
                .any(|file| file.exists())
        })
    }

    /// The mount point of the v1 tree with this controller.
    pub(crate) fn of_v1(&self, controller: &str) -> Option<&Path> {
        let has = |(_, controllers): &&(PathBuf, Vec<String>)| {
            controllers.iter().any(|one| one == controller)
        };
        self.v1.iter().find(has).map(|(point, _)| point.as_path())
    }

    /// How many processes of the cgroup `path` the kernel has killed for want of memory.
    pub fn oom_kills(&self, path: &str) -> u64 {
        let relative = path.trim_start_matches('/');
        let v1 = self
            .of_v1("memory")
            .map(|point| point.join(relative).join("memory.oom_control"));
        let v2 = self
            .v2
            .first()
            .map(|point| point.join(relative).join("memory.events"));
        v1.or(v2).map_or(0, |file| counter(&file, "oom_kill"))
    }

    /// Kills what runs in the cgroup `path` until nothing does, for a second at most.
    pub fn kill(&self, path: &str) {
        let relative = path.trim_start_matches('/');
        let points = self.v2.iter().chain(self.v1.iter().map(|(point, _)| point));
        let lists: Vec<PathBuf> = points
            .filter(|_| !relative.is_empty())
            .map(|point| point.join(relative).join("cgroup.procs"))
            .collect();
        for _ in 0..100 {
            let text = |list: &PathBuf| fs::read_to_string(list).unwrap_or_default();
            let numbers: String = lists.iter().map(text).collect();
            let pids = numbers.lines().filter_map(|line| line.trim().parse().ok());
            let mut some = false;
            for pid in pids.filter_map(rustix::process::Pid::from_raw) {
                some = true;
                // It may be gone by now.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            if !some {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Removes the empty cgroup `path` from every tree.
    pub fn remove(&self, path: &str) {
        let relative = path.trim_start_matches('/');
        let points = self.v2.iter().chain(self.v1.iter().map(|(point, _)| point));
        for point in points.filter(|_| !relative.is_empty()) {
            // Not there, or not empty: nothing to do for us.
            let _ = fs::remove_dir(point.join(relative));
        }
    }
}

fn counter(file: &Path, name: &str) -> u64 {
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_layouts_are_told_apart() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let v1 = "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let hybrid = format!("{v1}32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        assert!(Layout::parse(v2).unified());
        assert!(Layout::parse(v2).hidden().is_empty());
        assert!(!Layout::parse(v1).unified());
        assert!(Layout::parse(v1).hidden().is_empty());
        let hybrid = Layout::parse(&hybrid);
        assert!(!hybrid.unified());
        assert_eq!(hybrid.hidden(), [PathBuf::from("/sys/fs/cgroup/unified")]);
        assert_eq!(Layout::parse("nonsense\n"), Layout::default());
    }

    #[test]
    fn whether_swap_is_bounded_is_seen_in_either_layout() {
        let folder = tempfile::tempdir().unwrap();
        let memory = || vec!["rw".to_owned(), "memory".to_owned()];
        let v1 = Layout {
            v1: vec![(folder.path().into(), memory())],
            v2: Vec::new(),
        };
        let v2 = Layout {
            v1: Vec::new(),
            v2: vec![folder.path().into()],
        };
        assert!(!v1.bounds_swap() && !v2.bounds_swap());
        fs::create_dir(folder.path().join("system.slice")).unwrap();
        fs::write(folder.path().join("system.slice/memory.swap.max"), "max").unwrap();
        assert!(!v1.bounds_swap() && v2.bounds_swap());
        fs::write(folder.path().join("memory.memsw.limit_in_bytes"), "1").unwrap();
        assert!(v1.bounds_swap());
        assert!(!Layout::default().bounds_swap());
    }

    #[test]
    fn kills_are_counted_in_either_layout() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("aos/x");
        fs::create_dir_all(&own).unwrap();
        fs::write(
            own.join("memory.oom_control"),
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        )
        .unwrap();
        fs::write(own.join("memory.events"), "low 0\noom 5\noom_kill 3\n").unwrap();
        let v1 = Layout {
            v1: vec![(folder.path().into(), vec!["rw".into(), "memory".into()])],
            v2: Vec::new(),
        };
        let v2 = Layout {
            v1: Vec::new(),
            v2: vec![folder.path().into()],
        };
        assert_eq!(v1.oom_kills("/aos/x"), 2);
        assert_eq!(v2.oom_kills("/aos/x"), 3);
        assert_eq!(v2.oom_kills("/aos/y"), 0);
    }
}
