//! How the first user is made: a link in a file that only the owner of the machine can read, good once.

use std::{fs, io, path::Path};

use aos_db::{Db, hash_secret};
use aos_pki::{read_bounded, write_private};
use rand::RngCore as _;

use crate::Error;

const FILE: &str = "owner-link.txt";

/// Writes the link if nobody can sign in yet, takes the file away if somebody can. A link that is still good stays.
pub(crate) async fn keep(db: &Db, data: &Path, base_url: &str) -> Result<(), Error> {
    let path = data.join(FILE);
    let file = |source| Error::File {
        path: path.clone(),
        source,
    };
    if db.has_users().await? {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(error)),
            _ => Ok(()),
        };
    }
    let token = match read_bounded(&path, 4096) {
        Ok(text) => String::from_utf8_lossy(&text)
            .split_once("#token=")
            .map(|(_, token)| token.trim().to_owned()),
        Err(_) => None,
    };
    let token = match token {
        Some(token) if db.owner_token_is_open(&hash_secret(&token)).await? => token,
        _ => {
            let mut bytes = [0; 32];
            rand::rng().fill_bytes(&mut bytes);
            let token = hex::encode(bytes);
            db.put_owner_token(&hash_secret(&token)).await?;
            token
        }
    };
    let text = format!("{base_url}/welcome#token={token}\n");
    write_private(&path, text.as_bytes()).map_err(file)?;
    tracing::info!(file = %path.display(), "nobody can sign in yet: open the link in this file");
    Ok(())
}
