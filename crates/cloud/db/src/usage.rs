//! What Units use over time, with retention.

use std::{collections::BTreeMap, time::Duration};

use aos_api::{ChangeAction, ChangeTopic, ServiceRef, SubjectRef, UsagePoint};
use aos_time::Timestamp;
use aos_types::{InstanceIdent, ItemConfig};
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, LinkWrite,
    columns::{Columns, big, to_json},
    error::Doing,
};

/// How long what Units tell about themselves is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Usage over time.
    pub usage: Duration,
    /// Alerts that are over.
    pub alerts: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            usage: Duration::from_secs(30 * DAY),
            alerts: Duration::from_secs(90 * DAY),
        }
    }
}

/// Points kept of one Unit, whatever the retention: the oldest go.
pub const MOST_POINTS: i64 = 50_000;
/// Points read at once, at most; the newest count.
const MOST_READ: i64 = 60_000;
/// A Unit's clock may be ahead so much.
const AHEAD: Duration = Duration::from_secs(600);

/// A point that a Unit told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPoint {
    /// Of which Node, or where the instance was.
    pub node: String,
    /// Of which instance, if it is not the Node's own.
    pub instance: Option<InstanceIdent>,
    /// What.
    pub point: UsagePoint,
}

/// Usage of one Node or instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSeries {
    /// Of which Node, or where the instance was.
    pub node: String,
    /// Service, Subject and number, if it is an instance's.
    pub instance: Option<(ServiceRef, SubjectRef, u64)>,
    /// In the order of time.
    pub points: Vec<UsagePoint>,
}

fn point(row: &AnyRow) -> Result<UsagePoint, DbError> {
    Ok(UsagePoint {
        at: row.time("at")?,
        cpu: row.count("cpu")?,
        ram: row.count("ram")?,
        download: row.count_or_null("download")?,
        upload: row.count_or_null("upload")?,
        partitions: row.json("partitions")?,
    })
}

