use aos_api::{
    BlobEncryption, ChangeAction, ChangeTopic, Cpu, InstalledUnitConfig, NewUnit, Node,
    OnlineStatus, Page, Partition, Resource, Runtime, TimelineKind, Unit, UnitCertificate,
    UnitCounts, UnitModelRef, UnitPatch, UnitStatus, UnitsQuery, UpdatePhase, WantedNodeState,
};
use aos_types::{ErrorInfo, SystemId, UnitConfig};
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening, NodeReport,
    columns::{Columns, to_json, to_word},
    downloads,
    error::Doing,
    like,
    listing::whole,
    node_orders::wanted_nodes,
    store::Tx,
    unit_config_orders::ordered_config,
};

macro_rules! units {
    ($rest:literal) => {
        sqlx::query(concat!(
            "SELECT units.id, units.system_uid, units.title, units.status, units.online_status, units.online_changed_at,
             units.last_seen_at, units.config_version, units.config_state, units.config_error, units.phase, units.update_told, units.counts,
             units.created_at, units.updated_at, unit_models.id AS model_id, unit_models.name AS model_name,
             unit_models.version AS model_version,
             COALESCE(units.ordered_config, unit_models.ordered_config) AS wanted_config, units.encrypt_blobs,
             (SELECT COUNT(*) FROM subjects_of_units WHERE subjects_of_units.unit_id = units.id) AS subjects,
             COALESCE(downloads.blobs, 0) AS blobs, COALESCE(downloads.blobs_here, 0) AS blobs_here,
             COALESCE(downloads.bytes_here, 0) AS bytes_here, COALESCE(downloads.bytes_total, 0) AS bytes_total,
             downloads.hindrance AS hindrance
             FROM units LEFT JOIN unit_models ON unit_models.id = units.unit_model_id
             LEFT JOIN (SELECT unit_id, COUNT(*) AS blobs, CAST(SUM(is_here) AS BIGINT) AS blobs_here,
                        CAST(SUM(bytes_here) AS BIGINT) AS bytes_here, CAST(SUM(bytes_total) AS BIGINT) AS bytes_total,
                        MAX(hindrance) AS hindrance FROM unit_downloads GROUP BY unit_id) AS downloads
             ON downloads.unit_id = units.id WHERE units.tenant_id = $1 ",
            $rest
        ))
    };
}

