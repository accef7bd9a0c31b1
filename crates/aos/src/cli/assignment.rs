//! `aos assign` and `aos unassign`: which services run on which Units.
//!
//! Assignments are made through Subjects (Units × services). Who names no Subject gets one a Unit,
//! labelled `unit <system id>`, so that "this service on this Unit" is one command.

use aos_api::{NewAssignedService, NewAssignment, Overrides, Subject, SubjectUnit, Unit, paths};
use clap::Args;

use super::{pick, status};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::table;

/// Assign services to Units.
#[derive(Args)]
pub struct Assign {
    /// Codenames or ids of services.
    #[arg(required = true)]
    services: Vec<String>,
    /// System id, id or title of a Unit; may be given more than once.
    #[arg(
        long = "unit",
        value_name = "UNIT",
        required_unless_present = "subject"
    )]
    units: Vec<String>,
    /// Assign through this Subject (label or id); it is made if there is none.
    #[arg(long, value_name = "LABEL")]
    subject: Option<String>,
    /// How many instances run on each Unit. What is not named stays as it is.
    #[arg(long, value_name = "N")]
    instances: Option<u64>,
    /// Run only on Nodes that have this label; may be given more than once.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Run on any Node again.
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// Priority of the instances.
    #[arg(long, value_name = "N")]
    priority: Option<u64>,
    /// They may fail by themselves: the rest of an update stays.
    #[arg(long)]
    independent: bool,
    /// If the Subject is made: the name under which Units report it by themselves. It then concerns every Unit that
    /// reports it, and its services run only while the Unit does.
    #[arg(long, value_name = "NAME", requires = "subject")]
    reported_as: Option<String>,
    /// Wait until the Units run what was assigned, and fail if they cannot.
    #[arg(long)]
    wait: bool,
    /// Give up waiting after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
    timeout: u64,
}

/// Take services away from Units.
#[derive(Args)]
pub struct Unassign {
    /// Codenames or ids of services.
    #[arg(required = true)]
    services: Vec<String>,
    /// System id, id or title of a Unit; may be given more than once.
    #[arg(
        long = "unit",
        value_name = "UNIT",
        required_unless_present = "subject"
    )]
    units: Vec<String>,
    /// Take them from this Subject (label or id), and so from all its Units.
    #[arg(long, value_name = "LABEL", conflicts_with = "units")]
    subject: Option<String>,
    /// Wait until the Units have removed them.
    #[arg(long)]
    wait: bool,
    /// Give up waiting after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
    timeout: u64,
}

/// The label of the Subject for one Unit.
fn own_label(unit: &Unit) -> String {
    format!("unit {}", unit.system_uid)
}

/// `aos assign`.
pub async fn assign(command: Assign) -> Result<(), Failure> {
    let client = super::cloud()?;
    let mut units = Vec::new();
    for name in &command.units {
        units.push(pick::unit(&client, name).await?);
    }
    let mut services = Vec::new();
    let mut versions = Vec::new();
    for name in &command.services {
        let service = pick::service(&client, name).await?;
        versions.push((service.codename.clone(), service.latest_version));
        services.push(service.codename);
    }
    let labels = (command.no_labels || !command.labels.is_empty()).then_some(command.labels);
    let groups: Vec<(String, Vec<Unit>)> = match &command.subject {
        Some(label) => vec![(label.clone(), units.clone())],
        None => units
            .iter()
            .map(|unit| (own_label(unit), vec![unit.clone()]))
            .collect(),
    };
    let overrides = Overrides {
        num_instances: command.instances,
        labels: labels.clone(),
        priority: command.priority,
        independent: command.independent.then_some(true),
    };
    for (label, members) in groups {
        let body = NewAssignment {
            subject: label,
            reported_as: command.reported_as.clone(),
            system_uids: members.into_iter().map(|unit| unit.system_uid).collect(),
            services: services
                .iter()
                .map(|service| NewAssignedService {
                    service: service.clone(),
                    overrides: overrides.clone(),
                })
                .collect(),
            ..NewAssignment::default()
        };
        let subject: Subject = client.post(paths::ASSIGNMENTS, &body).await?;
        let id = subject.id.to_string();
        table::say(format!(
            "assigned {} through Subject `{}`",
            services.join(", "),
            subject.label
        ));
        if command.units.is_empty() && command.wait {
            units.extend(members_of(&client, &id).await?);
        }
    }
    if command.wait {
        for unit in &units {
            let wanted = status::Wanted {
                services: &versions,
                there: true,
                instances: command.instances,
                labels: labels.as_deref(),
            };
            status::wait_for(&client, unit, &wanted, command.timeout).await?;
        }
    }
    Ok(())
}

