use std::time::Duration;

use aos_api::Organisation;
use aos_time::Timestamp;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{Actor, Db, DbError, columns::Columns, error::Doing};

/// How long a session lives without being used.
pub const SESSION_IDLE: Duration = Duration::from_secs(12 * 3600);
/// How long a session lives at most.
pub const SESSION_LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A user as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Id.
    pub id: Uuid,
    /// Its organisation.
    pub tenant: Organisation,
    /// Name.
    pub username: String,
    /// E-mail address; may be empty.
    pub email: String,
    /// `oem`.
    pub role: String,
}

impl User {
    /// The user as the one who does something.
    pub fn actor(&self) -> Actor {
        Actor::user(self.tenant.id, self.id, &self.username)
    }

    fn from_row(row: &AnyRow) -> Result<Self, DbError> {
        Ok(Self {
            id: row.uuid("id")?,
            tenant: Organisation {
                id: row.uuid("tenant_id")?,
                title: row.text("tenant_title")?,
            },
            username: row.text("username")?,
            email: row.text("email")?,
            role: row.text("role")?,
        })
    }
}

/// The statement that reads users, with what follows `FROM`.
macro_rules! users {
    ($rest:literal) => {
        sqlx::query(concat!(
            "SELECT users.id, users.tenant_id, tenants.title AS tenant_title, users.username, users.email, users.role,
             users.password_hash FROM users JOIN tenants ON tenants.id = users.tenant_id ",
            $rest
        ))
    };
}

impl Db {
    /// Whether anybody can sign in yet.
    pub async fn has_users(&self) -> Result<bool, DbError> {
        let count = sqlx::query("SELECT COUNT(*) AS total FROM users")
            .fetch_one(self.readers())
            .await
            .doing("count the users")?
            .count("total")?;
        Ok(count > 0)
    }

