use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, ParsedExtension, X509Certificate},
};
use zeroize::Zeroizing;

use crate::{KeyError, KeyPair, der, provider, read_bounded};

/// Longest certificate or key file read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A certificate or key cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The URL is of a kind we cannot open.
    #[error("`{url}` cannot be opened: only `file:` URLs with an absolute path are supported here")]
    Url {
        /// The URL.
        url: String,
    },
    /// There is no certificate in it.
    #[error("no PEM block `CERTIFICATE` was found, or one is damaged")]
    NoCertificate,
    /// The private key cannot be used.
    #[error("the private key cannot be used")]
    Key(#[source] KeyError),
    /// The key does not belong to the certificate, or TLS cannot use it.
    #[error("the certificate and its private key cannot be used together")]
    Pair(#[source] rustls::Error),
}

/// Reads all certificates of a PEM text.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .map(|one| one.map(CertificateDer::into_owned))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| LoadError::NoCertificate)?;
    if certificates.is_empty() {
        return Err(LoadError::NoCertificate);
    }
    Ok(certificates)
}

/// Writes certificates as PEM, one block each.
pub fn certificates_to_pem<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = STANDARD.encode(certificate);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = more;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

/// The path in a `file:` URL (`file:///a/b` or `file:/a/b`); percent escapes are undone.
pub(crate) fn file_url_path(url: &str) -> Result<PathBuf, LoadError> {
    let refuse = || LoadError::Url {
        url: url.chars().take(120).collect(),
    };
    let rest = url.strip_prefix("file:").ok_or_else(refuse)?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = der::percent_decode(path).ok_or_else(refuse)?;
    if !path.starts_with('/') {
        return Err(refuse());
    }
    Ok(PathBuf::from(path))
}

/// The `file:` URL of a path.
pub(crate) fn file_url(path: &Path) -> String {
    let path = der::percent_encode(&path.to_string_lossy(), |byte| byte == b'/');
    format!("file://{path}")
}

fn read(path: PathBuf) -> Result<Vec<u8>, LoadError> {
    read_bounded(&path, MAX_FILE).map_err(|source| LoadError::File { path, source })
}

/// Loads the certificate chain behind a `cert_url` of IAM, leaf first. Blocks.
pub fn load_cert_url(url: &str) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    certificates_from_pem(&read(file_url_path(url)?)?)
}

/// Loads the private key behind a `key_url` of IAM. Blocks.
pub fn load_key_url(url: &str) -> Result<KeyPair, LoadError> {
    let pem = Zeroizing::new(read(file_url_path(url)?)?);
    let text = Zeroizing::new(String::from_utf8_lossy(&pem).into_owned());
    KeyPair::from_pem(&text).map_err(LoadError::Key)
}

/// Loads what IAM's `GetCert` named, ready for TLS. Blocks.
pub fn load_certified_key(cert_url: &str, key_url: &str) -> Result<Arc<CertifiedKey>, LoadError> {
    certified_key(load_cert_url(cert_url)?, &load_key_url(key_url)?)
}

/// Puts a chain (leaf first) and its key together for TLS.
pub fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
) -> Result<Arc<CertifiedKey>, LoadError> {
    CertifiedKey::from_der(chain, key.to_private_der(), &provider())
        .map(Arc::new)
        .map_err(LoadError::Pair)
}

/// The service discovery base URLs of an `online` certificate: the URIs of its issuer alternative name.
pub fn discovery_urls(certificate: &[u8]) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    parsed
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::IssuerAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect()
}

/// The organisation in the subject of a certificate, if it has one.
pub fn organisation(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_organization().next()?;
    Some(name.as_str().ok()?.chars().take(253).collect())
}