fn unit(row: &AnyRow) -> Result<Unit, DbError> {
    let update_phase = row.word("phase")?;
    let update = row.json_or_null("update_told")?;
    let unit_model = match row.uuid_or_null("model_id")? {
        Some(id) => Some(UnitModelRef {
            id,
            name: row.text("model_name")?,
            version: row.text("model_version")?,
        }),
        None => None,
    };
    let installed_unit_config = match row.text_or_null("config_state")? {
        Some(state) => Some(InstalledUnitConfig {
            version: row.text_or_null("config_version")?.unwrap_or_default(),
            state,
            error: row
                .json_or_null::<ErrorInfo>("config_error")?
                .map(Into::into),
        }),
        None => None,
    };
    Ok(Unit {
        id: row.uuid("id")?,
        system_uid: row.text("system_uid")?,
        title: row.text("title")?,
        status: row.word("status")?,
        online_status: row.word("online_status")?,
        last_online_changed_at: row.time_or_null("online_changed_at")?,
        last_seen_at: row.time_or_null("last_seen_at")?,
        unit_model,
        installed_unit_config,
        wanted_unit_config: row.text_or_null("wanted_config")?,
        blob_encryption: match row.int_or_null("encrypt_blobs")? {
            None => BlobEncryption::Model,
            Some(0) => BlobEncryption::Off,
            Some(_) => BlobEncryption::On,
        },
        update_phase,
        download: downloads::summed(row, update_phase, update.as_ref())?,
        update,
        counts: UnitCounts {
            subjects: row.count("subjects")?,
            ..row.json("counts")?
        },
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

impl Db {
    /// The id of a Unit given by id or system id, if the actor may see it.
    pub async fn find_unit(&self, actor: &Actor, text: &str) -> Result<Uuid, DbError> {
        sqlx::query("SELECT id FROM units WHERE tenant_id = $1 AND (id = $2 OR system_uid = $3)")
            .bind(actor.tenant_text())
            .bind(text.to_ascii_lowercase())
            .bind(text.to_owned())
            .fetch_optional(self.readers())
            .await
            .doing("look up a Unit")?
            .ok_or_else(|| DbError::not_found("Unit", text))?
            .uuid("id")
    }

    /// Units of the actor's organisation, by title and system id.
    pub async fn units(&self, actor: &Actor, query: &UnitsQuery) -> Result<Page<Unit>, DbError> {
        let search = like(query.search.as_deref());
        let system_uid = query.system_uid.clone();
        let status = query
            .status
            .map(|status| to_word("status", &status))
            .transpose()?;
        let online = query
            .online_status
            .map(|online| to_word("online status", &online))
            .transpose()?;
        let limit = i64::from(query.limit.unwrap_or(100).clamp(1, 1000));
        let offset = query.offset.unwrap_or(0);
        // An absent filter is an empty text: no value of these columns is empty.
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM units WHERE units.tenant_id = $1
             AND (LOWER(units.system_uid) LIKE $2 ESCAPE '!' OR LOWER(units.title) LIKE $2 ESCAPE '!')
             AND ($3 = '' OR units.system_uid = $3) AND ($4 = '' OR units.status = $4)
             AND ($5 = '' OR units.online_status = $5)",
        )
        .bind(actor.tenant_text())
        .bind(search.clone())
        .bind(system_uid.clone().unwrap_or_default())
        .bind(status.clone().unwrap_or_default())
        .bind(online.clone().unwrap_or_default())
        .fetch_one(self.readers())
        .await
        .doing("count Units")?
        .count("total")?;
        let items = units!(
            "AND (LOWER(units.system_uid) LIKE $2 ESCAPE '!' OR LOWER(units.title) LIKE $2 ESCAPE '!')
             AND ($3 = '' OR units.system_uid = $3) AND ($4 = '' OR units.status = $4)
             AND ($5 = '' OR units.online_status = $5)
             ORDER BY units.title, units.system_uid LIMIT $6 OFFSET $7"
        )
        .bind(actor.tenant_text())
        .bind(search)
        .bind(system_uid.unwrap_or_default())
        .bind(status.unwrap_or_default())
        .bind(online.unwrap_or_default())
        .bind(limit)
        .bind(i64::from(offset))
        .fetch_all(self.readers())
        .await
        .doing("read Units")?
        .iter()
        .map(unit)
        .collect::<Result<_, DbError>>()?;
        Ok(Page {
            items,
            total,
            offset: offset.into(),
        })
    }

    /// One Unit, by id or system id.
    pub async fn unit(&self, actor: &Actor, text: &str) -> Result<Unit, DbError> {
        let id = self.find_unit(actor, text).await?;
        let row = units!("AND units.id = $2")
            .bind(actor.tenant_text())
            .bind(id.to_string())
            .fetch_optional(self.readers())
            .await
            .doing("read a Unit")?
            .ok_or_else(|| DbError::not_found("Unit", text))?;
        unit(&row)
    }

    /// Makes a Unit known before it comes.
    pub async fn create_unit(&self, actor: &Actor, new: &NewUnit) -> Result<Unit, DbError> {
        let system_uid = SystemId::new(new.system_uid.trim())
            .map_err(|why| DbError::invalid("system_uid", why.to_string()))?;
        check_title(&new.title)?;
        let mut tx = self.begin().await?;
        let known = sqlx::query("SELECT COUNT(*) AS total FROM units WHERE system_uid = $1")
            .bind(system_uid.to_string())
            .fetch_one(tx.on())
            .await
            .doing("look up a system id")?
            .count("total")?;
        if known > 0 {
            return Err(DbError::conflict(
                format!("a Unit with system id `{system_uid}` is known already"),
                "use that one, or delete it first",
            ));
        }
        let model = match &new.unit_model {
            Some(text) => Some(tx.model_asked(actor, text).await?),
            None => None,
        };
        let id = tx
            .insert_unit(actor, system_uid.as_str(), new.title.trim(), model)
            .await?;
        tx.audit(
            actor,
            "unit.create",
            format!("unit:{id}"),
            system_uid.to_string(),
        )
        .await?;
        tx.commit().await?;
        self.unit(actor, &id.to_string()).await
    }

    /// Renames a Unit or gives it another model.
    pub async fn patch_unit(
        &self,
        actor: &Actor,
        text: &str,
        patch: &UnitPatch,
    ) -> Result<Unit, DbError> {
        let id = self.find_unit(actor, text).await?;
        let mut tx = self.begin().await?;
        let now = tx.now.as_micros();
        if let Some(title) = &patch.title {
            check_title(title)?;
            sqlx::query("UPDATE units SET title = $2, updated_at = $3 WHERE id = $1")
                .bind(id.to_string())
                .bind(title.trim().to_owned())
                .bind(now)
                .execute(tx.on())
                .await
                .doing("rename a Unit")?;
            tx.announce(actor.tenant(), ChangeTopic::Unit, ChangeAction::Updated, id);
        }
        if let Some(model) = &patch.unit_model {
            let model_id = tx.model_asked(actor, model).await?;
            tx.model_goes_forward(id, model_id).await?;
            sqlx::query(
                "UPDATE units SET ordered_config = CASE WHEN unit_model_id = $2 THEN ordered_config ELSE NULL END,
                 unit_model_id = $2, updated_at = $3 WHERE id = $1",
            )
            .bind(id.to_string())
            .bind(model_id.to_string())
            .bind(now)
            .execute(tx.on())
            .await
            .doing("give a Unit another model")?;
            tx.happened(
                id,
                &[Happening::info(
                    TimelineKind::Unit,
                    format!("{} gave it the model {model}", actor.name()),
                )],
            )
            .await?;
            tx.announce(actor.tenant(), ChangeTopic::Unit, ChangeAction::Updated, id);
            tx.announce(actor.tenant(), ChangeTopic::Unit, ChangeAction::Desired, id);
        }
        if let Some(encrypt) = patch.blob_encryption {
            tx.encrypt_for_unit(actor, id, encrypt).await?;
        }
        tx.audit(
            actor,
            "unit.update",
            format!("unit:{id}"),
            to_json("patch", patch)?,
        )
        .await?;
        tx.commit().await?;
        self.unit(actor, &id.to_string()).await
    }

    /// Deletes a Unit with all that is known of it. Its certificates are worth nothing from then on.
    pub async fn delete_unit(&self, actor: &Actor, text: &str) -> Result<(), DbError> {
        let known = self.unit(actor, text).await?;
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM units WHERE id = $1 AND tenant_id = $2")
            .bind(known.id.to_string())
            .bind(actor.tenant_text())
            .execute(tx.on())
            .await
            .doing("delete a Unit")?;
        tx.announce(
            actor.tenant(),
            ChangeTopic::Unit,
            ChangeAction::Deleted,
            known.id,
        );
        tx.audit(
            actor,
            "unit.delete",
            format!("unit:{}", known.id),
            known.system_uid,
        )
        .await?;
        tx.commit().await
    }

    /// The Nodes of a Unit, main Node first.
    pub async fn unit_nodes(&self, actor: &Actor, text: &str) -> Result<Page<Node>, DbError> {
        let id = self.find_unit(actor, text).await?;
        let config = self.unit_config_of(id).await?;
        let wanted = wanted_nodes(self.readers(), id).await?;
        let mut items = Vec::new();
        for report in self.node_reports(id).await? {
            let labels = config
                .as_ref()
                .map(|config| {
                    config
                        .for_node(&report.info.id, &report.info.node_type)
                        .labels
                })
                .unwrap_or_default();
            let wanted = wanted.get(report.info.id.as_str()).copied();
            items.push(node(report, labels, wanted));
        }
        items.sort_by_key(|node| (!node.is_main, node.node_id.clone()));
        Ok(whole(items))
    }

    /// The Nodes of a Unit as it last reported them.
    pub async fn node_reports(&self, unit: Uuid) -> Result<Vec<NodeReport>, DbError> {
        sqlx::query("SELECT document FROM unit_nodes WHERE unit_id = $1 ORDER BY node_id")
            .bind(unit.to_string())
            .fetch_all(self.readers())
            .await
            .doing("read the Nodes of a Unit")?
            .iter()
            .map(|row| row.json("document"))
            .collect()
    }

    /// The unit configuration that is ordered for a Unit.
    pub async fn unit_config_of(&self, unit: Uuid) -> Result<Option<UnitConfig>, DbError> {
        ordered_config(self.readers(), unit).await
    }

    /// The certificates of a Unit, by Node and type.
    pub async fn unit_certificates(
        &self,
        actor: &Actor,
        text: &str,
    ) -> Result<Page<UnitCertificate>, DbError> {
        let id = self.find_unit(actor, text).await?;
        let items = sqlx::query(
            "SELECT unit_certificates.cert_type, unit_certificates.node_id, unit_certificates.serial,
             unit_certificates.not_after, unit_certificates.installed_at, unit_certificates.key_hash,
             certificate_renewals.ordered_at, certificate_renewals.sent_at, certificate_renewals.error
             FROM unit_certificates LEFT JOIN certificate_renewals
                 ON certificate_renewals.unit_id = unit_certificates.unit_id
                 AND certificate_renewals.node_id = unit_certificates.node_id
                 AND certificate_renewals.cert_type = unit_certificates.cert_type
             WHERE unit_certificates.unit_id = $1
             ORDER BY unit_certificates.node_id, unit_certificates.cert_type, unit_certificates.created_at",
        )
        .bind(id.to_string())
        .fetch_all(self.readers())
        .await
        .doing("read the certificates of a Unit")?
        .iter()
        .map(|row| {
            Ok(UnitCertificate {
                cert_type: row.text("cert_type")?,
                node_id: row.text("node_id")?,
                serial: row.text("serial")?,
                valid_till: row.time("not_after")?,
                status: status_of(row)?.into(),
                error: row.text_or_null("error")?,
            })
        })
        .collect::<Result<_, DbError>>()?;
        Ok(whole(items))
    }
}

impl Tx {
    pub(crate) async fn insert_unit(
        &mut self,
        actor: &Actor,
        system_uid: &str,
        title: &str,
        model: Option<Uuid>,
    ) -> Result<Uuid, DbError> {
        let id = Uuid::now_v7();
        let now = self.now.as_micros();
        sqlx::query(
            "INSERT INTO units (id, tenant_id, system_uid, title, status, unit_model_id, online_status, phase, counts,
             secure_data, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '', $10, $10)",
        )
        .bind(id.to_string())
        .bind(actor.tenant_text())
        .bind(system_uid.to_owned())
        .bind(title.to_owned())
        .bind(to_word("status", &UnitStatus::New)?)
        .bind(model.map(|model| model.to_string()))
        .bind(to_word("online status", &OnlineStatus::Offline)?)
        .bind(to_word("phase", &UpdatePhase::None)?)
        .bind(to_json("counts", &UnitCounts::default())?)
        .bind(now)
        .execute(self.on())
        .await
        .doing("store a Unit")?;
        self.happened(
            id,
            &[Happening::info(
                TimelineKind::Unit,
                format!("made known by {}", actor.name()),
            )],
        )
        .await?;
        self.announce(actor.tenant(), ChangeTopic::Unit, ChangeAction::Created, id);
        Ok(id)
    }
}

pub(crate) fn check_title(title: &str) -> Result<(), DbError> {
    if title.chars().count() > 128 || title.chars().any(char::is_control) {
        return Err(DbError::invalid(
            "title",
            "must be at most 128 characters without control characters",
        ));
    }
    Ok(())
}

fn node(report: NodeReport, labels: Vec<String>, wanted_state: Option<WantedNodeState>) -> Node {
    let is_main = report.info.is_main();
    Node {
        node_id: report.info.id.to_string(),
        node_type: report.info.node_type,
        title: report.info.title,
        is_main,
        is_connected: report.connected,
        state: report.info.state.to_string(),
        wanted_state,
        error: report.info.error.map(Into::into),
        os: report.info.os.os,
        max_dmips: report.info.max_dmips,
        total_ram: report.info.total_ram,
        physical_ram: report.info.physical_ram,
        cpus: report
            .info
            .cpus
            .into_iter()
            .map(|cpu| Cpu {
                model_name: cpu.model_name,
                total_num_cores: cpu.num_cores,
                total_num_threads: cpu.num_threads,
                architecture: cpu.arch.architecture,
                variant: cpu.arch.variant,
            })
            .collect(),
        attrs: report.info.attrs,
        labels,
        partitions: report
            .info
            .partitions
            .into_iter()
            .map(|partition| Partition {
                name: partition.name,
                types: partition.types,
                total_size: partition.total_size,
            })
            .collect(),
        runtimes: report
            .runtimes
            .into_iter()
            .map(|runtime| Runtime {
                id: runtime.id.to_string(),
                runtime_type: runtime.runtime_type,
                architecture: runtime.arch.architecture,
                os: runtime.os.os,
                max_instances: runtime.max_instances,
            })
            .collect(),
        resources: report
            .resources
            .into_iter()
            .map(|resource| Resource {
                name: resource.name,
                shared_count: resource.shared_count,
            })
            .collect(),
    }
}

/// How a certificate stands, in the words of AosCloud where it has one.
fn status_of(row: &AnyRow) -> Result<&'static str, DbError> {
    Ok(if row.int_or_null("installed_at")?.is_none() {
        "renew_issued"
    } else if row.text_or_null("error")?.is_some() {
        "renew_failed"
    } else if row.int_or_null("sent_at")?.is_some() {
        "renew_sent"
    } else if row.int_or_null("ordered_at")?.is_some() {
        "renew_ordered"
    } else if row.text_or_null("key_hash")?.is_some() {
        "renew_done"
    } else {
        "issued"
    })
}
