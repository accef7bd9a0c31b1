//! `aos login`, `aos logout`, `aos whoami`: who this user is to the cloud.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use aos_api::{Me, OwnerSetup, Session, SignIn, UserCertificate, UserCertificateRequest, paths};
use aos_pki::{Fingerprint, KeyAlgorithm, KeyPair};
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use crate::client::Client;
use crate::failure::{Exit, Failure, OrFail as _};
use crate::home::{Cloud, Home};
use crate::table;
use crate::trust::{self, Trust};

/// Sign in to a cloud.
///
/// The password is asked for on the terminal. The cloud then signs a key that is made here, and
/// that certificate is what later commands and bundle signatures use.
#[derive(Args)]
pub struct Login {
    /// Address of the cloud, such as https://cloud.example:10000
    url: String,
    /// Your user name.
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Make the first user of a new cloud: the file `owner-link.txt` in its data folder.
    #[arg(long, value_name = "FILE")]
    owner_link: Option<PathBuf>,
    /// Read the password from the standard input instead of the terminal.
    #[arg(long)]
    password_stdin: bool,
    /// Trust the cloud by this root certificate (PEM).
    #[arg(long, value_name = "FILE", conflicts_with = "ca_fingerprint")]
    ca: Option<PathBuf>,
    /// Trust the cloud whose root certificate has this fingerprint: sha256:<64 hex digits>
    #[arg(long, value_name = "FINGERPRINT")]
    ca_fingerprint: Option<Fingerprint>,
}