/// `aos unassign`.
pub async fn unassign(command: Unassign) -> Result<(), Failure> {
    let client = super::cloud()?;
    let mut services = Vec::new();
    for name in &command.services {
        services.push(pick::service(&client, name).await?.codename);
    }
    let mut units = Vec::new();
    if let Some(label) = &command.subject {
        let subject = pick::subject(&client, label)
            .await?
            .ok_or_else(|| no_subject(label))?;
        if command.wait {
            units = members_of(&client, &subject.id.to_string()).await?;
        }
        take(&client, &subject, &services).await?;
    }
    for name in &command.units {
        let unit = pick::unit(&client, name).await?;
        let label = own_label(&unit);
        let Some(subject) = pick::subject(&client, &label).await? else {
            return Err(elsewhere(&client, &unit, &services).await);
        };
        let here = |service: &&String| {
            subject
                .services
                .iter()
                .any(|entry| entry.service.codename == **service)
        };
        let missing: Vec<_> = services
            .iter()
            .filter(|service| !here(service))
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(elsewhere(&client, &unit, &missing).await);
        }
        take(&client, &subject, &services).await?;
        units.push(unit);
    }
    let gone: Vec<_> = services.into_iter().map(|name| (name, None)).collect();
    if command.wait {
        for unit in &units {
            let wanted = status::Wanted {
                services: &gone,
                there: false,
                instances: None,
                labels: None,
            };
            status::wait_for(&client, unit, &wanted, command.timeout).await?;
        }
    }
    Ok(())
}

async fn take(client: &Client, subject: &Subject, services: &[String]) -> Result<(), Failure> {
    for service in services {
        let path = paths::fill(paths::SUBJECT_SERVICE, &[&subject.id.to_string(), service]);
        client.delete(&path).await?;
        table::say(format!("took {service} from Subject `{}`", subject.label));
    }
    Ok(())
}

async fn members_of(client: &Client, subject: &str) -> Result<Vec<Unit>, Failure> {
    let members: Vec<SubjectUnit> = client
        .all(&paths::fill(paths::SUBJECT_UNITS, &[subject]))
        .await?;
    let mut units = Vec::new();
    for member in members {
        units.push(
            client
                .get(&paths::fill(paths::UNIT, &[&member.id.to_string()]))
                .await?,
        );
    }
    Ok(units)
}

/// Says through which Subjects a Unit has these services.
async fn elsewhere(client: &Client, unit: &Unit, services: &[String]) -> Failure {
    let path = paths::fill(paths::UNIT_SUBJECTS_SERVICES, &[&unit.id.to_string()]);
    let rows: Vec<aos_api::UnitSubjectService> = client.all(&path).await.unwrap_or_default();
    // What was taken away a moment ago is still reported, but desired no more.
    let own = own_label(unit);
    let mut labels: Vec<_> = rows
        .into_iter()
        .filter(|row| row.desired_version.is_some() && row.subject.label != own)
        .filter(|row| services.contains(&row.service.codename))
        .map(|row| format!("`{}`", row.subject.label))
        .collect();
    labels.sort();
    labels.dedup();
    let (names, uid) = (services.join(", "), &unit.system_uid);
    if labels.is_empty() {
        Failure::new(format!("{names} is not assigned to Unit {uid}"))
            .hint(format!("`aos status {uid}` shows what is assigned"))
            .exit(Exit::NotFound)
    } else {
        Failure::new(format!("{names} is not assigned to Unit {uid} by itself"))
            .exit(Exit::NotFound)
            .why(format!("it comes through Subject {}", labels.join(", ")))
            .hint("say --subject <label> to take it from all Units of that Subject")
    }
}

fn no_subject(label: &str) -> Failure {
    Failure::new(format!("there is no Subject `{label}`")).exit(Exit::NotFound)
}
