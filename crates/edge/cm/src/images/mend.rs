//! Keeps what is installed whole: reads it once after a start, and fetches again what was lost.
//!
//! No update waits for this. The Nodes have their own copies of what they run; ours is there for Nodes that join, and for
//! a Node that has lost its own.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use aos_types::Digest;
use tokio_util::sync::CancellationToken;

use super::{Error, ask::fetch_again, keep::Kept, library::Shared, request::blocking};

/// When what could not be fetched is tried again, unless something tells earlier.
const LATER: Duration = Duration::from_secs(3600);

/// Looks, mends, and waits until somebody says that something is missing, until `stop`.
pub(super) async fn keep_whole(shared: &Arc<Shared>, stop: &CancellationToken) {
    loop {
        let left = match lost(shared).await {
            Ok(lost) if lost.is_empty() => false,
            Ok(lost) => {
                tracing::warn!(
                    blobs = lost.len(),
                    "content of installed items is damaged or missing; it is fetched again"
                );
                let failed = fetch_again(shared, lost, stop).await;
                for (digest, error) in &failed {
                    tracing::warn!(%digest, %error, "lost content is not here again");
                }
                !failed.is_empty()
            }
            Err(error) => {
                tracing::warn!(error = %error.info(), "installed items cannot be looked at now");
                true
            }
        };
        // Every arm only waits: nothing is lost when another one wins.
        tokio::select! {
            () = shared.damaged.notified() => {}
            () = tokio::time::sleep(LATER), if left => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Blobs of installed items that are not here, or not what they should be; damaged ones are removed.
async fn lost(shared: &Shared) -> Result<BTreeSet<Digest>, Error> {
    let installed: BTreeSet<Digest> = shared
        .keep
        .all()
        .await?
        .into_values()
        .filter(|kit| kit.kept == Kept::Installed)
        .flat_map(|kit| kit.blobs)
        .collect();
    let (seen, store) = (shared.seen.clone(), shared.blobs.clone());
    blocking(move || {
        let mut lost = BTreeSet::new();
        for digest in installed {
            if !seen.is_intact(&store, &digest)? {
                lost.insert(digest);
            }
        }
        Ok(lost)
    })
    .await?
}
