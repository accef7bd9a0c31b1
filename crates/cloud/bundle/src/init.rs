use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{CONFIG, template};

/// Why a bundle folder was not made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is something already.
    #[error("{path} is there already: choose another folder, nothing was changed")]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("could not write {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes a bundle folder that can be signed as it is: a `config.yaml` that explains itself and a service of a few lines.
/// The files made are returned.
pub fn init(folder: &Path, codename: &str, architecture: &str) -> Result<Vec<PathBuf>, InitError> {
    let config = folder.join(CONFIG);
    if fs::symlink_metadata(&config).is_ok() {
        return Err(InitError::Exists { path: config });
    }
    let source = PathBuf::from(codename).join(architecture);
    let files = [
        (
            PathBuf::from(CONFIG),
            template::config(codename, architecture),
            0o644,
        ),
        (
            source.join("service.sh"),
            template::SERVICE.to_owned(),
            0o755,
        ),
    ];
    let mut made = Vec::new();
    for (name, text, mode) in files {
        let path = folder.join(name);
        let io = |source| InitError::Io {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let mut file = File::create_new(&path).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => InitError::Exists { path: path.clone() },
            _ => io(e),
        })?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
            .map_err(io)?;
        made.push(path);
    }
    Ok(made)
}
