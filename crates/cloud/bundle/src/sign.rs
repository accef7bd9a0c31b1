use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use aos_image::build;
use aos_pki::{JwtError, Signer};
use serde::{Deserialize, Serialize};
use sha3::{Digest as _, Sha3_512};

use crate::{BATCH, CONFIG, Config, Problems, SIGNATURE, check};

/// What `package.sign` claims.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub data: Vec<Claim>,
}

/// One file of a bundle.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub name: String,
    /// SHA3-512, hex.
    pub hash: String,
    pub size: u64,
}

/// Why a bundle was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The folder is not right.
    #[error("the bundle has errors:\n{0}")]
    Check(Problems),
    /// The files cannot be packed.
    #[error("the bundle cannot be packed")]
    Pack(#[source] build::Error),
    /// The signature cannot be made.
    #[error("the bundle cannot be signed")]
    Sign(#[source] JwtError),
    /// A file cannot be written or read.
    #[error("could not {action} {path}: check free space and permissions")]
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

/// A bundle that was signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// What is in it.
    pub config: Config,
    /// What is probably not meant.
    pub warnings: Problems,
}

/// Checks `folder`, packs it and signs it into `output`, which appears only when it is whole.
pub fn sign(folder: &Path, signer: &Signer, output: &Path) -> Result<Signed, SignError> {
    let checked = check(folder).map_err(SignError::Check)?;
    let scratch = parent(output);
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| SignError::Io {
            action,
            path,
            source,
        }
    };
    let work = tempfile::Builder::new()
        .prefix(".aos-bundle-")
        .tempdir_in(scratch)
        .map_err(io("make a folder in", scratch))?;

    // The copy that is signed is the text that was checked, not the file that may change meanwhile.
    let config = work.path().join(CONFIG);
    fs::write(&config, &checked.text).map_err(io("write", &config))?;
    let batch = work.path().join(BATCH);
    let mut sources = vec![(config.clone(), PathBuf::from(CONFIG))];
    sources.extend(checked.sources.iter().cloned());
    let file = File::create_new(&batch).map_err(io("create", &batch))?;
    build::pack(io::BufWriter::new(file), &sources).map_err(SignError::Pack)?;

    let claims = Claims {
        data: [(BATCH, &batch), (CONFIG, &config)]
            .into_iter()
            .map(|(name, path)| {
                let (hash, size) = hash(path).map_err(io("read", path))?;
                Ok(Claim {
                    name: name.to_owned(),
                    hash,
                    size,
                })
            })
            .collect::<Result<_, SignError>>()?,
    };
    let token = signer.sign_jwt(&claims).map_err(SignError::Sign)?;
    let signature = work.path().join(SIGNATURE);
    fs::write(&signature, token).map_err(io("write", &signature))?;

    let mut whole =
        tempfile::NamedTempFile::new_in(scratch).map_err(io("create a file in", scratch))?;
    let outer = [(batch, BATCH), (config, CONFIG), (signature, SIGNATURE)]
        .map(|(path, name)| (path, PathBuf::from(name)));
    build::pack(io::BufWriter::new(whole.as_file_mut()), &outer).map_err(SignError::Pack)?;
    whole.as_file().sync_all().map_err(io("flush", output))?;
    let size = whole
        .as_file()
        .metadata()
        .map_err(io("look at", output))?
        .len();
    whole
        .persist(output)
        .map_err(|e| io("write", output)(e.error))?;
    Ok(Signed {
        path: output.to_owned(),
        size,
        config: checked.config,
        warnings: checked.warnings,
    })
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// SHA3-512 in hex, and the size.
pub(crate) fn hash(path: &Path) -> io::Result<(String, u64)> {
    struct Hasher(Sha3_512);
    impl Write for Hasher {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = Hasher(Sha3_512::new());
    let size = io::copy(
        &mut io::BufReader::with_capacity(1 << 17, File::open(path)?).by_ref(),
        &mut hasher,
    )?;
    Ok((hex::encode(hasher.0.finalize()), size))
}