impl Db {
    /// Keeps what a Unit used, with the session's records, and drops what is older than is to be kept.
    pub async fn keep_usage(
        &self,
        unit: Uuid,
        points: &[NewPoint],
        retention: &Retention,
        link: &LinkWrite,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        let (oldest, newest) = (tx.now - retention.usage, tx.now + AHEAD);
        // What is too old would go at once, and what is of the future would stay for ever.
        let kept = points
            .iter()
            .filter(|one| one.point.at > oldest && one.point.at <= newest);
        for NewPoint {
            node,
            instance,
            point,
        } in kept
        {
            let (item, subject, index) = instance.as_ref().map_or_else(
                || (String::new(), String::new(), 0),
                |one| {
                    (
                        one.item.to_string(),
                        one.subject.to_string(),
                        big(one.index),
                    )
                },
            );
            sqlx::query(
                "INSERT INTO usage_points (unit_id, at, node_id, item_id, subject_id, instance, cpu, ram, download, upload,
                 partitions) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                 ON CONFLICT (unit_id, at, node_id, item_id, subject_id, instance) DO NOTHING",
            )
            .bind(unit.to_string())
            .bind(point.at.as_micros())
            .bind(node.clone())
            .bind(item)
            .bind(subject)
            .bind(index)
            .bind(big(point.cpu))
            .bind(big(point.ram))
            .bind(point.download.map(big))
            .bind(point.upload.map(big))
            .bind(to_json("partitions", &point.partitions)?)
            .execute(tx.on())
            .await
            .doing("keep usage")?;
        }
        sqlx::query(
            "DELETE FROM usage_points WHERE unit_id = $1 AND (at < $2 OR at <= COALESCE(
             (SELECT at FROM usage_points WHERE unit_id = $1 ORDER BY at DESC LIMIT 1 OFFSET $3), 0))",
        )
        .bind(unit.to_string())
        .bind(oldest.as_micros())
        .bind(MOST_POINTS)
        .execute(tx.on())
        .await
        .doing("drop old usage")?;
        tx.announce(tenant, ChangeTopic::Monitoring, ChangeAction::Status, unit);
        tx.commit().await
    }

    /// What a Unit used from one moment to another, and what it was at the first moment, told up to `before` earlier.
    pub async fn usage(
        &self,
        actor: &Actor,
        unit: Uuid,
        (from, till): (Timestamp, Timestamp),
        before: Duration,
    ) -> Result<Vec<UsageSeries>, DbError> {
        let rows = sqlx::query(
            "SELECT usage_points.at, usage_points.node_id, usage_points.item_id, usage_points.subject_id,
             usage_points.instance, usage_points.cpu, usage_points.ram, usage_points.download, usage_points.upload,
             usage_points.partitions, services.codename, services.title, subjects.label FROM usage_points
             LEFT JOIN services ON services.id = usage_points.item_id AND services.tenant_id = $2
             LEFT JOIN subjects ON COALESCE(subjects.reported_as, subjects.id) = usage_points.subject_id
             AND subjects.tenant_id = $2
             WHERE usage_points.unit_id = $1 AND usage_points.at >= $3 AND usage_points.at <= $4
             ORDER BY usage_points.at DESC LIMIT $5",
        )
        .bind(unit.to_string())
        .bind(actor.tenant_text())
        .bind((from - before).as_micros())
        .bind(till.as_micros())
        .bind(MOST_READ)
        .fetch_all(self.readers())
        .await
        .doing("read usage")?;
        let mut all: BTreeMap<(String, String, String, u64), UsageSeries> = BTreeMap::new();
        for row in rows.iter().rev() {
            let (node, item, subject) = (
                row.text("node_id")?,
                row.text("item_id")?,
                row.text("subject_id")?,
            );
            let index = row.count("instance")?;
            let key = (item.clone(), subject.clone(), node.clone(), index);
            let series = match all.entry(key) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => new.insert(UsageSeries {
                    node,
                    instance: (!item.is_empty())
                        .then(|| {
                            Ok::<_, DbError>((
                                service(row, item)?,
                                self::subject(row, subject)?,
                                index,
                            ))
                        })
                        .transpose()?,
                    points: Vec::new(),
                }),
            };
            let point = point(row)?;
            // Of those before the first moment only the last counts.
            if point.at <= from {
                series.points.clear();
            }
            series.points.push(point);
        }
        Ok(all.into_values().collect())
    }

    /// The configurations of the versions that a Unit's instances run, by item.
    pub async fn running_configs(
        &self,
        unit: Uuid,
    ) -> Result<BTreeMap<String, ItemConfig>, DbError> {
        let rows = sqlx::query(
            "SELECT DISTINCT unit_instances.item_id, service_versions.configuration FROM unit_instances
             JOIN service_versions ON service_versions.service_id = unit_instances.item_id
             AND service_versions.version = unit_instances.version WHERE unit_instances.unit_id = $1",
        )
        .bind(unit.to_string())
        .fetch_all(self.readers())
        .await
        .doing("read the configurations of what runs")?;
        let mut configs = BTreeMap::new();
        for row in &rows {
            // One that this cloud cannot read has no limits to show.
            if let Ok(config) = ItemConfig::from_slice(row.text("configuration")?.as_bytes()) {
                configs.insert(row.text("item_id")?, config);
            }
        }
        Ok(configs)
    }
}

pub(crate) fn service(row: &AnyRow, item: String) -> Result<ServiceRef, DbError> {
    Ok(ServiceRef {
        codename: row
            .text_or_null("codename")?
            .unwrap_or_else(|| item.clone()),
        title: row.text_or_null("title")?.unwrap_or_default(),
        id: item,
    })
}

pub(crate) fn subject(row: &AnyRow, subject: String) -> Result<SubjectRef, DbError> {
    Ok(SubjectRef {
        label: row
            .text_or_null("label")?
            .unwrap_or_else(|| subject.clone()),
        id: subject,
    })
}
