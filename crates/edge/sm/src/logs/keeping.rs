use std::{io, path::PathBuf, sync::Arc, time::Duration};

use aos_logs::{InstanceLogs, Watch};
use aos_time::{Clock, SystemClock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Logs;
use crate::launcher::Snapshot;

/// The shortest time between two looks for full files. Whoever floods its log fills some at each; the keeper drops the rest.
const PAUSE: Duration = Duration::from_secs(5);
/// How often it is looked for what is too old.
const TIDY: Duration = Duration::from_secs(600);
/// How long until a folder that is not there yet is looked for again.
const ABSENT: Duration = Duration::from_secs(5);

impl Logs {
    /// Keeps the logs within their bounds until `stop`.
    pub(crate) async fn keep(
        self: Arc<Self>,
        mut snapshots: watch::Receiver<Snapshot>,
        stop: CancellationToken,
    ) -> Result<(), crate::Error> {
        let work = async {
            tokio::try_join!(
                async {
                    loop {
                        let now = snapshots.borrow_and_update().clone();
                        // Before the stored set is restored nobody is there, and nobody is gone.
                        if now.launches > 0 || !now.instances.is_empty() {
                            let gone = now.launches > 0;
                            self.note(&now, gone).await?;
                        }
                        if snapshots.changed().await.is_err() {
                            return std::future::pending::<Result<(), crate::Error>>().await;
                        }
                    }
                },
                async {
                    loop {
                        self.take_rotated().await;
                        tokio::time::sleep(PAUSE).await;
                        self.rotated().await;
                    }
                    #[allow(unreachable_code, reason = "it says what the other arms give")]
                    Ok(())
                },
                async {
                    loop {
                        self.tidy().await?;
                        tokio::time::sleep(TIDY).await;
                    }
                    #[allow(unreachable_code, reason = "it says what the other arms give")]
                    Ok(())
                },
            )
        };
        // What is dropped in the middle is taken up by the next SM.
        tokio::select! {
            ended = work => ended.map(drop),
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn note(&self, now: &Snapshot, whole: bool) -> Result<(), crate::Error> {
        if whole {
            let idents = now.instances.keys();
            return Ok(self.index.are(idents, SystemClock.now()).await?);
        }
        let known = self.index.find(|_| true);
        let idents = now
            .instances
            .keys()
            .chain(known.iter().map(|(_, ident)| ident));
        Ok(self.index.are(idents, SystemClock.now()).await?)
    }

    /// Waits until a keeper has put a file aside.
    async fn rotated(&self) {
        let folders = self.store.folders().iter().map(PathBuf::as_path);
        // A folder that is not there cannot be watched, and a keeper makes it when it starts.
        let all = self.store.folders().iter().all(|folder| folder.exists());
        let Ok(watch) = Watch::over(folders, false) else {
            return tokio::time::sleep(ABSENT).await;
        };
        tokio::select! {
            _ = watch.changed() => {}
            () = tokio::time::sleep(ABSENT), if !all => {}
        }
    }

    async fn take_rotated(&self) {
        let done = self.blocking(|store| store.take_rotated().map(drop)).await;
        if let Err(error) = done {
            tracing::warn!(%error, "full files of logs cannot be archived");
        }
    }

    async fn tidy(&self) -> Result<(), crate::Error> {
        let now = SystemClock.now();
        let gone = self.index.forget_gone(self.gone, now).await?;
        let keep = self.keep;
        let done = self.blocking(move |store| {
            for id in &gone {
                store.forget(id)?;
            }
            store.tidy(&keep, now)
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "old logs cannot be removed");
        }
        Ok(())
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&InstanceLogs) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(io::Error::other)?
    }
}
