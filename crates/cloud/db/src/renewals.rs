//! Certificates of Units that are to be renewed: ordered by a person or by their end, sent to the Unit, issued, installed.

use std::{collections::BTreeMap, time::Duration};

use aos_api::{ChangeAction, ChangeTopic, Page, Severity, TimelineKind, UnitCertificate};
use aos_time::Timestamp;
use aos_types::ErrorInfo;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening, IssuedCertificate, LinkWrite, columns::Columns, error::Doing,
    store::Tx,
};

/// A Unit that was told and has not confirmed is told again after this long: it may have lost the order half-way.
const AGAIN: Duration = Duration::from_secs(3600);

/// What is to be renewed on a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RenewalOrder {
    /// The certificates.
    pub certificates: Vec<ExpiringCertificate>,
    /// The passwords of the Nodes' key stores, by Node.
    pub secrets: BTreeMap<String, String>,
}

/// A certificate as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiringCertificate {
    /// `online`, `offline`, `iam`, `cm`, `sm`, `um`.
    pub cert_type: String,
    /// The Node that holds its key.
    pub node_id: String,
    /// Serial in hex.
    pub serial: String,
    /// When it expires.
    pub not_after: Timestamp,
}

/// Whom an order of a person concerns; absent is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenewalFilter {
    /// Only certificates of this type.
    pub cert_type: Option<String>,
    /// Only those of this Node.
    pub node_id: Option<String>,
}

/// What a Unit says of a certificate that was issued to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its type.
    pub cert_type: String,
    /// The Node.
    pub node_id: String,
    /// Serial in hex.
    pub serial: String,
    /// Why it is not in use.
    pub error: Option<ErrorInfo>,
}

impl Db {
    /// Orders that certificates of a Unit be renewed. Gives how all its certificates stand.
    pub async fn order_renewal(
        &self,
        actor: &Actor,
        unit: &str,
        filter: &RenewalFilter,
    ) -> Result<Page<UnitCertificate>, DbError> {
        let id = self.find_unit(actor, unit).await?;
        let mut tx = self.begin().await?;
        let now = tx.now;
        let ordered = sqlx::query(
            "INSERT INTO certificate_renewals (unit_id, node_id, cert_type, ordered_by, ordered_at)
             SELECT DISTINCT unit_id, node_id, cert_type, $1, $2 FROM unit_certificates
             WHERE unit_id = $3 AND ($4 = '' OR cert_type = $4) AND ($5 = '' OR node_id = $5)
             ON CONFLICT (unit_id, node_id, cert_type)
             DO UPDATE SET ordered_by = excluded.ordered_by, sent_at = NULL, issued_at = NULL, error = NULL",
        )
        .bind(actor.name().to_owned())
        .bind(now.as_micros())
        .bind(id.to_string())
        .bind(filter.cert_type.clone().unwrap_or_default())
        .bind(filter.node_id.clone().unwrap_or_default())
        .execute(tx.on())
        .await
        .doing("order a renewal")?
        .rows_affected();
        if ordered == 0 {
            return Err(DbError::conflict(
                "this Unit has no such certificate",
                "`aos unit certificates` lists those it has; a Unit that never joined has none",
            ));
        }
        let text = format!(
            "{} ordered that {ordered} certificates be renewed",
            actor.name()
        );
        tx.happened(id, &[Happening::info(TimelineKind::Unit, text)])
            .await?;
        tx.audit(
            actor,
            "unit.renew",
            format!("unit:{id}"),
            format!("{ordered} certificates"),
        )
        .await?;
        tx.announce(actor.tenant(), ChangeTopic::Unit, ChangeAction::Desired, id);
        tx.commit().await?;
        self.unit_certificates(actor, unit).await
    }

