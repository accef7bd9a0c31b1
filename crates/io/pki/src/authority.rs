use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use aos_time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
    SubjectPublicKeyInfo, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use zeroize::Zeroizing;

use crate::{
    CertKind, CertProfile, Fingerprint, KeyAlgorithm, KeyError, KeyPair, Roots,
    certificates_to_pem, der, identity::urns, private_dir, read_bounded, write_private,
};

const MAX_FILE: u64 = 64 * 1024;
/// How far before the present a certificate starts, for peers whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);
const ROOT_VALIDITY: Duration = Duration::from_secs(25 * 365 * 24 * 3600);
/// Longest request accepted, in bytes of PEM.
const MAX_REQUEST: usize = 16 * 1024;

/// An authority cannot be opened or cannot issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the authority cannot be used.
    #[error("cannot use {path} of the certificate authority")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The private key of the root cannot be used.
    #[error("the private key of the certificate authority cannot be used")]
    Key(#[source] KeyError),
    /// The root certificate does not belong to the key or cannot be read.
    #[error(
        "the root certificate {path} cannot be used: {why}; restore it and its key together from a backup"
    )]
    Root {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The certificate request cannot be accepted.
    #[error("the certificate request is refused: {why}")]
    Request {
        /// What is wrong with it.
        why: String,
    },
    /// A field of the profile cannot be put into a certificate.
    #[error("the certificate cannot be issued: {field} `{value}` cannot stand in a certificate")]
    Profile {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// Signing failed.
    #[error("signing the certificate failed")]
    Sign(#[source] rcgen::Error),
}

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// It and the root, PEM, leaf first: what a key store applies.
    pub chain_pem: String,
    /// Serial number in lower-case hex.
    pub serial: String,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// Its first valid moment.
    pub not_before: Timestamp,
    /// Its last valid moment.
    pub not_after: Timestamp,
}

/// A certificate with the key that was made for it.
#[derive(Debug)]
pub struct IssuedPair {
    /// The certificate.
    pub issued: Issued,
    /// Its key.
    pub key: KeyPair,
}

/// A root that issues certificates.
pub struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    root: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.fingerprint())
    }
}

impl Authority {
    /// Opens the authority in `dir` (`root.key` of mode 0600 and `root.pem`) or makes one called `name`, ECDSA P-256.
    pub fn load_or_create(dir: &Path, name: &str, now: Timestamp) -> Result<Self, AuthorityError> {
        let file = |path: &Path| {
            let path = path.to_path_buf();
            move |source| AuthorityError::File { path, source }
        };
        private_dir(dir).map_err(file(dir))?;
        let (key_path, root_path) = (dir.join("root.key"), dir.join("root.pem"));
        let key = match read_bounded(&key_path, MAX_FILE) {
            Ok(pem) => {
                let pem = Zeroizing::new(String::from_utf8_lossy(&pem).into_owned());
                KeyPair::from_pem(&pem).map_err(AuthorityError::Key)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !root_path.exists() => {
                let key = KeyPair::generate(KeyAlgorithm::EcP256).map_err(AuthorityError::Key)?;
                write_private(&key_path, key.to_pem().as_bytes()).map_err(file(&key_path))?;
                key
            }
            Err(source) => return Err(file(&key_path)(source)),
        };
        match read_bounded(&root_path, MAX_FILE) {
            Ok(pem) => Self::with_root(&root_path, key, &pem),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let authority =
                    Self::make(key.0, name, now - BACKDATED, now + ROOT_VALIDITY, None)?;
                write_private(&root_path, authority.root_pem().as_bytes())
                    .map_err(file(&root_path))?;
                Ok(authority)
            }
            Err(source) => Err(file(&root_path)(source)),
        }
    }

    fn with_root(path: &Path, key: KeyPair, pem: &[u8]) -> Result<Self, AuthorityError> {
        let refuse = |why: String| AuthorityError::Root {
            path: path.to_path_buf(),
            why,
        };
        let root = CertificateDer::from_pem_slice(pem)
            .map_err(|error| refuse(format!("it is not PEM ({error:?})")))?
            .into_owned();
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&root)
            .map_err(|error| refuse(error.to_string()))?;
        if parsed.public_key().raw != key.public_key_der() {
            return Err(refuse("it belongs to another key than root.key".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&root, key.0).map_err(|e| refuse(e.to_string()))?;
        Ok(Self { issuer, root })
    }

    /// Makes an authority in memory. With `serial` the root is the same each time for the same key, if the key signs
    /// deterministically.
    pub(crate) fn make(
        key: rcgen::KeyPair,
        name: &str,
        not_before: Timestamp,
        not_after: Timestamp,
        serial: Option<Vec<u8>>,
    ) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let serial = match serial {
            Some(serial) => serial,
            None => new_serial()?,
        };
        params.serial_number = Some(SerialNumber::from(serial));
        set_validity(&mut params, not_before, not_after);
        let root = params
            .self_signed(&key)
            .map_err(AuthorityError::Sign)?
            .der()
            .clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            root,
        })
    }

    /// An authority that lives in memory only, for tests and short-lived uses.
    pub fn in_memory(name: &str, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate(KeyAlgorithm::EcP256).map_err(AuthorityError::Key)?;
        Self::make(key.0, name, now - BACKDATED, now + ROOT_VALIDITY, None)
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The root certificate as PEM.
    pub fn root_pem(&self) -> String {
        certificates_to_pem([&self.root])
    }

    /// The fingerprint of the root.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.root)
    }

    /// The root as what peers trust.
    pub fn roots(&self) -> Roots {
        Roots::from_ders([self.root.clone()]).unwrap_or_default()
    }

    /// Issues a certificate for the key of a certificate request (PEM). The request must be signed by that key; DNS names
    /// and addresses it asks for are taken over for servers inside a Unit (`iam`, `cm`), everything else comes from `profile`.
    pub fn issue(
        &self,
        request_pem: &str,
        profile: &CertProfile,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        let request = read_request(request_pem)?;
        let mut profile = profile.clone();
        if matches!(profile.kind, CertKind::Iam | CertKind::Cm) {
            profile.names.extend(request.names);
        }
        self.sign(
            &request.key,
            &profile,
            now - BACKDATED,
            now + profile.validity,
        )
    }

    /// Makes a key and a certificate for it.
    pub fn issue_pair(
        &self,
        algorithm: KeyAlgorithm,
        profile: &CertProfile,
        now: Timestamp,
    ) -> Result<IssuedPair, AuthorityError> {
        let key = KeyPair::generate(algorithm).map_err(AuthorityError::Key)?;
        let issued = self.sign(&key.0, profile, now - BACKDATED, now + profile.validity)?;
        Ok(IssuedPair { issued, key })
    }

    pub(crate) fn sign(
        &self,
        key: &impl PublicKeyData,
        profile: &CertProfile,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        let serial = new_serial()?;
        let mut params = params_of(profile)?;
        params.serial_number = Some(SerialNumber::from(serial.clone()));
        set_validity(&mut params, not_before, not_after);
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(AuthorityError::Sign)?
            .der()
            .clone();
        Ok(Issued {
            chain_pem: certificates_to_pem([&certificate, &self.root]),
            serial: hex::encode(serial),
            fingerprint: Fingerprint::of(&certificate),
            not_before,
            not_after,
            certificate,
        })
    }
}

