use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use aos_image::{
    graph::Compression,
    unpack::{self, Flavour, Limits, extract},
};
use aos_pki::{
    CertKind, ChainError, IdentityError, JwtError, PeerIdentity, Roots, read_jwt_header,
    same_serial, verify_jwt,
};
use aos_time::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::{
    BATCH, CONFIG, Config, Problems, SIGNATURE,
    check::{files, read_config},
    sign::{Claims, hash},
};

/// What a bundle may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Bytes of the uploaded file.
    pub bundle: u64,
    /// Bytes of all files inside.
    pub unpacked: u64,
    /// Files, folders and links inside.
    pub entries: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            bundle: 4 << 30,
            unpacked: 16 << 30,
            entries: 200_000,
        }
    }
}

/// A signer's certificate with what is needed to trust it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerCertificate {
    /// The certificate, then its intermediates.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Finds the certificates that the cloud issued to people, for bundles that only name theirs.
pub trait SignerBook {
    /// The certificate with this serial number (hex). `None` if it is not known or no longer valid.
    fn certificate(&self, serial: &str) -> Option<SignerCertificate>;
}

impl<F: Fn(&str) -> Option<SignerCertificate>> SignerBook for F {
    fn certificate(&self, serial: &str) -> Option<SignerCertificate> {
        self(serial)
    }
}

