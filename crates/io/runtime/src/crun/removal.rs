use std::{collections::HashSet, fs, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{Shared, blocking, command::Listed};
use crate::{Error, InstanceId, Isolation, StopPolicy, rootfs};

/// How long the output of a removed instance is kept.
const KEEP_LOGS: Duration = Duration::from_secs(7 * 24 * 3_600);

impl Shared {
    /// Removes all that was made for an instance: container, cgroup, root, bundle. What is not there is fine.
    pub(super) async fn remove(self: &Arc<Self>, id: InstanceId) -> Result<(), Error> {
        let name = id.to_string();
        if self.runner.knows(&name) {
            self.runner.delete(&name).await?;
        }
        let shared = self.clone();
        blocking(move || {
            if shared.options.isolation == Isolation::Native {
                // Without a process namespace nothing else ends them.
                shared.layout.kill(&shared.cgroup(id));
            }
            let bundle = shared.bundle(id);
            if bundle.exists() {
                // Never through a mount: the root has to be gone before its folder is.
                rootfs::unmount_root(&bundle.join("rootfs"))?;
                rootfs::remove_tree(&bundle)?;
            }
            let writable = shared.writable(id);
            if writable.exists() {
                // A start that was cut off may have left it mounted.
                rootfs::unmount_root(&writable)?;
                rootfs::remove_tree(&writable)?;
            }
            shared.layout.remove(&shared.cgroup(id));
            Ok(())
        })
        .await
    }

    /// Stops and removes every instance under our roots that is not in `known`.
    pub(super) async fn remove_unknown(
        self: &Arc<Self>,
        known: &[InstanceId],
        listed: &[Listed],
        policy: StopPolicy,
    ) -> Result<(), Error> {
        let known: HashSet<InstanceId> = known.iter().copied().collect();
        let mut unknown: HashSet<InstanceId> = listed
            .iter()
            .filter_map(|found| found.id.parse().ok())
            .collect();
        for kept in self.all_kept().await? {
            unknown.extend(kept.id.parse::<InstanceId>());
        }
        for folder in [self.bundles(), self.options.writable_dir.clone()] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                unknown.extend(
                    entry
                        .file_name()
                        .to_str()
                        .and_then(|name| name.parse::<InstanceId>().ok()),
                );
            }
        }
        self.remove_old_logs(&known);
        // An exchange that was interrupted leaves one that was about to be asked to end. They take their time side by side.
        let mut ends = JoinSet::new();
        for id in unknown.difference(&known).copied() {
            tracing::info!(%id, "removed: nobody knows this instance any more");
            let shared = self.clone();
            ends.spawn(async move {
                shared.end(id, policy).await?;
                shared.remove(id).await
            });
        }
        let mut result = Ok(());
        while let Some(ended) = ends.join_next().await {
            let ended = ended.unwrap_or_else(|error| {
                Err(Error::File {
                    what: "finish work on",
                    path: self.bundles(),
                    source: std::io::Error::other(error),
                })
            });
            result = result.and(ended);
        }
        result
    }

    /// Removes the output of instances that are gone for long. Whoever asks why one was removed asks soon.
    fn remove_old_logs(&self, known: &HashSet<InstanceId>) {
        let folder = self.options.keeper.state_dir.join("logs");
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let id = name
                .to_str()
                .and_then(|name| name.split('.').next()?.parse::<InstanceId>().ok());
            let old = entry
                .metadata()
                .and_then(|facts| facts.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEEP_LOGS));
            if old && id.is_some_and(|id| !known.contains(&id)) {
                // Tried again at the next start.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
