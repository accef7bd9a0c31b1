//! The publisher bundle: how a person hands Deployable Items to the cloud.
//!
//! A publisher keeps a folder with a `config.yaml` and the files of each item. [`init`] makes such a folder, [`check`]
//! says what is wrong with it, [`sign`] packs it into one signed file. The cloud takes that file apart with [`open`],
//! believing nothing until signature, hashes and limits are checked, and turns it into OCI blobs with [`convert`].
//!
//! ```text
//! folder ── check ── sign ──► batch.tar.gz { batch.tar.gz, config.yaml, package.sign }
//!                                   │
//! cloud:   open: size, signature, signer, hashes, config, files ──► convert: index, manifests, configs, layers
//! ```
//!
//! The format is that of aos-signer 2.1.0, `schemaVersion: 2` (`docs/protocol/bundle.md`). All calls
//! block.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod check;
mod config;
mod convert;
mod foreign;
mod init;
mod layout;
mod open;
mod sign;
mod template;

pub use check::{Checked, check};
pub use config::{
    Config, Dependency, Image, Instances, Item, Problem, Problems, Publish, Publisher, Severity,
    State,
};
pub use convert::{BlobRecord, ConvertError, ConvertedItem, convert};
pub use init::{InitError, init};
pub use open::{Caps, OpenError, Opened, SignerBook, SignerCertificate, open};
pub use sign::{SignError, Signed, sign};

/// The name of the configuration inside a bundle and its folder.
pub const CONFIG: &str = "config.yaml";
/// The name of the archive with the items' files inside a bundle, and of the bundle itself.
pub const BATCH: &str = "batch.tar.gz";
/// The name of the signature inside a bundle.
pub const SIGNATURE: &str = "package.sign";
/// The media type of an image that another tool has built: an OCI image layout.
pub const LAYOUT: &str = "application/vnd.oci.image.layout.v1";
/// The name under which an item's default state travels.
pub const DEFAULT_STATE: &str = "default_state.dat";
