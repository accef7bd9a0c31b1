use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tokio::sync::Semaphore;

/// Hashes that may be computed at once: each takes 19 MiB.
const AT_ONCE: usize = 2;

/// Hashes passwords with Argon2id: 19 MiB, two passes, one lane (OWASP's password storage cheat sheet).
pub(crate) struct Passwords {
    turns: Semaphore,
    /// What is compared with when there is no such user, so that it takes as long.
    nobody: String,
}

/// A password could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The hash function refused.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
    /// The task was cancelled: the program ends.
    #[error("hashing was cut off")]
    CutOff,
}

impl Passwords {
    pub(crate) fn new() -> Result<Self, PasswordError> {
        Ok(Self {
            turns: Semaphore::new(AT_ONCE),
            nobody: hash("nobody has this password")?,
        })
    }

    pub(crate) async fn hash(&self, password: String) -> Result<String, PasswordError> {
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|_| PasswordError::CutOff)?;
        tokio::task::spawn_blocking(move || hash(&password))
            .await
            .map_err(|_| PasswordError::CutOff)?
    }

    /// Whether the password is the one of `stored`; with none it takes as long and is false.
    pub(crate) async fn is_right(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|_| PasswordError::CutOff)?;
        let known = stored.is_some();
        let against = stored.unwrap_or_else(|| self.nobody.clone());
        tokio::task::spawn_blocking(move || {
            let parsed = PasswordHash::new(&against)
                .map_err(|error| PasswordError::Hash(error.to_string()))?;
            let same = hasher()?
                .verify_password(password.as_bytes(), &parsed)
                .is_ok();
            Ok(same && known)
        })
        .await
        .map_err(|_| PasswordError::CutOff)?
    }
}

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(19 * 1024, 2, 1, None)
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> Result<String, PasswordError> {
    let hash: PasswordHash = hasher()?
        .hash_password(password.as_bytes())
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_passes() {
        let passwords = Passwords::new().unwrap();
        let stored = passwords.hash("correct horse".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(
            passwords
                .is_right("correct horse".into(), Some(stored.clone()))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .is_right("wrong horse".into(), Some(stored))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .is_right("nobody has this password".into(), None)
                .await
                .unwrap()
        );
    }
}
