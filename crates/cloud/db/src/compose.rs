use std::collections::BTreeMap;

use aos_api::{
    Overrides, ServiceRef, SubjectRef, UnitInstance, UnitItem, UnitSubjectService, UpdateSchedules,
    WantedNodeState,
};
use aos_types::{ErrorInfo, UnitConfig};
use semver::Version;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, DesiredContent, NodeReport, assignments::overrides, columns::Columns,
    error::Doing, listing::whole, node_orders::wanted_nodes, schedules::schedules,
    unit_config_orders::ordered_config,
};

/// Everything that the desired state of one Unit is composed from.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitForCompose {
    /// Id.
    pub id: Uuid,
    /// Its organisation: the owner of the services.
    pub tenant: Uuid,
    /// What it calls itself.
    pub system_uid: String,
    /// The unit configuration that is ordered for it.
    pub unit_config: Option<UnitConfig>,
    /// Its Nodes as it last reported them; empty until its first status.
    pub nodes: Vec<NodeReport>,
    /// What its Nodes are ordered to be, by Node.
    pub wanted_nodes: BTreeMap<String, WantedNodeState>,
    /// When it may be updated.
    pub schedules: UpdateSchedules,
    /// What its subjects bring, by subject and service.
    pub assignments: Vec<Assignment>,
    /// All subjects that it was put into or reports, also those without services.
    pub subjects: Vec<AssignedSubject>,
}

/// A subject that concerns a Unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedSubject {
    /// Id.
    pub id: Uuid,
    /// Name for people.
    pub label: String,
    /// Many Units, or a person.
    pub is_group: bool,
    /// 0 is lowest.
    pub priority: u64,
    /// The name under which Units report it, if it is of that kind.
    pub reported_as: Option<String>,
}

impl AssignedSubject {
    /// Its id as Units know it.
    pub fn on_the_wire(&self) -> String {
        self.reported_as
            .clone()
            .unwrap_or_else(|| self.id.to_string())
    }
}

/// A service that a subject brings.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// For whom.
    pub subject: AssignedSubject,
    /// What.
    pub service: Uuid,
    /// Its name in bundles.
    pub codename: String,
    /// Its name for people.
    pub title: String,
    /// What the assignment sets.
    pub overrides: Overrides,
    /// Its versions that are ready, newest first.
    pub versions: Vec<VersionForCompose>,
}

/// A version that can be delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionForCompose {
    /// SemVer.
    pub version: String,
    /// Digest of its OCI image index.
    pub index_digest: String,
    /// What it can run on, as `os/architecture[/variant]`.
    pub platforms: Vec<String>,
    /// Its item configuration as JSON.
    pub configuration: serde_json::Value,
    /// Labels its bundle asks for.
    pub labels: Vec<String>,
    /// Priority its bundle asks for.
    pub priority: u64,
    /// Instances its bundle asks for.
    pub min_num_instances: u64,
}

