use std::{net::SocketAddr, time::Duration};

use aos_types::NodeId;
use serde::Deserialize;

/// How images are fetched, kept and served: the table `[cm.images]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageOptions {
    /// Most bytes a second of all downloads together; 0 is without a bound.
    pub bandwidth_limit: u64,
    /// Blobs fetched side by side, at least 1.
    pub parallel: usize,
    /// Whether blobs without a signature are taken. Their digest still has to be the one the desired state names.
    pub allow_unsigned: bool,
    /// Whether a signature is taken only with an OCSP answer that its certificate is good.
    pub require_ocsp: bool,
    /// How often the progress of a download is told to the cloud, in seconds.
    pub progress_secs: u64,
    /// Bytes that stay free on the disk of the images, whatever is to be fetched.
    pub keep_free: u64,
    /// Nodes whose SM can fetch blobs by plain HTTP only.
    pub legacy_blobs: Vec<NodeId>,
    /// Where those SMs fetch; must be given if there are any.
    pub legacy_listen: Option<SocketAddr>,
    /// The address of `legacy_listen` as those SMs reach it, `http://host:port`; `http://<legacy_listen>` by default.
    pub legacy_url: Option<String>,
    /// How long a plain address of a blob is good, in seconds.
    pub legacy_secs: u64,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            bandwidth_limit: 0,
            parallel: 4,
            allow_unsigned: false,
            require_ocsp: false,
            progress_secs: 10,
            keep_free: 32 << 20,
            legacy_blobs: Vec::new(),
            legacy_listen: None,
            legacy_url: None,
            legacy_secs: 600,
        }
    }
}

impl ImageOptions {
    pub(super) fn progress(&self) -> Duration {
        Duration::from_secs(self.progress_secs)
    }
}
