//! Passes for SMs that can fetch blobs by plain HTTP only.
//!
//! Who knows such an address may fetch the blob, so each is made for one blob and one Node, cannot be guessed, is good for
//! a short time, and only for the address that Node's mutual TLS connection comes from.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aos_types::Digest;

/// Passes that may be good at once. Beyond it the ones that end first go.
const MOST: usize = 10_000;
/// Before the pass in a path.
const PREFIX: &str = "/pass/";

#[derive(Debug)]
struct Pass {
    node: IpAddr,
    digest: Digest,
    until: Instant,
}

/// The passes that are good now. Clones share them; they do not outlive the process.
#[derive(Debug, Clone, Default)]
pub(super) struct Passes(Arc<Mutex<HashMap<String, Pass>>>);

impl Passes {
    /// The path under which the Node at this address may fetch the blob for so long.
    pub(super) fn issue(&self, node: IpAddr, digest: Digest, life: Duration) -> String {
        let now = Instant::now();
        let secret = format!(
            "{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        let path = format!("{PREFIX}{secret}/{}", digest.hex());
        let mut passes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passes.retain(|_, pass| pass.until > now);
        if passes.len() >= MOST {
            let soonest = passes.iter().min_by_key(|(_, pass)| pass.until);
            if let Some(soonest) = soonest.map(|(secret, _)| secret.clone()) {
                passes.remove(&soonest);
            }
        }
        let pass = Pass {
            node: plain(node),
            digest,
            until: now + life,
        };
        passes.insert(secret, pass);
        path
    }

    /// The blob that whoever is at this address may fetch under this path.
    pub(super) fn open(&self, path: &str, from: IpAddr) -> Option<Digest> {
        let (secret, hex) = path.strip_prefix(PREFIX)?.split_once('/')?;
        let passes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pass = passes.get(secret)?;
        let good = pass.until > Instant::now()
            && pass.node == plain(from)
            && pass.digest.hex().as_str() == hex;
        good.then_some(pass.digest)
    }
}

/// An IPv4 address, however it is written.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod pass_tests {
    use super::*;

    #[test]
    fn a_pass_is_for_one_blob_one_address_and_a_while() {
        let passes = Passes::default();
        let (node, other): (IpAddr, IpAddr) =
            ("10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap());
        let digest = Digest::from_bytes([1; 32]);
        let path = passes.issue(node, digest, Duration::from_secs(60));
        assert_eq!(passes.open(&path, node), Some(digest));
        let mapped = "::ffff:10.0.0.2".parse().unwrap();
        assert_eq!(passes.open(&path, mapped), Some(digest));
        assert_eq!(passes.open(&path, other), None);
        let elsewhere = path.replace(&digest.hex(), &Digest::from_bytes([2; 32]).hex());
        assert_eq!(passes.open(&elsewhere, node), None);
        for path in ["/", "/pass/", "/pass/x/y", &path[..path.len() - 1]] {
            assert_eq!(passes.open(path, node), None, "{path}");
        }
        let over = passes.issue(node, digest, Duration::ZERO);
        assert_eq!(passes.open(&over, node), None);
        assert_ne!(path, passes.issue(node, digest, Duration::from_secs(60)));
    }
}