impl Db {
    /// Everything the desired state of a Unit is composed from, at one moment.
    pub async fn unit_for_compose(&self, unit: Uuid) -> Result<UnitForCompose, DbError> {
        let mut tx = self.snapshot().await?;
        let row = sqlx::query("SELECT tenant_id, system_uid FROM units WHERE id = $1")
            .bind(unit.to_string())
            .fetch_optional(&mut *tx)
            .await
            .doing("read a Unit")?
            .ok_or_else(|| DbError::not_found("Unit", unit))?;
        let unit_config = ordered_config(&mut *tx, unit).await?;
        let wanted_nodes = wanted_nodes(&mut *tx, unit).await?;
        let schedules = schedules(&mut *tx, unit).await?.in_force;
        let nodes =
            sqlx::query("SELECT document FROM unit_nodes WHERE unit_id = $1 ORDER BY node_id")
                .bind(unit.to_string())
                .fetch_all(&mut *tx)
                .await
                .doing("read the Nodes of a Unit")?
                .iter()
                .map(|row| row.json("document"))
                .collect::<Result<Vec<NodeReport>, DbError>>()?;
        let subjects = sqlx::query(
            "SELECT subjects.id, subjects.label, subjects.is_group, subjects.priority, subjects.reported_as FROM subjects
             JOIN subjects_of_units ON subjects_of_units.subject_id = subjects.id
             WHERE subjects_of_units.unit_id = $1 ORDER BY subjects.id",
        )
        .bind(unit.to_string())
        .fetch_all(&mut *tx)
        .await
        .doing("read the subjects of a Unit")?
        .iter()
        .map(|row| {
            Ok(AssignedSubject {
                id: row.uuid("id")?,
                label: row.text("label")?,
                is_group: row.truth("is_group")?,
                priority: row.count("priority")?,
                reported_as: row.text_or_null("reported_as")?,
            })
        })
        .collect::<Result<Vec<_>, DbError>>()?;
        let mut versions: BTreeMap<Uuid, Vec<VersionForCompose>> = BTreeMap::new();
        let mut assignments = Vec::new();
        for subject in &subjects {
            let rows = sqlx::query(
                "SELECT services.id, services.codename, services.title, subject_services.num_instances,
                 subject_services.labels, subject_services.priority, subject_services.independent FROM subject_services
                 JOIN services ON services.id = subject_services.service_id
                 WHERE subject_services.subject_id = $1 ORDER BY services.id",
            )
            .bind(subject.id.to_string())
            .fetch_all(&mut *tx)
            .await
            .doing("read the services of a subject")?;
            for row in &rows {
                let service = row.uuid("id")?;
                let known = match versions.get(&service) {
                    Some(known) => known.clone(),
                    None => {
                        let read = ready_versions(&mut tx, service).await?;
                        versions.insert(service, read.clone());
                        read
                    }
                };
                assignments.push(Assignment {
                    subject: subject.clone(),
                    service,
                    codename: row.text("codename")?,
                    title: row.text("title")?,
                    overrides: overrides(row)?,
                    versions: known,
                });
            }
        }
        Ok(UnitForCompose {
            id: unit,
            tenant: row.uuid("tenant_id")?,
            system_uid: row.text("system_uid")?,
            unit_config,
            nodes,
            wanted_nodes,
            schedules,
            assignments,
            subjects,
        })
    }

    /// The items of a Unit as it reports them.
    pub async fn unit_items(
        &self,
        actor: &Actor,
        text: &str,
    ) -> Result<aos_api::Page<UnitItem>, DbError> {
        let id = self.find_unit(actor, text).await?;
        let desired = self
            .newest_desired(id)
            .await?
            .map(|desired| desired.content);
        let items = sqlx::query(
            "SELECT unit_items.item_type, unit_items.item_id, unit_items.version, unit_items.state, unit_items.error,
             unit_items.changed_at, services.codename, services.title FROM unit_items
             LEFT JOIN services ON services.id = unit_items.item_id AND services.tenant_id = $2
             WHERE unit_items.unit_id = $1 ORDER BY services.title, unit_items.item_id, unit_items.version",
        )
        .bind(id.to_string())
        .bind(actor.tenant_text())
        .fetch_all(self.readers())
        .await
        .doing("read the items of a Unit")?
        .iter()
        .map(|row| {
            let item_id = row.text("item_id")?;
            let version = row.text("version")?;
            let service = match row.text_or_null("codename")? {
                Some(codename) => Some(ServiceRef {
                    id: item_id.clone(),
                    codename,
                    title: row.text_or_null("title")?.unwrap_or_default(),
                }),
                None => None,
            };
            let is_desired = desired.as_ref().is_some_and(|desired| {
                desired
                    .items
                    .iter()
                    .any(|item| item.item_id == item_id && item.version == version)
            });
            Ok(UnitItem {
                item_type: row.text("item_type")?,
                service,
                state: row.text("state")?,
                error: row.json_or_null::<ErrorInfo>("error")?.map(Into::into),
                desired: is_desired,
                changed_at: row.time("changed_at")?,
                item_id,
                version,
            })
        })
        .collect::<Result<_, DbError>>()?;
        Ok(whole(items))
    }

