use aos_api::{ChangeAction, ChangeTopic, TimelineKind, UnitModelRef, UnitStatus};
use aos_time::Timestamp;
use aos_types::SystemId;
use sqlx::AnyConnection;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening, NodeReport,
    columns::{Columns, to_json, to_word},
    error::Doing,
    store::Tx,
};
/// What a Unit asks to be registered with; its signing requests have been checked by the caller.
#[derive(Debug, Clone)]
pub struct Registration {
    /// What it calls itself.
    pub system_uid: SystemId,
    /// SHA-256 in hex of the public key of its `online` certificate: who it is.
    pub online_key: String,
    /// Its model as `name;version`; may be empty.
    pub unit_model: String,
    /// Its Nodes.
    pub nodes: Vec<NodeReport>,
}

/// A certificate issued to a Unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// SHA-256 of its DER in hex.
    pub fingerprint: String,
    /// `online`, `offline`, `iam`, `cm`, `sm`, `um`.
    pub cert_type: String,
    /// The Node that holds its key; may be empty.
    pub node_id: String,
    /// Serial in hex.
    pub serial: String,
    /// When it expires.
    pub not_after: Timestamp,
    /// Its public key (SubjectPublicKeyInfo, DER), if content may be encrypted for it.
    pub public_key: Option<Vec<u8>>,
}

/// By what right a Unit is registered.
#[derive(Debug, Clone)]
pub enum RegisterBy<'a> {
    /// A person's tool.
    Actor(&'a Actor),
    /// A claim code, hashed.
    ClaimCode(&'a str),
}

/// What registering gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Id of the Unit.
    pub unit: Uuid,
    /// Its name for people.
    pub title: String,
    /// Its model.
    pub unit_model: Option<UnitModelRef>,
}

/// What the claim code says, if one is used.
struct Claim {
    id: Uuid,
    tenant: Uuid,
    title: String,
    model: Option<Uuid>,
}

impl Db {
    /// Whether a Unit may be registered: to be asked before certificates are made. [`Db::register_unit`] checks again.
    ///
    /// `Ok(false)` means that the claim code is not good (unknown, expired, used by another Unit, for another Unit).
    pub async fn may_register(
        &self,
        by: &RegisterBy<'_>,
        system_uid: &SystemId,
        online_key: &str,
    ) -> Result<bool, DbError> {
        let mut tx = self.snapshot().await?;
        let now = self.now();
        let tenant = match by {
            RegisterBy::Actor(actor) => actor.tenant(),
            RegisterBy::ClaimCode(hash) => {
                match open_claim(&mut tx, hash, system_uid, now).await? {
                    Some(claim) => claim.tenant,
                    None => return Ok(false),
                }
            }
        };
        known_unit(&mut tx, tenant, system_uid, online_key).await?;
        Ok(true)
    }