/// Say who is signed in.
#[derive(Args)]
pub struct Whoami {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `aos login`.
pub async fn login(command: Login) -> Result<(), Failure> {
    let home = Home::find()?;
    let trust = chosen_trust(&command, &home).await?;
    let mut client = Client::new(&command.url, &trust, None)?;
    let token = command.owner_link.as_ref().map(owner_token).transpose()?;
    let password = password(&command)?;

    let (session, cookie): (Session, String) = match token {
        Some(token) => {
            let body = OwnerSetup {
                token: token.expose_secret().to_owned(),
                username: command.user.clone(),
                password: password.expose_secret().to_owned(),
            };
            client.post_for_session(paths::OWNER_SETUP, &body).await?
        }
        None => {
            let body = SignIn {
                username: command.user.clone(),
                password: password.expose_secret().to_owned(),
            };
            client.post_for_session(paths::SIGN_IN, &body).await?
        }
    };
    client.set_cookie(cookie);

    // RSA, because bundle signatures are RS256.
    let key = KeyPair::generate(KeyAlgorithm::Rsa2048).or_fail(|| "cannot make a key")?;
    let csr = key
        .request(&command.user, &[])
        .or_fail(|| "cannot make a signing request")?;
    let certificate: UserCertificate = client
        .post(paths::USER_CERTIFICATES, &UserCertificateRequest { csr })
        .await?;
    let root = client
        .root()
        .ok_or_else(|| Failure::new("the cloud showed no root certificate"))?;
    let cloud = Cloud {
        url: client.base().to_owned(),
        user: session.user.username.clone(),
    };
    home.keep(
        &cloud,
        &trust::pem(&root),
        &key.to_pem(),
        &certificate.certificate,
    )?;
    // The certificate is what counts from now on.
    client.post_empty(paths::SIGN_OUT).await?;

    table::say(format!(
        "signed in to {} as {}; the certificate is good until {}",
        cloud.url, cloud.user, certificate.not_after
    ));
    Ok(())
}

/// `aos logout`.
pub fn logout() -> Result<(), Failure> {
    table::say(if Home::find()?.forget()? {
        "signed out"
    } else {
        "nobody was signed in"
    });
    Ok(())
}

/// `aos whoami`.
pub async fn whoami(command: Whoami) -> Result<(), Failure> {
    let client = super::cloud()?;
    let me: Me = client.get(paths::ME).await?;
    if command.json {
        return table::json(&me);
    }
    table::say(format!("user          {}", me.username));
    table::say(format!("cloud         {}", client.base()));
    table::say(format!("organisation  {}", table::or_dash(&me.oem.title)));
    table::say(format!("role          {}", me.role));
    table::say(format!("signed in by  {}", me.signed_in_by));
    table::say(format!(
        "rights        {}",
        me.effective_permissions.join(", ")
    ));
    Ok(())
}

/// Whom to trust: what was said, what is kept from an earlier sign-in to the same address, or what
/// the person says about the fingerprint that the cloud shows.
async fn chosen_trust(command: &Login, home: &Home) -> Result<Trust, Failure> {
    if let Some(pin) = command.ca_fingerprint {
        return Ok(Trust::Pin(pin));
    }
    if let Some(file) = &command.ca {
        let text = std::fs::read_to_string(file)
            .or_fail(|| format!("cannot read the root certificate {}", file.display()))?;
        return Trust::pem(&text);
    }
    let url = command.url.trim_end_matches('/');
    if home.cloud().is_ok_and(|cloud| cloud.url == url)
        && let Ok(text) = home.read(&home.ca_file())
    {
        return Trust::pem(&text);
    }
    let client = Client::new(url, &Trust::Nobody, None)?;
    let failure = client.get::<serde_json::Value>(paths::ME).await.err();
    let Some(root) = client.root() else {
        return Err(failure.unwrap_or_else(|| Failure::new("the cloud showed no certificate")));
    };
    let print = Fingerprint::of(&root);
    let unknown = || {
        Failure::new(format!("{url} is not known here yet"))
            .why(format!(
                "its root certificate has the fingerprint sha256:{print}"
            ))
            .hint(
                "if that is the fingerprint `aos cloud serve` printed, say \
                 --ca-fingerprint <fingerprint>, or --ca <file> with the root certificate",
            )
            .exit(Exit::NotReachable)
    };
    if !std::io::stdin().is_terminal() || command.password_stdin {
        return Err(unknown());
    }
    table::say(format!(
        "{url} is not known here yet. Its root certificate has the fingerprint"
    ));
    table::say(format!("  sha256:{print}"));
    table::say("`aos cloud serve` prints the same when it starts. Trust it? [y/N]");
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .or_fail(|| "cannot read your answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(Trust::Pin(print))
    } else {
        Err(unknown())
    }
}

/// The token of the one-time link.
fn owner_token(file: &PathBuf) -> Result<SecretString, Failure> {
    let text = std::fs::read_to_string(file)
        .or_fail(|| format!("cannot read the owner link {}", file.display()))
        .map_err(|failure| {
            failure.hint(
                "the file is in the cloud's data folder and readable for its user only; \
                 it is gone once the first user exists: then sign in without --owner-link",
            )
        })?;
    text.split("#token=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .filter(|token| !token.is_empty())
        .map(|token| SecretString::from(token.to_owned()))
        .ok_or_else(|| {
            Failure::new(format!("{} is not an owner link", file.display()))
                .why("there is no `#token=` in it")
        })
}

fn password(command: &Login) -> Result<SecretString, Failure> {
    let text = if command.password_stdin {
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .or_fail(|| "cannot read the password")?;
        line.trim_end_matches(['\n', '\r']).to_owned()
    } else if std::io::stdin().is_terminal() {
        let what = if command.owner_link.is_some() {
            "New password"
        } else {
            "Password"
        };
        let first = rpassword::prompt_password(format!("{what} for {}: ", command.user))
            .or_fail(|| "cannot read the password")?;
        if command.owner_link.is_some() {
            let again =
                rpassword::prompt_password("Once more: ").or_fail(|| "cannot read the password")?;
            if again != first {
                return Err(Failure::new("the two passwords differ").hint("try again"));
            }
        }
        first
    } else {
        return Err(Failure::new("no password")
            .why("the standard input is not a terminal")
            .hint("give the password on the standard input and say --password-stdin"));
    };
    if text.is_empty() {
        return Err(Failure::new("the password is empty"));
    }
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_in_the_link() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("owner-link.txt");
        std::fs::write(&file, "https://h:10000/welcome#token=abc-123\n").unwrap();
        assert_eq!(owner_token(&file).unwrap().expose_secret(), "abc-123");
        std::fs::write(&file, "https://h:10000/welcome\n").unwrap();
        assert!(
            owner_token(&file)
                .unwrap_err()
                .to_string()
                .contains("#token=")
        );
        assert!(
            owner_token(&folder.path().join("no"))
                .unwrap_err()
                .to_string()
                .contains("once")
        );
    }
}
