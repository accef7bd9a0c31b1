//! Images of Deployable Items: what they are made of, where they are kept, how they arrive, how they become folders.
//!
//! An item is a small graph of blobs, each named by the SHA-256 of its content: an image index lists manifests (one a
//! platform), a manifest names its configs and layers ([`graph`]). A [`BlobStore`] is a folder of such blobs that never
//! holds a wrong or half one. [`fetch`] brings a blob over HTTPS into it and checks size, checksum, digest and signature
//! while the bytes pass by. [`unpack`] turns layers into folders for the container runtime and refuses hostile archives;
//! [`build`] does the opposite: it makes deterministic layers and the JSON around them from a folder.
//!
//! Nothing here decides *what* to fetch, keep or run. The formats are described in `docs/protocol/items.md`.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

pub mod blob;
pub mod build;
pub mod fetch;
pub mod graph;
pub mod layout;
pub mod tree;
pub mod unpack;

pub use blob::{BlobStore, Stored};
pub use graph::{ImageConfig, ImageIndex, ItemImage, Manifest, Platform};