fn params_of(profile: &CertProfile) -> Result<CertificateParams, AuthorityError> {
    let refuse = |field, value: &str| AuthorityError::Profile {
        field,
        value: value.chars().take(80).collect(),
    };
    let mut names = profile.names.clone();
    names.sort();
    names.dedup();
    let mut params = CertificateParams::default();
    for name in names {
        let name_params =
            CertificateParams::new(vec![name.clone()]).map_err(|_| refuse("name", &name))?;
        params
            .subject_alt_names
            .extend(name_params.subject_alt_names);
    }
    for urn in urns(profile) {
        let uri = urn
            .clone()
            .try_into()
            .map_err(|_| refuse("identity", &urn))?;
        params.subject_alt_names.push(SanType::URI(uri));
    }
    params.distinguished_name = common_name(&profile.common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if profile.kind == CertKind::Offline {
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    if profile.kind.serves() {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if profile.kind.calls() {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    if let Some(bad) = profile
        .discovery_urls
        .iter()
        .find(|url| !url.is_ascii() || url.is_empty() || url.len() > 2048)
    {
        return Err(refuse("discovery url", bad));
    }
    if !profile.discovery_urls.is_empty() {
        // Issuer alternative name, RFC 5280 4.2.1.7.
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(
                &[2, 5, 29, 18],
                der::uri_names(&profile.discovery_urls),
            ));
    }
    Ok(params)
}

struct Request {
    key: SubjectPublicKeyInfo,
    names: Vec<String>,
}

fn read_request(pem: &str) -> Result<Request, AuthorityError> {
    let refuse = |why: String| AuthorityError::Request { why };
    if pem.len() > MAX_REQUEST {
        return Err(refuse(format!("it is longer than {MAX_REQUEST} bytes")));
    }
    let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| refuse("a PEM block `CERTIFICATE REQUEST` is wanted".into()))?;
    let (rest, request) = X509CertificationRequest::from_der(&der)
        .map_err(|error| refuse(format!("it cannot be read ({error})")))?;
    if !rest.is_empty() {
        return Err(refuse("bytes follow it".into()));
    }
    request
        .verify_signature()
        .map_err(|_| refuse("its signature is not by its own key".into()))?;
    let info = &request.certification_request_info;
    let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
        .map_err(|_| refuse("its key is neither RSA nor ECDSA on a known curve".into()))?;
    check_strength(&info.subject_pki).map_err(refuse)?;
    let names = request
        .requested_extensions()
        .into_iter()
        .flatten()
        .filter_map(|extension| match extension {
            x509_parser::extensions::ParsedExtension::SubjectAlternativeName(san) => Some(san),
            _ => None,
        })
        .flat_map(|san| &san.general_names)
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            x509_parser::extensions::GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .take(16)
        .collect();
    Ok(Request { key, names })
}

fn check_strength(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<(), String> {
    match key.parsed() {
        Ok(x509_parser::public_key::PublicKey::RSA(rsa)) if rsa.key_size() < 2048 => Err(format!(
            "its RSA key has {} bits, at least 2048 are wanted",
            rsa.key_size()
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("its key cannot be read ({error})")),
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(sixteen).to_string())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    // RFC 5280 bounds a common name to 64 characters.
    names.push(
        DnType::CommonName,
        name.chars().take(64).collect::<String>(),
    );
    names
}

/// Sixteen random bytes, positive and without a leading zero, as DER integers want them.
fn new_serial() -> Result<Vec<u8>, AuthorityError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial)
        .map_err(|_| AuthorityError::Sign(rcgen::Error::RemoteKeyError))?;
    serial[0] = (serial[0] & 0x3f) | 0x40;
    Ok(serial.to_vec())
}

fn set_validity(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let date = |time: Timestamp| {
        let secs = u64::try_from(time.as_secs()).unwrap_or(0);
        // The year 9999 is the last that X.509 can write.
        date_time_ymd(1970, 1, 1) + Duration::from_secs(secs.min(253_402_300_799))
    };
    params.not_before = date(not_before);
    params.not_after = date(not_after);
}