    /// Orders the renewal of every certificate that ends within `ahead`, and has each Unit told that has an order it was not
    /// told of, or did not follow in time. Gives how many Units these are.
    pub async fn renew_in_time(&self, ahead: Duration) -> Result<usize, DbError> {
        let mut tx = self.begin().await?;
        let now = tx.now;
        sqlx::query(
            "INSERT INTO certificate_renewals (unit_id, node_id, cert_type, ordered_by, ordered_at)
             SELECT unit_id, node_id, cert_type, $1, $2 FROM unit_certificates WHERE installed_at IS NOT NULL
             GROUP BY unit_id, node_id, cert_type HAVING MAX(not_after) < $3
             ON CONFLICT (unit_id, node_id, cert_type) DO NOTHING",
        )
        .bind("the cloud")
        .bind(now.as_micros())
        .bind((now + ahead).as_micros())
        .execute(tx.on())
        .await
        .doing("order renewals")?;
        let rows = sqlx::query(
            "SELECT DISTINCT certificate_renewals.unit_id, units.tenant_id FROM certificate_renewals
             JOIN units ON units.id = certificate_renewals.unit_id
             WHERE certificate_renewals.sent_at IS NULL OR certificate_renewals.sent_at < $1",
        )
        .bind((now - AGAIN).as_micros())
        .fetch_all(tx.on())
        .await
        .doing("look for renewals")?;
        for row in &rows {
            let (tenant, unit) = (row.uuid("tenant_id")?, row.uuid("unit_id")?);
            tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Desired, unit);
        }
        tx.commit().await?;
        Ok(rows.len())
    }

    /// What a Unit is to be told to renew: what it was not told of, or did not follow in time.
    pub async fn renewal_to_send(&self, unit: Uuid) -> Result<RenewalOrder, DbError> {
        let mut tx = self.snapshot().await?;
        let rows = sqlx::query(
            "SELECT unit_certificates.cert_type, unit_certificates.node_id, unit_certificates.serial,
             unit_certificates.not_after, units.secure_data FROM certificate_renewals
             JOIN unit_certificates ON unit_certificates.unit_id = certificate_renewals.unit_id
                 AND unit_certificates.node_id = certificate_renewals.node_id
                 AND unit_certificates.cert_type = certificate_renewals.cert_type
             JOIN units ON units.id = certificate_renewals.unit_id
             WHERE certificate_renewals.unit_id = $1 AND unit_certificates.installed_at IS NOT NULL
             AND (certificate_renewals.sent_at IS NULL OR certificate_renewals.sent_at < $2)
             ORDER BY unit_certificates.node_id, unit_certificates.cert_type, unit_certificates.created_at",
        )
        .bind(unit.to_string())
        .bind((self.now() - AGAIN).as_micros())
        .fetch_all(&mut *tx)
        .await
        .doing("read what is to be renewed")?;
        let mut newest = BTreeMap::new();
        let mut order = RenewalOrder::default();
        for row in &rows {
            let certificate = ExpiringCertificate {
                cert_type: row.text("cert_type")?,
                node_id: row.text("node_id")?,
                serial: row.text("serial")?,
                not_after: row.time("not_after")?,
            };
            order.secrets = secrets(&row.text("secure_data")?);
            let key = (certificate.node_id.clone(), certificate.cert_type.clone());
            newest.insert(key, certificate);
        }
        order.certificates = newest.into_values().collect();
        Ok(order)
    }

    /// These are in the outbox now, with the session's records.
    pub async fn renewal_sent(
        &self,
        unit: Uuid,
        order: &RenewalOrder,
        link: &LinkWrite,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        tx.link(unit, link).await?;
        for certificate in &order.certificates {
            sqlx::query(
                "UPDATE certificate_renewals SET sent_at = $4, issued_at = NULL
                 WHERE unit_id = $1 AND node_id = $2 AND cert_type = $3",
            )
            .bind(unit.to_string())
            .bind(certificate.node_id.clone())
            .bind(certificate.cert_type.clone())
            .bind(tx.now.as_micros())
            .execute(tx.on())
            .await
            .doing("note that a renewal is sent")?;
        }
        tx.commit().await
    }

    /// Whether a certificate of this type is to be issued to this Node: its renewal was ordered, and none was issued since.
    pub async fn may_issue(
        &self,
        unit: Uuid,
        node_id: &str,
        cert_type: &str,
    ) -> Result<bool, DbError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS total FROM certificate_renewals
             WHERE unit_id = $1 AND node_id = $2 AND cert_type = $3 AND sent_at IS NOT NULL AND issued_at IS NULL",
        )
        .bind(unit.to_string())
        .bind(node_id.to_owned())
        .bind(cert_type.to_owned())
        .fetch_one(self.readers())
        .await
        .doing("look up a renewal")?;
        Ok(row.count("total")? > 0)
    }

    /// Keeps certificates that were issued to a Unit beside those it has, until it says that they are in use.
    pub async fn renewal_issued(
        &self,
        unit: Uuid,
        certificates: &[(IssuedCertificate, String)],
        link: &LinkWrite,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        tx.link(unit, link).await?;
        for (certificate, key_hash) in certificates {
            tx.put_certificate(unit, certificate, Some(key_hash))
                .await?;
            sqlx::query(
                "UPDATE certificate_renewals SET issued_at = $4 WHERE unit_id = $1 AND node_id = $2 AND cert_type = $3",
            )
            .bind(unit.to_string())
            .bind(certificate.node_id.clone())
            .bind(certificate.cert_type.clone())
            .bind(tx.now.as_micros())
            .execute(tx.on())
            .await
            .doing("note that a certificate is issued")?;
        }
        tx.commit().await
    }

    /// What a Unit says of the certificates it was given, with the session's records.
    pub async fn renewal_confirmed(
        &self,
        unit: Uuid,
        said: &[Installed],
        link: &LinkWrite,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        let mut events = Vec::new();
        for one in said {
            let what = format!("certificate `{}` of Node {}", one.cert_type, one.node_id);
            if let Some(error) = &one.error {
                sqlx::query(
                    "UPDATE certificate_renewals SET error = $4 WHERE unit_id = $1 AND node_id = $2 AND cert_type = $3",
                )
                .bind(unit.to_string())
                .bind(one.node_id.clone())
                .bind(one.cert_type.clone())
                .bind(error.to_string())
                .execute(tx.on())
                .await
                .doing("note that a renewal failed")?;
                events.push(Happening::new(
                    TimelineKind::Unit,
                    Severity::Error,
                    format!(
                        "{what} was not renewed: {error}; it is ordered again within an hour or two"
                    ),
                ));
                continue;
            }
            let rows = sqlx::query(
                "SELECT fingerprint, serial FROM unit_certificates WHERE unit_id = $1 AND node_id = $2 AND cert_type = $3",
            )
            .bind(unit.to_string())
            .bind(one.node_id.clone())
            .bind(one.cert_type.clone())
            .fetch_all(tx.on())
            .await
            .doing("look up a certificate")?;
            let mut found = None;
            for row in &rows {
                if plain(&row.text("serial")?) == plain(&one.serial) {
                    found = Some(row.text("fingerprint")?);
                }
            }
            let Some(fingerprint) = found else {
                events.push(Happening::new(
                    TimelineKind::Protocol,
                    Severity::Warning,
                    format!(
                        "the Unit says that {what} with serial {} is in use; it was never issued",
                        one.serial
                    ),
                ));
                continue;
            };
            // What it is linked by counts until it has shown the new one: it must be able to come back.
            let keep_old = one.cert_type == "online";
            tx.installed(unit, &fingerprint, keep_old).await?;
            events.push(Happening::info(
                TimelineKind::Unit,
                format!("{what} was renewed"),
            ));
        }
        tx.happened(unit, &events).await?;
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
        tx.commit().await
    }

    /// A Unit has shown this `online` certificate: older ones of it are worth nothing from now on.
    pub async fn online_shown(&self, unit: Uuid, fingerprint: &str) -> Result<(), DbError> {
        let fingerprint = fingerprint.to_ascii_lowercase();
        let row = sqlx::query(
            "SELECT COUNT(*) AS total FROM unit_certificates AS shown JOIN unit_certificates AS older
             ON older.unit_id = shown.unit_id AND older.node_id = shown.node_id
                 AND older.cert_type = shown.cert_type AND older.created_at < shown.created_at
             WHERE shown.fingerprint = $1 AND shown.unit_id = $2",
        )
        .bind(fingerprint.clone())
        .bind(unit.to_string())
        .fetch_one(self.readers())
        .await
        .doing("look for older certificates")?;
        if row.count("total")? == 0 {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        tx.installed(unit, &fingerprint, false).await?;
        sqlx::query(
            "UPDATE units SET online_key = COALESCE((SELECT key_hash FROM unit_certificates WHERE fingerprint = $2), online_key)
             WHERE id = $1",
        )
        .bind(unit.to_string())
        .bind(fingerprint)
        .execute(tx.on())
        .await
        .doing("note the key of a Unit")?;
        tx.commit().await
    }
}