    /// Replaces the owner token, stored hashed. Refused once there is a user.
    pub async fn put_owner_token(&self, token_hash: &str) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM owner_tokens WHERE used_at IS NULL")
            .execute(tx.on())
            .await
            .doing("drop the old owner token")?;
        let now = tx.now.as_micros();
        sqlx::query("INSERT INTO owner_tokens (token_hash, created_at) SELECT $1, $2 WHERE NOT EXISTS (SELECT 1 FROM users)")
            .bind(token_hash.to_owned())
            .bind(now)
            .execute(tx.on())
            .await
            .doing("store the owner token")?;
        tx.commit().await
    }

    /// Whether this owner token is still good.
    pub async fn owner_token_is_open(&self, token_hash: &str) -> Result<bool, DbError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS total FROM owner_tokens WHERE token_hash = $1 AND used_at IS NULL",
        )
        .bind(token_hash.to_owned())
        .fetch_one(self.readers())
        .await
        .doing("look up the owner token")?;
        Ok(row.count("total")? == 1)
    }

    /// Spends the owner token and makes the organisation (if there is none) and its first user. Nothing if the token is
    /// not good.
    pub async fn set_up_owner(
        &self,
        token_hash: &str,
        organisation: &str,
        username: &str,
        password_hash: &str,
    ) -> Result<Option<User>, DbError> {
        let mut tx = self.begin().await?;
        let now = tx.now.as_micros();
        let spent = sqlx::query(
            "UPDATE owner_tokens SET used_at = $2 WHERE token_hash = $1 AND used_at IS NULL",
        )
        .bind(token_hash.to_owned())
        .bind(now)
        .execute(tx.on())
        .await
        .doing("spend the owner token")?
        .rows_affected();
        if spent != 1 {
            return Ok(None);
        }
        let known = sqlx::query("SELECT id, title FROM tenants ORDER BY created_at LIMIT 1")
            .fetch_optional(tx.on())
            .await
            .doing("look for an organisation")?;
        let tenant = match known {
            Some(row) => Organisation {
                id: row.uuid("id")?,
                title: row.text("title")?,
            },
            None => {
                let tenant = Organisation {
                    id: Uuid::now_v7(),
                    title: organisation.to_owned(),
                };
                sqlx::query("INSERT INTO tenants (id, title, created_at) VALUES ($1, $2, $3)")
                    .bind(tenant.id.to_string())
                    .bind(tenant.title.clone())
                    .bind(now)
                    .execute(tx.on())
                    .await
                    .doing("make the organisation")?;
                tenant
            }
        };
        let user = User {
            id: Uuid::now_v7(),
            tenant,
            username: username.to_owned(),
            email: String::new(),
            role: "oem".into(),
        };
        sqlx::query(
            "INSERT INTO users (id, tenant_id, username, email, role, password_hash, created_at)
             VALUES ($1, $2, $3, '', $4, $5, $6)",
        )
        .bind(user.id.to_string())
        .bind(user.tenant.id.to_string())
        .bind(user.username.clone())
        .bind(user.role.clone())
        .bind(password_hash.to_owned())
        .bind(now)
        .execute(tx.on())
        .await
        .doing("make the owner")?;
        tx.audit(
            &user.actor(),
            "owner.set_up",
            format!("user:{}", user.id),
            "",
        )
        .await?;
        tx.commit().await?;
        Ok(Some(user))
    }

    /// A user and the hash of its password, by name.
    pub async fn user_by_name(&self, username: &str) -> Result<Option<(User, String)>, DbError> {
        users!("WHERE users.username = $1")
            .bind(username.to_owned())
            .fetch_optional(self.readers())
            .await
            .doing("look up a user")?
            .map(|row| Ok((User::from_row(&row)?, row.text("password_hash")?)))
            .transpose()
    }

    /// Begins a session of `user` under the hash of its token.
    pub async fn begin_session(&self, user: &User, token_hash: &str) -> Result<Timestamp, DbError> {
        let mut tx = self.begin().await?;
        let now = tx.now;
        let idle_until = now + SESSION_IDLE;
        sqlx::query("DELETE FROM sessions WHERE idle_until < $1 OR ends_at < $1")
            .bind(now.as_micros())
            .execute(tx.on())
            .await
            .doing("drop ended sessions")?;
        sqlx::query(
            "INSERT INTO sessions (token_hash, user_id, created_at, idle_until, ends_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(token_hash.to_owned())
        .bind(user.id.to_string())
        .bind(now.as_micros())
        .bind(idle_until.as_micros())
        .bind((now + SESSION_LONGEST).as_micros())
        .execute(tx.on())
        .await
        .doing("begin a session")?;
        tx.audit(
            &user.actor(),
            "session.begin",
            format!("user:{}", user.id),
            "",
        )
        .await?;
        tx.commit().await?;
        Ok(idle_until)
    }

    /// The user of a session that has not ended. Using it prolongs it, written at most every hour.
    pub async fn user_of_session(&self, token_hash: &str) -> Result<Option<User>, DbError> {
        let now = self.now();
        let Some(row) = sqlx::query(
            "SELECT users.id, users.tenant_id, tenants.title AS tenant_title, users.username, users.email, users.role,
             sessions.idle_until FROM sessions JOIN users ON users.id = sessions.user_id
             JOIN tenants ON tenants.id = users.tenant_id
             WHERE sessions.token_hash = $1 AND sessions.idle_until > $2 AND sessions.ends_at > $2",
        )
        .bind(token_hash.to_owned())
        .bind(now.as_micros())
        .fetch_optional(self.readers())
        .await
        .doing("look up a session")?
        else {
            return Ok(None);
        };
        let longer = now + SESSION_IDLE;
        if longer.since(row.time("idle_until")?) > Duration::from_secs(3600) {
            let mut tx = self.begin().await?;
            sqlx::query("UPDATE sessions SET idle_until = $2 WHERE token_hash = $1")
                .bind(token_hash.to_owned())
                .bind(longer.as_micros())
                .execute(tx.on())
                .await
                .doing("prolong a session")?;
            tx.commit().await?;
        }
        User::from_row(&row).map(Some)
    }

    /// Ends a session.
    pub async fn end_session(&self, token_hash: &str) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE token_hash = $1")
            .bind(token_hash.to_owned())
            .execute(tx.on())
            .await
            .doing("end a session")?;
        tx.commit().await
    }

    /// Remembers a certificate issued to the acting user. `fingerprint` is the SHA-256 of its DER in hex, `chain` is PEM.
    pub async fn add_user_certificate(
        &self,
        actor: &Actor,
        fingerprint: &str,
        serial: &str,
        chain: &str,
        not_after: Timestamp,
    ) -> Result<(), DbError> {
        let user = actor
            .user_id()
            .ok_or_else(|| DbError::invalid("user", "only users get user certificates"))?;
        let mut tx = self.begin().await?;
        let now = tx.now.as_micros();
        sqlx::query(
            "INSERT INTO user_certificates (fingerprint, user_id, serial, chain, not_after, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(fingerprint.to_owned())
        .bind(user.to_string())
        .bind(serial.to_owned())
        .bind(chain.to_owned())
        .bind(not_after.as_micros())
        .bind(now)
        .execute(tx.on())
        .await
        .doing("store a user certificate")?;
        tx.audit(
            actor,
            "user_certificate.issue",
            format!("user:{user}"),
            format!("serial {serial}"),
        )
        .await?;
        tx.commit().await
    }

    /// The user whom we issued this certificate to. `fingerprint` is the SHA-256 of its DER in hex.
    pub async fn user_of_certificate(&self, fingerprint: &str) -> Result<Option<User>, DbError> {
        users!(
            "JOIN user_certificates ON user_certificates.user_id = users.id
             WHERE user_certificates.fingerprint = $1 AND user_certificates.not_after > $2"
        )
        .bind(fingerprint.to_ascii_lowercase())
        .bind(self.now().as_micros())
        .fetch_optional(self.readers())
        .await
        .doing("look up a user certificate")?
        .map(|row| User::from_row(&row))
        .transpose()
    }

    /// The certificates of the users of the actor's organisation that have not expired: serial in hex and chain in PEM.
    /// Bundle signatures of some tools only name theirs.
    pub async fn signer_certificates(
        &self,
        actor: &Actor,
    ) -> Result<Vec<(String, String)>, DbError> {
        sqlx::query(
            "SELECT user_certificates.serial, user_certificates.chain FROM user_certificates
             JOIN users ON users.id = user_certificates.user_id
             WHERE users.tenant_id = $1 AND user_certificates.not_after > $2",
        )
        .bind(actor.tenant_text())
        .bind(self.now().as_micros())
        .fetch_all(self.readers())
        .await
        .doing("read user certificates")?
        .iter()
        .map(|row| Ok((row.text("serial")?, row.text("chain")?)))
        .collect()
    }
}