    /// Registers a Unit with its new certificates and spends the claim code. Nothing if the claim code is not good.
    ///
    /// A Unit that is provisioned already is refused unless it shows the same online key: then its answer was lost and
    /// it gets a new one. Its former certificates of the same Nodes and types end with that.
    pub async fn register_unit(
        &self,
        by: &RegisterBy<'_>,
        registration: &Registration,
        certificates: &[IssuedCertificate],
        secure_data: &str,
    ) -> Result<Option<Registered>, DbError> {
        let mut tx = self.begin().await?;
        let now = tx.now;
        let system_uid = &registration.system_uid;
        let (actor, claim) = match by {
            RegisterBy::Actor(actor) => ((*actor).clone(), None),
            RegisterBy::ClaimCode(hash) => {
                let Some(claim) = open_claim(tx.on(), hash, system_uid, now).await? else {
                    return Ok(None);
                };
                (Actor::unit(claim.tenant, system_uid.as_str()), Some(claim))
            }
        };
        let known = known_unit(
            tx.on(),
            actor.tenant(),
            system_uid,
            &registration.online_key,
        )
        .await?;
        let model = match claim.as_ref().and_then(|claim| claim.model) {
            Some(model) => Some(model),
            None => match crate::unit_models::split_model(&registration.unit_model) {
                Some((name, version)) => Some(tx.model_named(&actor, name, version).await?.0),
                None => None,
            },
        };
        let title = claim
            .as_ref()
            .map(|claim| claim.title.clone())
            .unwrap_or_default();
        let unit = match known {
            Some(unit) => unit,
            None => {
                tx.insert_unit(&actor, system_uid.as_str(), &title, None)
                    .await?
            }
        };
        sqlx::query(
            "UPDATE units SET status = $2, online_key = $3, secure_data = $4, updated_at = $5,
             title = CASE WHEN $6 = '' THEN title ELSE $6 END,
             unit_model_id = COALESCE($7, unit_model_id),
             ordered_config = CASE WHEN COALESCE($7, unit_model_id) = unit_model_id THEN ordered_config ELSE NULL END,
             env_txn = NULL, env_sent_at = NULL, env_acked_at = NULL WHERE id = $1",
        )
        .bind(unit.to_string())
        .bind(to_word("status", &UnitStatus::Provisioned)?)
        .bind(registration.online_key.clone())
        .bind(secure_data.to_owned())
        .bind(now.as_micros())
        .bind(title)
        .bind(model.map(|model| model.to_string()))
        .execute(tx.on())
        .await
        .doing("provision a Unit")?;
        tx.replace_certificates(unit, certificates).await?;
        for node in &registration.nodes {
            sqlx::query(
                "INSERT INTO unit_nodes (unit_id, node_id, connected, document) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (unit_id, node_id) DO UPDATE SET connected = excluded.connected, document = excluded.document",
            )
            .bind(unit.to_string())
            .bind(node.info.id.to_string())
            .bind(i64::from(node.connected))
            .bind(to_json("Node", node)?)
            .execute(tx.on())
            .await
            .doing("store a Node")?;
        }
        if let Some(claim) = &claim {
            sqlx::query("UPDATE claim_codes SET used_at = COALESCE(used_at, $2), unit_id = $3 WHERE id = $1")
                .bind(claim.id.to_string())
                .bind(now.as_micros())
                .bind(unit.to_string())
                .execute(tx.on())
                .await
                .doing("spend a claim code")?;
            tx.announce(
                actor.tenant(),
                ChangeTopic::ClaimCode,
                ChangeAction::Updated,
                claim.id,
            );
        }
        let by_what = match &claim {
            Some(claim) => format!("with claim code {}", claim.id),
            None => format!("by {}", actor.name()),
        };
        tx.happened(
            unit,
            &[Happening::info(
                TimelineKind::Unit,
                format!(
                    "provisioned {by_what}: {} Nodes, {} certificates",
                    registration.nodes.len(),
                    certificates.len()
                ),
            )],
        )
        .await?;
        tx.summarise(unit).await?;
        tx.audit(
            &actor,
            "unit.provision",
            format!("unit:{unit}"),
            format!("{system_uid} {by_what}"),
        )
        .await?;
        tx.announce(
            actor.tenant(),
            ChangeTopic::Unit,
            ChangeAction::Updated,
            unit,
        );
        tx.announce(
            actor.tenant(),
            ChangeTopic::Unit,
            ChangeAction::Desired,
            unit,
        );
        let row = sqlx::query(
            "SELECT units.title, unit_models.id AS model_id, unit_models.name, unit_models.version FROM units
             LEFT JOIN unit_models ON unit_models.id = units.unit_model_id WHERE units.id = $1",
        )
        .bind(unit.to_string())
        .fetch_one(tx.on())
        .await
        .doing("read a Unit")?;
        let unit_model = match row.uuid_or_null("model_id")? {
            Some(id) => Some(UnitModelRef {
                id,
                name: row.text("name")?,
                version: row.text("version")?,
            }),
            None => None,
        };
        let registered = Registered {
            unit,
            title: row.text("title")?,
            unit_model,
        };
        tx.commit().await?;
        Ok(Some(registered))
    }
}

