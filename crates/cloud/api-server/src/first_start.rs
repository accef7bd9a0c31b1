use std::{
    io,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use aos_db::{DbError, hash_secret};

use crate::{ApiState, secret};

/// The name of the file in the data folder.
const FILE: &str = "owner-link.txt";

/// The owner link cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OwnerLinkError {
    /// The store failed.
    #[error("the owner token cannot be stored")]
    Db(#[from] DbError),
    /// The file cannot be written.
    #[error("the owner link cannot be written to {path}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine gave no randomness.
    #[error("the owner token cannot be made: {0}")]
    Randomness(String),
}

/// While there is no user: writes `owner-link.txt` (mode 0600) with a link by which the first one is made, once, and
/// gives its path. A link of an earlier start is replaced. Once there is a user the file goes away.
///
/// The link is never logged. Only its token's hash is stored.
pub async fn ensure_owner_link(
    state: &ApiState,
    data_dir: &Path,
) -> Result<Option<PathBuf>, OwnerLinkError> {
    let path = data_dir.join(FILE);
    if state.db().has_users().await? {
        remove(&path)?;
        return Ok(None);
    }
    let token = secret::token().map_err(|error| OwnerLinkError::Randomness(error.to_string()))?;
    state.db().put_owner_token(&hash_secret(&token)).await?;
    let link = format!(
        "{}/welcome#token={token}\n",
        state.options().people_url.trim_end_matches('/')
    );
    aos_pki::write_private(&path, link.as_bytes()).map_err(|source| OwnerLinkError::File {
        path: path.clone(),
        source,
    })?;
    *state
        .owner_link()
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some(path.clone());
    Ok(Some(path))
}

/// The link was used: its file goes.
pub(crate) fn forget_owner_link(state: &ApiState) {
    let path = state
        .owner_link()
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(path) = path
        && let Err(error) = remove(&path)
    {
        tracing::warn!(%error, "the used owner link stays on the disk; it is worth nothing any more");
    }
}

fn remove(path: &Path) -> Result<(), OwnerLinkError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(OwnerLinkError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
