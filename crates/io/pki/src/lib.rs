//! Trust: who issued which certificate, who is at the other end of a connection, and who signed a blob or a bundle.
//!
//! The cloud is an [`Authority`]: one root that issues certificates for Units, Nodes, people and servers. Each certificate
//! says in its alternative names what it is for ([`CertKind`]) and whom it names; [`PeerIdentity`] reads that back from
//! a certificate whose chain was verified. A Unit keeps its keys in a [`KeyStore`] (files today, a PKCS#11 token behind
//! the same trait). TLS configurations are built here from two handles that may change while connections are made:
//! [`CertSource`] (what we present) and [`Trust`] (whom we believe), so a renewed certificate needs no restart. Before a
//! Unit has certificates its Nodes trust a [`BootstrapKey`] that an operator copied to them; nothing is ever plaintext.
//!
//! Nothing of the X.509 and cryptography crates below leaks out, rustls and its types excepted.
//! The rules are in `docs/protocol/trust.md`.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod authority;
mod blob_cipher;
mod blob_signature;
mod bootstrap;
mod content_key;
mod der;
mod file_key_store;
mod fingerprint;
mod identity;
mod jwt;
mod key;
mod key_store;
mod key_wrap;
mod kind;
mod load;
mod ocsp;
mod private_file;
mod signer;
mod source;
mod tls;
mod trust;
mod verifier;

pub use authority::{Authority, AuthorityError, Issued, IssuedPair};
pub use blob_cipher::{
    BlobCipher, BlobDecryptor, BlobKey, BlobReplay, DecryptError, UnknownCipher,
};
pub use blob_signature::{
    BlobSignature, ChainBook, Hash, HashContext, SignatureAlgorithm, SignatureError,
    UnknownAlgorithm,
};
pub use bootstrap::{BOOTSTRAP_SERVER_NAME, BootstrapError, BootstrapKey};
pub use content_key::{BlobEncryptor, ContentKey, EncryptError, public_key_of};
pub use file_key_store::FileKeyStore;
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use identity::{IdentityError, PeerIdentity};
pub use jwt::{JwtError, JwtHeader, key_id, key_id_serial, read_jwt_header, verify_jwt};
pub use key::{KeyAlgorithm, KeyError, KeyPair};
pub use key_store::{CertInfo, CertQuery, KeyRequest, KeyStore, KeyStoreError, same_serial};
pub use key_wrap::{KeyUnwrapper, KeyWrap, UnknownKeyWrap, UnwrapError, load_unwrapper};
pub use kind::{CertKind, CertProfile, UnknownKind};
pub use load::{
    LoadError, certificates_from_pem, certificates_to_pem, certified_key, discovery_urls,
    load_cert_url, load_certified_key, load_key_url, organisation,
};
pub use ocsp::{OcspError, RevocationReason};
pub use private_file::{private_dir, read_bounded, write_private};
pub use signer::Signer;
pub use source::CertSource;
pub use tls::{
    ALPN_GRPC, ALPN_HTTP, ClientTls, ServerTls, host_client, mutual_server, optional_client_server,
    public_server, unit_client,
};
pub use trust::{ChainError, LoadRootsError, Roots, Trust};
pub use verifier::{Expect, Refused, UnitRule, handshake_reason};

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

/// Makes aws-lc-rs the process's TLS provider. Call it once at process start; further calls do nothing.
pub fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The one provider all configurations are built with.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .clone()
}
