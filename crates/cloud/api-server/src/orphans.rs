use std::time::Duration;

use crate::{ApiError, ApiState};

/// Blobs younger than this are left alone.
const GRACE: Duration = Duration::from_secs(3600);

/// Deletes blobs that no version holds: what refused bundles and deleted services left. Gives how many bytes that freed.
/// Call it after the start and from time to time.
pub async fn collect_orphans(state: &ApiState) -> Result<u64, ApiError> {
    // While no bundle is converted: its blobs are on the disk before anything refers to them.
    let _turn = state
        .conversions()
        .acquire()
        .await
        .map_err(|error| ApiError::internal(&error))?;
    let db = state.db();
    for digest in db.orphan_blobs(db.now() - GRACE).await? {
        db.forget_blob(&digest).await?;
    }
    let keep = db.known_blobs().await?;
    let blobs = state.options().blobs.clone();
    let collected = tokio::task::spawn_blocking(move || blobs.collect(&keep, GRACE))
        .await
        .map_err(|error| ApiError::internal(&error))?
        .map_err(|error| ApiError::internal(&error))?;
    Ok(collected.bytes)
}