    /// What is desired and what runs on a Unit, by service and subject.
    pub async fn unit_subjects_services(
        &self,
        actor: &Actor,
        text: &str,
    ) -> Result<aos_api::Page<UnitSubjectService>, DbError> {
        let id = self.find_unit(actor, text).await?;
        let desired = self
            .newest_desired(id)
            .await?
            .map(|desired| desired.content)
            .unwrap_or_default();
        let compose = self.unit_for_compose(id).await?;
        let items = self.unit_items(actor, text).await?.items;
        let mut rows: BTreeMap<(String, String), UnitSubjectService> = BTreeMap::new();
        for assignment in &compose.assignments {
            let service = ServiceRef {
                id: assignment.service.to_string(),
                codename: assignment.codename.clone(),
                title: assignment.title.clone(),
            };
            let subject = SubjectRef {
                id: assignment.subject.on_the_wire(),
                label: assignment.subject.label.clone(),
            };
            rows.insert(
                (service.id.clone(), subject.id.clone()),
                row_for(subject, service, &desired, &items),
            );
        }
        let found = sqlx::query(
            "SELECT unit_instances.item_id, unit_instances.subject_id, unit_instances.instance, unit_instances.version,
             unit_instances.state, unit_instances.node_id, unit_instances.runtime_id, unit_instances.error,
             unit_instances.changed_at, services.codename, services.title, subjects.label FROM unit_instances
             LEFT JOIN services ON services.id = unit_instances.item_id AND services.tenant_id = $2
             LEFT JOIN subjects ON COALESCE(subjects.reported_as, subjects.id) = unit_instances.subject_id
             AND subjects.tenant_id = $2
             WHERE unit_instances.unit_id = $1 AND unit_instances.item_type = 'service' ORDER BY unit_instances.instance",
        )
        .bind(id.to_string())
        .bind(actor.tenant_text())
        .fetch_all(self.readers())
        .await
        .doing("read the instances of a Unit")?;
        for row in &found {
            let key = (row.text("item_id")?, row.text("subject_id")?);
            let codename = row.text_or_null("codename")?;
            let title = row.text_or_null("title")?.unwrap_or_default();
            let label = row.text_or_null("label")?;
            let entry = rows.entry(key.clone()).or_insert_with(|| {
                row_for(
                    SubjectRef {
                        label: label.unwrap_or_else(|| key.1.clone()),
                        id: key.1.clone(),
                    },
                    ServiceRef {
                        codename: codename.unwrap_or_else(|| key.0.clone()),
                        title,
                        id: key.0.clone(),
                    },
                    &desired,
                    &items,
                )
            });
            entry.instances.push(UnitInstance {
                instance_id: row.count("instance")?,
                version: row.text("version")?,
                run_state: row.text("state")?,
                node_id: row.text("node_id")?,
                runtime_id: row.text("runtime_id")?,
                error: row.json_or_null::<ErrorInfo>("error")?.map(Into::into),
                changed_at: row.time("changed_at")?,
            });
        }
        let mut items: Vec<_> = rows.into_values().collect();
        items.sort_by(|a, b| {
            (&a.service.title, &a.service.codename, &a.subject.label).cmp(&(
                &b.service.title,
                &b.service.codename,
                &b.subject.label,
            ))
        });
        Ok(whole(items))
    }
}

fn row_for(
    subject: SubjectRef,
    service: ServiceRef,
    desired: &DesiredContent,
    items: &[UnitItem],
) -> UnitSubjectService {
    let group = desired
        .instances
        .iter()
        .find(|group| group.item_id == service.id && group.subject_id == subject.id);
    let desired_version = group.and_then(|_| {
        desired
            .items
            .iter()
            .find(|item| item.item_id == service.id)
            .map(|item| item.version.clone())
    });
    let installed_version = items
        .iter()
        .filter(|item| item.item_id == service.id && item.state == "installed")
        .max_by_key(|item| Version::parse(&item.version).ok())
        .map(|item| item.version.clone());
    UnitSubjectService {
        subject,
        service,
        desired_version,
        installed_version,
        num_instances: group.map_or(0, |group| group.num_instances),
        priority: group.map_or(0, |group| group.priority),
        labels: group.map(|group| group.labels.clone()).unwrap_or_default(),
        instances: Vec::new(),
    }
}

async fn ready_versions(
    tx: &mut sqlx::Transaction<'static, sqlx::Any>,
    service: Uuid,
) -> Result<Vec<VersionForCompose>, DbError> {
    let mut versions = sqlx::query(
        "SELECT version, index_digest, platforms, configuration, labels, priority, min_num_instances FROM service_versions
         WHERE service_id = $1 AND state = 'ready'",
    )
    .bind(service.to_string())
    .fetch_all(&mut **tx)
    .await
    .doing("read the versions of a service")?
    .iter()
    .map(|row| {
        Ok(VersionForCompose {
            version: row.text("version")?,
            index_digest: row.text("index_digest")?,
            platforms: row.json("platforms")?,
            configuration: row.json("configuration")?,
            labels: row.json("labels")?,
            priority: row.count("priority")?,
            min_num_instances: row.count("min_num_instances")?,
        })
    })
    .collect::<Result<Vec<_>, DbError>>()?;
    versions.sort_by_key(|version| std::cmp::Reverse(Version::parse(&version.version).ok()));
    Ok(versions)
}