impl Tx {
    async fn replace_certificates(
        &mut self,
        unit: Uuid,
        certificates: &[IssuedCertificate],
    ) -> Result<(), DbError> {
        for certificate in certificates {
            sqlx::query(
                "DELETE FROM unit_certificates WHERE unit_id = $1 AND node_id = $2 AND cert_type = $3",
            )
            .bind(unit.to_string())
            .bind(certificate.node_id.clone())
            .bind(certificate.cert_type.clone())
            .execute(self.on())
            .await
            .doing("end a former certificate")?;
            self.put_certificate(unit, certificate, None).await?;
        }
        sqlx::query("DELETE FROM certificate_renewals WHERE unit_id = $1")
            .bind(unit.to_string())
            .execute(self.on())
            .await
            .doing("end renewals")?;
        Ok(())
    }

    /// One that renews another is not in use yet; it comes with the hash of its key.
    pub(crate) async fn put_certificate(
        &mut self,
        unit: Uuid,
        certificate: &IssuedCertificate,
        renews_by: Option<&str>,
    ) -> Result<(), DbError> {
        let now = self.now.as_micros();
        sqlx::query(
            "INSERT INTO unit_certificates (fingerprint, unit_id, node_id, cert_type, serial, not_after, created_at,
             public_key, installed_at, key_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(certificate.fingerprint.to_ascii_lowercase())
        .bind(unit.to_string())
        .bind(certificate.node_id.clone())
        .bind(certificate.cert_type.clone())
        .bind(certificate.serial.clone())
        .bind(certificate.not_after.as_micros())
        .bind(now)
        .bind(certificate.public_key.as_ref().map(hex::encode))
        .bind(renews_by.is_none().then_some(now))
        .bind(renews_by.map(str::to_owned))
        .execute(self.on())
        .await
        .doing("store a unit certificate")?;
        Ok(())
    }
}

/// The claim of a code that is good for this Unit: not expired, and unused or used by this very Unit.
async fn open_claim(
    connection: &mut AnyConnection,
    hash: &str,
    system_uid: &SystemId,
    now: Timestamp,
) -> Result<Option<Claim>, DbError> {
    let row = sqlx::query(
        "SELECT claim_codes.id, claim_codes.tenant_id, claim_codes.title, claim_codes.unit_model_id FROM claim_codes
         LEFT JOIN units ON units.id = claim_codes.unit_id
         WHERE claim_codes.code_hash = $1 AND claim_codes.expires_at > $2
         AND (claim_codes.system_uid IS NULL OR claim_codes.system_uid = $3)
         AND (claim_codes.used_at IS NULL OR units.system_uid = $3)",
    )
    .bind(hash.to_owned())
    .bind(now.as_micros())
    .bind(system_uid.to_string())
    .fetch_optional(connection)
    .await
    .doing("look up a claim code")?;
    row.map(|row| {
        Ok(Claim {
            id: row.uuid("id")?,
            tenant: row.uuid("tenant_id")?,
            title: row.text("title")?,
            model: row.uuid_or_null("unit_model_id")?,
        })
    })
    .transpose()
}

/// The Unit of this system id if it may be registered under this key; refused if it is another's.
async fn known_unit(
    connection: &mut AnyConnection,
    tenant: Uuid,
    system_uid: &SystemId,
    online_key: &str,
) -> Result<Option<Uuid>, DbError> {
    let Some(row) =
        sqlx::query("SELECT id, tenant_id, status, online_key FROM units WHERE system_uid = $1")
            .bind(system_uid.to_string())
            .fetch_optional(connection)
            .await
            .doing("look up a system id")?
    else {
        return Ok(None);
    };
    let is_new = row.word::<UnitStatus>("status")? == UnitStatus::New;
    let same_key = row.text_or_null("online_key")?.as_deref() == Some(online_key);
    if row.uuid("tenant_id")? != tenant || !(is_new || same_key) {
        return Err(DbError::conflict(
            format!(
                "system id `{system_uid}` belongs to a Unit that is provisioned under another key"
            ),
            "if it is the same machine set up afresh, delete the Unit first, then enrol it again",
        ));
    }
    row.uuid("id").map(Some)
}
