//! Who this user is to which cloud: `$AOS_HOME`, by default `~/.config/aos`.
//!
//! `cloud.toml` says where the cloud is, `ca.pem` whom to trust as the cloud, `user.key` and
//! `user.pem` who we are. The folder is 0700 and the files 0600.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, OrFail as _};

/// `cloud.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cloud {
    /// Where the people's listener is, such as `https://cloud.example:10000`.
    pub url: String,
    /// The user's name.
    pub user: String,
}

/// The folder and what is in it.
#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
}

impl Home {
    /// `$AOS_HOME`, else `$XDG_CONFIG_HOME/aos`, else `~/.config/aos`.
    pub fn find() -> Result<Self, Failure> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = if let Some(folder) = variable("AOS_HOME") {
            PathBuf::from(folder)
        } else if let Some(folder) = variable("XDG_CONFIG_HOME") {
            PathBuf::from(folder).join("aos")
        } else if let Some(folder) = variable("HOME") {
            PathBuf::from(folder).join(".config").join("aos")
        } else {
            return Err(Failure::new("cannot tell where credentials are kept")
                .why("neither AOS_HOME nor HOME is set")
                .hint("set AOS_HOME to a folder of yours"));
        };
        Ok(Self { folder })
    }

    /// A home in a given folder.
    #[cfg(test)]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The user's private key (PEM).
    pub fn key_file(&self) -> PathBuf {
        self.path("user.key")
    }

    /// The user's certificate chain (PEM).
    pub fn certificate_file(&self) -> PathBuf {
        self.path("user.pem")
    }

    /// The root certificate of the cloud (PEM).
    pub fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Where the user is signed in.
    pub fn cloud(&self) -> Result<Cloud, Failure> {
        let path = self.path("cloud.toml");
        let text = fs::read_to_string(&path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                Failure::new("you are not signed in to a cloud")
                    .why(format!("{} does not exist", path.display()))
                    .hint("sign in: `aos login https://<host>:10000 --user <name>`")
                    .exit(Exit::NotAllowed)
            } else {
                Failure::because(format!("cannot read {}", path.display()), &error)
            }
        })?;
        toml::from_str(&text)
            .or_fail(|| format!("{} is not what this program wrote", path.display()))
            .map_err(|failure| failure.hint("sign in again: `aos login …`"))
    }

    /// A file of this home as text.
    pub fn read(&self, path: &Path) -> Result<String, Failure> {
        fs::read_to_string(path)
            .or_fail(|| format!("cannot read {}", path.display()))
            .map_err(|failure| {
                failure
                    .hint("sign in again: `aos login …`")
                    .exit(Exit::NotAllowed)
            })
    }

    /// Keeps a sign-in. `cloud.toml` comes last: without it nobody is signed in.
    pub fn keep(&self, cloud: &Cloud, ca: &str, key: &str, chain: &str) -> Result<(), Failure> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .or_fail(|| format!("cannot make the folder {}", self.folder.display()))?;
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700)).or_fail(|| {
            format!(
                "cannot close the folder {} to others",
                self.folder.display()
            )
        })?;
        let text = toml::to_string(cloud).or_fail(|| "cannot write down the cloud")?;
        self.write(&self.ca_file(), ca)?;
        self.write(&self.key_file(), key)?;
        self.write(&self.certificate_file(), chain)?;
        self.write(&self.path("cloud.toml"), &text)
    }

    /// Forgets a sign-in. Says whether there was one.
    pub fn forget(&self) -> Result<bool, Failure> {
        let mut was = false;
        for name in ["cloud.toml", "user.key", "user.pem", "ca.pem"] {
            let path = self.path(name);
            match fs::remove_file(&path) {
                Ok(()) => was = true,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Failure::because(
                        format!("cannot remove {}", path.display()),
                        &error,
                    ));
                }
            }
        }
        Ok(was)
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Failure> {
        let what = || format!("cannot write {}", path.display());
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .or_fail(what)?;
        file.write_all(text.as_bytes()).or_fail(what)?;
        file.sync_all().or_fail(what)?;
        fs::rename(&fresh, path).or_fail(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_is_kept_closed_to_others_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("aos"));
        let failure = home.cloud().unwrap_err();
        assert!(failure.to_string().contains("aos login"), "{failure}");
        assert_eq!(failure.code(), Exit::NotAllowed);

        let cloud = Cloud {
            url: "https://localhost:10000".into(),
            user: "anna".into(),
        };
        home.keep(&cloud, "ca", "key", "chain").unwrap();
        assert_eq!(home.cloud().unwrap(), cloud);
        assert_eq!(home.read(&home.key_file()).unwrap(), "key");
        for name in ["", "cloud.toml", "user.key", "user.pem", "ca.pem"] {
            let mode = fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if name.is_empty() { 0o700 } else { 0o600 }, "{name}");
        }
        // Signing in again replaces what was there.
        home.keep(&cloud, "ca2", "key2", "chain2").unwrap();
        assert_eq!(home.read(&home.ca_file()).unwrap(), "ca2");
        assert!(home.forget().unwrap());
        assert!(!home.forget().unwrap());
    }
}
