use std::future::Future;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Response, Status};

/// A stream of a subscription.
pub(crate) type Feed<T> = ReceiverStream<Result<T, Status>>;

/// Owns the tasks behind subscriptions: each ends with its subscriber, or when IAM stops.
#[derive(Clone, Default)]
pub(crate) struct Feeds {
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

impl Feeds {
    /// Starts a task that sends to the subscriber until it returns.
    pub fn open<T, F>(
        &self,
        feed: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F,
    ) -> Response<Feed<T>>
    where
        T: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(16);
        let (gone, stop) = (sender.clone(), self.stop.clone());
        let feed = feed(sender);
        self.tasks.spawn(async move {
            // What is lost when the feed is dropped is only what nobody reads any more.
            tokio::select! {
                () = feed => {}
                () = gone.closed() => {}
                () = stop.cancelled() => {}
            }
        });
        Response::new(ReceiverStream::new(receiver))
    }
}
