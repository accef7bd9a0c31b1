//! Where each instance of a Unit is and why not elsewhere: what the Unit reported beside what the cloud knows.

use std::collections::BTreeMap;

use aos_api::{
    InstanceWhy, NodeVerdict, OnlineStatus, Unit, UnitInstance, UnitSubjectService, UnitWhy,
    UpdatePhase,
};
use aos_compose::Trust;
use aos_db::{Actor, Db, PlacementReport};

use crate::ApiError;

/// Most texts of the Unit that are shown of its update.
const MOST_SAID: usize = 3;

/// Where the update of a Unit stands, and where its instances are; of one service or of all.
pub(crate) async fn why(
    db: &Db,
    actor: &Actor,
    unit: &str,
    service: Option<&str>,
) -> Result<UnitWhy, ApiError> {
    let unit = db.unit(actor, unit).await?;
    let key = unit.id.to_string();
    let only = match service {
        Some(text) => Some(db.service(actor, text).await?.id.to_string()),
        None => None,
    };
    let input = db
        .unit_for_compose(unit.id)
        .await?
        .input(&Trust::default())
        .map_err(|error| ApiError::internal(&error))?;
    let told = db.placements_told(unit.id).await?;
    let mut instances = Vec::new();
    for row in db.unit_subjects_services(actor, &key).await?.items {
        if only.as_ref().is_some_and(|only| *only != row.service.id) {
            continue;
        }
        let nodes = verdicts(&input, &row);
        let mut reported: BTreeMap<u64, &UnitInstance> = row
            .instances
            .iter()
            .map(|instance| (instance.instance_id, instance))
            .collect();
        let wanted = if row.desired_version.is_some() {
            row.num_instances
        } else {
            0
        };
        for number in 0..wanted {
            let seen = reported.remove(&number);
            instances.push(instance(&unit, &row, number, true, seen, &nodes, &told));
        }
        for (number, seen) in reported {
            instances.push(instance(
                &unit,
                &row,
                number,
                false,
                Some(seen),
                &nodes,
                &told,
            ));
        }
    }
    Ok(UnitWhy {
        update: update(db, &unit).await?,
        system_uid: unit.system_uid,
        instances,
    })
}

/// The Nodes for the version that is desired, with the labels in force.
fn verdicts(input: &aos_compose::Unit, row: &UnitSubjectService) -> Vec<NodeVerdict> {
    let version = input
        .subjects
        .iter()
        .flat_map(|subject| &subject.services)
        .filter(|assigned| assigned.service.id.as_str() == row.service.id)
        .flat_map(|assigned| &assigned.service.versions)
        .find(|version| Some(&version.version) == row.desired_version.as_ref());
    let Some(version) = version else {
        return Vec::new();
    };
    aos_compose::verdicts(input, version, &row.labels)
        .into_iter()
        .map(|verdict| NodeVerdict {
            node_id: verdict.node.to_string(),
            excluded_by: verdict.excluded_by.map(|rule| rule.as_str().to_owned()),
            said_by_unit: false,
            text: verdict.text,
        })
        .collect()
}

fn instance(
    unit: &Unit,
    row: &UnitSubjectService,
    number: u64,
    desired: bool,
    seen: Option<&UnitInstance>,
    nodes: &[NodeVerdict],
    told: &[PlacementReport],
) -> InstanceWhy {
    let told = told.iter().find(|one| {
        one.item_id == row.service.id && one.subject_id == row.subject.id && one.instance == number
    });
    let mut nodes = nodes.to_vec();
    for (node, rule, text) in told.iter().flat_map(|told| &told.excluded) {
        let verdict = NodeVerdict {
            node_id: node.clone(),
            excluded_by: Some(rule.clone()),
            said_by_unit: true,
            text: text.clone(),
        };
        // The scheduler knows what is used and what is left; the cloud does not.
        match nodes.iter_mut().find(|known| known.node_id == *node) {
            Some(known) => *known = verdict,
            None => nodes.push(verdict),
        }
    }
    InstanceWhy {
        placement: told.map(|told| told.reason.clone()),
        service: row.service.clone(),
        subject: row.subject.clone(),
        instance_id: number,
        desired,
        run_state: seen.map(|seen| seen.run_state.clone()),
        node_id: seen
            .map(|seen| seen.node_id.clone())
            .filter(|node| !node.is_empty()),
        reported: seen.and_then(|seen| seen.error.clone()),
        waits_for: waits_for(unit, row, desired, seen, &nodes),
        nodes,
    }
}

fn waits_for(
    unit: &Unit,
    row: &UnitSubjectService,
    desired: bool,
    seen: Option<&UnitInstance>,
    nodes: &[NodeVerdict],
) -> Option<String> {
    if !desired {
        return Some("it is not desired any more: the Unit is to stop it".into());
    }
    if let Some(error) = seen.and_then(|seen| seen.error.as_ref()) {
        return Some(error.message.clone());
    }
    match seen {
        Some(seen)
            if seen.run_state == "active"
                && row.desired_version.as_ref() == Some(&seen.version) =>
        {
            return None;
        }
        Some(seen) if row.desired_version.as_ref() == Some(&seen.version) => {
            return Some(format!("the Unit reports it {}", seen.run_state));
        }
        _ => {}
    }
    // The Unit does not speak of the version that is desired.
    let found = if unit.online_status == OnlineStatus::Offline {
        "the Unit is offline"
    } else if !nodes.is_empty() && nodes.iter().all(|node| node.excluded_by.is_some()) {
        "no Node may take it"
    } else {
        match unit.update_phase {
            UpdatePhase::WaitingForUnit => "the Unit has not taken over the desired state",
            UpdatePhase::Downloading => "its image is being fetched",
            UpdatePhase::Pending => "all is fetched; the update waits to be carried out",
            _ => "the Unit has not placed it yet",
        }
    };
    Some(found.to_owned())
}

/// What the Unit said of its update as a whole, while that is not done. Whatever it waits for is over once it installs.
async fn update(db: &Db, unit: &Unit) -> Result<Vec<String>, ApiError> {
    if let Some(update) = &unit.update {
        return Ok(update.texts());
    }
    // A Unit of another make says it in alerts only.
    let stands = matches!(
        unit.update_phase,
        UpdatePhase::Downloading | UpdatePhase::Pending | UpdatePhase::Failed
    );
    match db.newest_desired(unit.id).await? {
        Some(desired) if stands => Ok(db
            .said_of_update(unit.id, desired.composed_at, MOST_SAID)
            .await?),
        _ => Ok(Vec::new()),
    }
}