impl Tx {
    /// A certificate is in use: its renewal is done, and older ones of its type and Node go, unless they still count.
    async fn installed(
        &mut self,
        unit: Uuid,
        fingerprint: &str,
        keep_old: bool,
    ) -> Result<(), DbError> {
        let now = self.now.as_micros();
        sqlx::query(
            "UPDATE unit_certificates SET installed_at = COALESCE(installed_at, $3) WHERE unit_id = $1 AND fingerprint = $2",
        )
        .bind(unit.to_string())
        .bind(fingerprint.to_owned())
        .bind(now)
        .execute(self.on())
        .await
        .doing("note that a certificate is in use")?;
        sqlx::query(
            "DELETE FROM certificate_renewals WHERE unit_id = $1 AND issued_at IS NOT NULL
             AND EXISTS (SELECT 1 FROM unit_certificates AS shown WHERE shown.fingerprint = $2
                 AND shown.node_id = certificate_renewals.node_id AND shown.cert_type = certificate_renewals.cert_type
                 AND shown.created_at >= certificate_renewals.ordered_at)",
        )
        .bind(unit.to_string())
        .bind(fingerprint.to_owned())
        .execute(self.on())
        .await
        .doing("end a renewal")?;
        if keep_old {
            return Ok(());
        }
        sqlx::query(
            "DELETE FROM unit_certificates WHERE unit_id = $1
             AND EXISTS (SELECT 1 FROM unit_certificates AS shown WHERE shown.fingerprint = $2
                 AND shown.node_id = unit_certificates.node_id AND shown.cert_type = unit_certificates.cert_type
                 AND shown.created_at > unit_certificates.created_at)",
        )
        .bind(unit.to_string())
        .bind(fingerprint.to_owned())
        .execute(self.on())
        .await
        .doing("end a former certificate")?;
        Ok(())
    }
}

/// A serial as it is compared: hex digits without what varies in writing.
fn plain(serial: &str) -> String {
    let digits: String = serial
        .chars()
        .filter(char::is_ascii_hexdigit)
        .map(|digit| digit.to_ascii_lowercase())
        .collect();
    digits.trim_start_matches('0').to_owned()
}

/// The passwords of `{"version": …, "nodes": {"<node>": "<password>"}}`; whoever wrote something else gave none.
fn secrets(secure_data: &str) -> BTreeMap<String, String> {
    #[derive(serde::Deserialize, Default)]
    struct Secure {
        #[serde(default)]
        nodes: BTreeMap<String, String>,
    }
    serde_json::from_str::<Secure>(secure_data)
        .unwrap_or_default()
        .nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_compared_however_they_are_written() {
        assert_eq!(plain("00:AB:cd"), plain("abcd"));
        assert_ne!(plain("abcd"), plain("abce"));
    }

    #[test]
    fn passwords_are_read_or_there_are_none() {
        let read = secrets(r#"{"version":"2.0.0","nodes":{"main":"secret"}}"#);
        assert_eq!(read["main"], "secret");
        assert_eq!(secrets(""), BTreeMap::new());
    }
}
