use aos_api::{UpdateSchedule, WantedNodeState};
use aos_cloud_protocol::DesiredNodeState;
use aos_compose::{Assigned, Node, Platform, Readiness, Service, Subject, Trust, Unit, Version};
use aos_types::{ArchInfo, ItemConfig, ItemId, OsInfo, OwnerId, Schedule, SubjectId, SubjectType};

use crate::{Assignment, UnitForCompose, VersionForCompose};

/// What is stored of a Unit cannot be handed to the composer.
#[derive(Debug, thiserror::Error)]
#[error("the desired state of Unit `{unit}` cannot be composed: {why}")]
pub struct ComposeInputError {
    unit: String,
    why: String,
}

impl UnitForCompose {
    /// The Unit as the composer takes it.
    pub fn input(&self, trust: &Trust) -> Result<Unit, ComposeInputError> {
        self.convert(trust).map_err(|why| ComposeInputError {
            unit: self.system_uid.clone(),
            why,
        })
    }

    fn convert(&self, trust: &Trust) -> Result<Unit, String> {
        let owner = OwnerId::new(self.tenant.to_string()).map_err(|error| error.to_string())?;
        let subjects = self
            .subjects
            .iter()
            .map(|subject| {
                Ok(Subject {
                    id: SubjectId::new(subject.on_the_wire()).map_err(|error| error.to_string())?,
                    is_reported: subject.reported_as.is_some(),
                    subject_type: if subject.is_group {
                        SubjectType::Group
                    } else {
                        SubjectType::User
                    },
                    priority: (subject.priority > 0).then_some(subject.priority),
                    services: self
                        .assignments
                        .iter()
                        .filter(|assignment| assignment.subject.id == subject.id)
                        .map(|assignment| assigned(assignment, &owner))
                        .collect::<Result<_, String>>()?,
                })
            })
            .collect::<Result<_, String>>()?;
        Ok(Unit {
            nodes: self
                .nodes
                .iter()
                .map(|node| Node {
                    id: node.info.id.clone(),
                    node_type: node.info.node_type.clone(),
                    wanted: self.wanted_nodes.get(node.info.id.as_str()).map(
                        |wanted| match wanted {
                            WantedNodeState::Provisioned => DesiredNodeState::Provisioned,
                            WantedNodeState::Paused => DesiredNodeState::Paused,
                        },
                    ),
                    runtimes: node.runtimes.clone(),
                    resources: node
                        .resources
                        .iter()
                        .map(|resource| resource.name.clone())
                        .collect(),
                    state: node.info.state,
                    connected: node.connected,
                })
                .collect(),
            unit_config: self.unit_config.clone(),
            sota_schedule: schedule(self.schedules.sota.as_ref())?,
            fota_schedule: schedule(self.schedules.fota.as_ref())?,
            subjects,
            trust: trust.clone(),
        })
    }
}

fn assigned(assignment: &Assignment, owner: &OwnerId) -> Result<Assigned, String> {
    Ok(Assigned {
        service: Service {
            id: ItemId::new(assignment.service.to_string()).map_err(|error| error.to_string())?,
            codename: assignment.codename.clone(),
            owner: owner.clone(),
            versions: assignment
                .versions
                .iter()
                .map(version)
                .collect::<Result<_, String>>()?,
        },
        num_instances: assignment.overrides.num_instances,
        labels: assignment.overrides.labels.clone(),
        priority: assignment.overrides.priority,
        independent: assignment.overrides.independent == Some(true),
    })
}

fn version(version: &VersionForCompose) -> Result<Version, String> {
    let index_digest = version
        .index_digest
        .parse()
        .map_err(|error| format!("version {}: {error}", version.version))?;
    let (readiness, runtimes, resources) =
        match serde_json::from_value::<ItemConfig>(version.configuration.clone()) {
            Ok(config) => {
                let resources = config.resources.into_iter().map(|it| it.name).collect();
                (Readiness::Ready, config.runtimes, resources)
            }
            Err(error) => (
                Readiness::Unusable(format!("its configuration cannot be read: {error}")),
                Vec::new(),
                Vec::new(),
            ),
        };
    Ok(Version {
        version: version.version.clone(),
        readiness,
        index_digest,
        platforms: version
            .platforms
            .iter()
            .map(|text| platform(text))
            .collect(),
        runtimes,
        resources,
        min_instances: version.min_num_instances,
        labels: version.labels.clone(),
        priority: version.priority,
    })
}

fn schedule(schedule: Option<&UpdateSchedule>) -> Result<Option<Schedule>, String> {
    schedule
        .map(|schedule| schedule.to_wire().map_err(|error| error.to_string()))
        .transpose()
}

/// `os/architecture[/variant]`.
fn platform(text: &str) -> Platform {
    let mut parts = text.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let (os, architecture, variant) = (part(), part(), part());
    Platform {
        os: OsInfo {
            os,
            ..OsInfo::default()
        },
        arch: ArchInfo {
            architecture,
            variant: (!variant.is_empty()).then_some(variant),
        },
    }
}