/// Why a bundle is refused. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Too many bytes.
    #[error("the bundle is longer than the allowed {cap} bytes")]
    TooLong {
        /// Allowed.
        cap: u64,
    },
    /// An archive is damaged, hostile or too large.
    #[error("the {which} of the bundle cannot be unpacked")]
    Archive {
        /// The outer archive, or the one with the files.
        which: &'static str,
        /// Why.
        #[source]
        source: unpack::Error,
    },
    /// A file is missing.
    #[error("the bundle has no {name}: sign it with `aos bundle sign`")]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// A file too many.
    #[error("the bundle holds `{name}`, which does not belong into it")]
    Unexpected {
        /// Which.
        name: String,
    },
    /// The signature is malformed or wrong.
    #[error("the signature of the bundle is refused")]
    Signature(#[source] JwtError),
    /// The signer's certificate is not known.
    #[error("the bundle is signed with a certificate this cloud does not know{}: sign it with a certificate of this cloud", serial.as_ref().map_or(String::new(), |s| format!(" (serial {s})")))]
    UnknownSigner {
        /// Its serial number, if the signature names one.
        serial: Option<String>,
    },
    /// The signature names another certificate than it carries.
    #[error("the signature names certificate {named} but carries {carried}")]
    SignerDiffers {
        /// By `kid`.
        named: String,
        /// By `x5c`.
        carried: String,
    },
    /// The signer's certificate is from another authority, or no longer valid.
    #[error("the certificate of the bundle's signer is not trusted")]
    Untrusted(#[source] ChainError),
    /// The signer's certificate cannot be read.
    #[error("the certificate of the bundle's signer is unreadable")]
    Identity(#[source] IdentityError),
    /// The signer is not a person.
    #[error(
        "the bundle is signed with a certificate of type `{kind}`; only a person's (`user`) will do"
    )]
    NotAPerson {
        /// What it is.
        kind: CertKind,
    },
    /// A file is not what was signed.
    #[error("{name} is not the one that was signed: {why}")]
    Tampered {
        /// Which.
        name: &'static str,
        /// What differs.
        why: String,
    },
    /// The configuration inside differs from the one outside.
    #[error("the two copies of config.yaml differ: sign the bundle again")]
    ConfigDiffers,
    /// The configuration or the files are not right.
    #[error("the bundle has errors:\n{0}")]
    Config(Problems),
    /// The disk failed.
    #[error("could not {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A bundle that was verified. Its files go when it is dropped.
#[derive(Debug)]
pub struct Opened {
    /// What it says.
    pub config: Config,
    /// What is probably not meant.
    pub warnings: Problems,
    /// Who signed it.
    pub signer: PeerIdentity,
    /// Bytes of the uploaded file.
    pub size: u64,
    folder: tempfile::TempDir,
}

impl Opened {
    /// The folder with the items' files.
    pub(crate) fn files(&self) -> PathBuf {
        self.folder.path().join(FILES)
    }
}

const FILES: &str = "files";

/// Takes a signed bundle apart in a fresh folder under `scratch`, checking everything on the way: size, form, signature,
/// signer, hashes, configuration, files. `stop` ends it early.
pub fn open(
    bundle: impl Read,
    caps: &Caps,
    roots: &Roots,
    signers: &dyn SignerBook,
    now: Timestamp,
    scratch: &Path,
    stop: &CancellationToken,
) -> Result<Opened, OpenError> {
    let folder = tempfile::Builder::new()
        .prefix("bundle-")
        .tempdir_in(scratch)
        .map_err(io_error("make a folder in", scratch))?;
    let outer = folder.path().join("outer");
    let size = unpack_outer(bundle, caps, &outer, stop)?;
    let batch = outer.join(BATCH);
    let config = outer.join(CONFIG);

    let token = read_text(&outer.join(SIGNATURE), 8 << 20)?;
    let (signer, claims) = verify(&token, roots, signers, now)?;
    for (name, path) in [(BATCH, &batch), (CONFIG, &config)] {
        compare(name, path, &claims)?;
    }

    let text = read_text(&config, MAX_TEXT)?;
    let files_folder = folder.path().join(FILES);
    make_folder(&files_folder)?;
    let packed = fs::File::open(&batch).map_err(io_error("open", &batch))?;
    let limits = Limits {
        entries: caps.entries,
        bytes: caps.unpacked,
        ..Limits::default()
    };
    extract(
        packed,
        Compression::Gzip,
        &files_folder,
        Flavour::Files,
        &limits,
        stop,
    )
    .map_err(|source| OpenError::Archive {
        which: "archive of files",
        source,
    })?;
    // The packed form is not needed any more, and may be large.
    fs::remove_file(&batch).map_err(io_error("remove", &batch))?;
    let inner = read_config(&files_folder.join(CONFIG)).map_err(|_| OpenError::Missing {
        name: "config.yaml beside the files",
    })?;
    if inner != text {
        return Err(OpenError::ConfigDiffers);
    }
    let (config, notes) = Config::read(&text).map_err(OpenError::Config)?;
    if let Some(config) = &config {
        files(&files_folder, config, &notes);
    }
    let problems = notes.take();
    match config {
        Some(config) if !problems.has_errors() => Ok(Opened {
            config,
            warnings: problems,
            signer,
            size,
            folder,
        }),
        _ => Err(OpenError::Config(problems)),
    }
}

const MAX_TEXT: u64 = crate::config::MAX_CONFIG as u64;

/// Unpacks the outer archive: exactly three files. Gives its packed size.
fn unpack_outer(
    bundle: impl Read,
    caps: &Caps,
    outer: &Path,
    stop: &CancellationToken,
) -> Result<u64, OpenError> {
    make_folder(outer)?;
    let mut counted = Counted {
        inner: bundle,
        count: 0,
        cap: caps.bundle,
    };
    let limits = Limits {
        entries: 16,
        // The batch inside is packed already: unpacking the outer archive hardly makes it longer.
        bytes: caps.bundle.saturating_add(1 << 20),
        depth: 1,
        ..Limits::default()
    };
    let extracted = extract(
        &mut counted,
        Compression::Gzip,
        outer,
        Flavour::Files,
        &limits,
        stop,
    );
    if counted.count > caps.bundle {
        return Err(OpenError::TooLong { cap: caps.bundle });
    }
    extracted.map_err(|source| OpenError::Archive {
        which: "outer archive",
        source,
    })?;
    for entry in fs::read_dir(outer).map_err(io_error("list", outer))? {
        let entry = entry.map_err(io_error("list", outer))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || ![BATCH, CONFIG, SIGNATURE].contains(&name.as_str()) {
            return Err(OpenError::Unexpected {
                name: name.chars().take(100).collect(),
            });
        }
    }
    for name in [SIGNATURE, CONFIG, BATCH] {
        if !outer.join(name).is_file() {
            return Err(OpenError::Missing { name });
        }
    }
    Ok(counted.count)
}

/// Finds the signer, checks who that is, and only then the signature.
fn verify(
    token: &str,
    roots: &Roots,
    signers: &dyn SignerBook,
    now: Timestamp,
) -> Result<(PeerIdentity, Claims), OpenError> {
    let header = read_jwt_header(token).map_err(OpenError::Signature)?;
    let named = header.serial();
    let known = named
        .as_deref()
        .and_then(|serial| signers.certificate(serial))
        .map(|signer| signer.chain);
    let chain = match known {
        Some(chain) => chain,
        None => header.chain(),
    };
    let Some(leaf) = chain.first() else {
        return Err(OpenError::UnknownSigner { serial: named });
    };
    roots
        .verify_chain(&chain, now)
        .map_err(OpenError::Untrusted)?;
    let signer = PeerIdentity::from_der(leaf).map_err(OpenError::Identity)?;
    if let Some(named) = named.filter(|named| !same_serial(named, &signer.serial)) {
        return Err(OpenError::SignerDiffers {
            named,
            carried: signer.serial,
        });
    }
    if signer.kind != CertKind::User {
        return Err(OpenError::NotAPerson { kind: signer.kind });
    }
    let claims = verify_jwt(token, leaf).map_err(OpenError::Signature)?;
    Ok((signer, claims))
}

/// Compares a file with what was signed.
fn compare(name: &'static str, path: &Path, claims: &Claims) -> Result<(), OpenError> {
    let tampered = |why: String| OpenError::Tampered { name, why };
    let mut said = claims.data.iter().filter(|claim| claim.name == name);
    let claim = said
        .next()
        .ok_or_else(|| tampered("the signature does not speak of it".into()))?;
    if said.next().is_some() {
        return Err(tampered("the signature speaks of it twice".into()));
    }
    let (found, size) = hash(path).map_err(io_error("read", path))?;
    if size != claim.size {
        return Err(tampered(format!(
            "it has {size} bytes, {} were signed",
            claim.size
        )));
    }
    if !found.eq_ignore_ascii_case(&claim.hash) {
        return Err(tampered("its SHA3-512 is another one".into()));
    }
    Ok(())
}

fn read_text(path: &Path, cap: u64) -> Result<String, OpenError> {
    let size = fs::metadata(path).map_err(io_error("look at", path))?.len();
    if size > cap {
        return Err(OpenError::TooLong { cap });
    }
    fs::read_to_string(path).map_err(io_error("read", path))
}

fn make_folder(path: &Path) -> Result<(), OpenError> {
    fs::create_dir(path).map_err(io_error("make the folder", path))
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Counts bytes and stops the reader one past the cap.
struct Counted<R> {
    inner: R,
    count: u64,
    cap: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.count > self.cap {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}
