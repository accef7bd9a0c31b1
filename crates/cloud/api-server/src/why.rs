use std::time::Duration;

use aos_api::{
    ExplainedRule, Explanation, ListQuery, OnlineStatus, RuleOutcome, ServiceRef, Severity,
    TimelineEvent, TimelineKind, Unit, UnitInstance, UnitStatus, UnitSubjectService,
};
use aos_compose::{Outcome, ServiceReport, Trust};
use aos_db::{Actor, Db, StoredDesired, UnitForCompose};
use aos_time::{Clock, SystemClock};

use crate::ApiError;

/// The rules in their order, for those that are not looked at.
const ORDER: [&str; 10] = [
    "unit_provisioned",
    "assigned",
    "version_ready",
    "platform_fits",
    "labels_fit",
    "in_desired_state",
    "unit_linked",
    "acknowledged",
    "installed",
    "running",
];

/// Collects rules until one does not pass; what follows is not looked at.
struct Rules {
    rules: Vec<ExplainedRule>,
    stopped: bool,
}

impl Rules {
    fn add(
        &mut self,
        rule: &str,
        outcome: RuleOutcome,
        text: impl Into<String>,
        hint: Option<&str>,
    ) {
        if self.stopped {
            return;
        }
        self.stopped = outcome != RuleOutcome::Pass;
        self.rules.push(ExplainedRule {
            rule: rule.to_owned(),
            outcome,
            text: text.into(),
            hint: hint.map(str::to_owned),
        });
    }

    fn finish(mut self, unit: &Unit, service: ServiceRef) -> Explanation {
        let reason = self
            .rules
            .iter()
            .find(|rule| rule.outcome != RuleOutcome::Pass)
            .cloned();
        // What comes before the reason and was not told of does not apply here, such as labels that nobody asks for.
        let place = |name: &str| ORDER.iter().position(|rule| *rule == name);
        let reached = reason.as_ref().and_then(|reason| place(&reason.rule));
        for rule in ORDER {
            let later = reached.is_some_and(|reached| place(rule) > Some(reached));
            if later && !self.rules.iter().any(|known| known.rule == rule) {
                self.rules.push(ExplainedRule {
                    rule: rule.to_owned(),
                    outcome: RuleOutcome::NotChecked,
                    text: "not looked at: an earlier rule does not hold".into(),
                    hint: None,
                });
            }
        }
        self.rules
            .sort_by_key(|rule| place(&rule.rule).unwrap_or(ORDER.len()));
        let name = if service.title.is_empty() {
            &service.codename
        } else {
            &service.title
        };
        let summary = match &reason {
            None => format!("{name} runs as desired"),
            Some(rule) if rule.outcome == RuleOutcome::Waiting => {
                format!("{name} is on its way: {}", rule.text)
            }
            Some(rule) => format!("{name} is not as it should be: {}", rule.text),
        };
        Explanation {
            system_uid: unit.system_uid.clone(),
            as_desired: reason.is_none(),
            summary,
            rules: self.rules,
            service,
        }
    }
}

/// Why a service is or is not on a Unit.
pub(crate) async fn explain(
    db: &Db,
    actor: &Actor,
    unit: &str,
    service: &str,
) -> Result<Explanation, ApiError> {
    let unit = db.unit(actor, unit).await?;
    let service = db.service(actor, service).await?;
    let key = unit.id.to_string();
    let compose = db.unit_for_compose(unit.id).await?;
    let desired = db.newest_desired(unit.id).await?;
    let rows = db.unit_subjects_services(actor, &key).await?.items;
    let items = db.unit_items(actor, &key).await?.items;
    let service = ServiceRef {
        id: service.id.to_string(),
        codename: service.codename,
        title: service.title,
    };
    let mut rules = Rules {
        rules: Vec::new(),
        stopped: false,
    };
    match unit.status {
        UnitStatus::Provisioned => rules.add(
            "unit_provisioned",
            RuleOutcome::Pass,
            "the Unit has its certificates",
            None,
        ),
        UnitStatus::New => rules.add(
            "unit_provisioned",
            RuleOutcome::Fail,
            "the Unit has no certificates yet",
            Some("enrol it: make a claim code and run `aos unit join` on it"),
        ),
    }
    let rows: Vec<&UnitSubjectService> = rows
        .iter()
        .filter(|row| row.service.id == service.id)
        .collect();
    assigned(&mut rules, &compose, &service, &rows);
    let version = composed(&mut rules, &compose, &service)?;
    link(
        &mut rules,
        &unit,
        desired.as_ref(),
        &service,
        version.as_deref(),
    );
    if let Some(version) = version {
        let item = items
            .iter()
            .find(|item| item.item_id == service.id && item.version == version);
        let told = item.and_then(|item| item.error.as_ref());
        match item.map(|item| item.state.as_str()) {
            Some("installed") => rules.add(
                "installed",
                RuleOutcome::Pass,
                format!("version {version} is installed"),
                None,
            ),
            Some("failed") => rules.add(
                "installed",
                RuleOutcome::Fail,
                format!(
                    "version {version} failed{}",
                    told.map_or_else(String::new, |error| format!(": {}", error.message))
                ),
                Some("mend what it says; a newer version or assignment makes the Unit try again"),
            ),
            Some(state) => rules.add(
                "installed",
                RuleOutcome::Waiting,
                format!("version {version} is {state}"),
                None,
            ),
            None => rules.add(
                "installed",
                RuleOutcome::Waiting,
                format!("the Unit does not speak of version {version} yet"),
                None,
            ),
        }
        let newest = db.timeline(actor, &key, &ListQuery::default()).await?;
        let trouble = newest
            .items
            .iter()
            .find(|event| is_trouble(event, &service, &version));
        running(&mut rules, &rows, &version, trouble);
    }
    Ok(rules.finish(&unit, service))
}

fn assigned(
    rules: &mut Rules,
    compose: &UnitForCompose,
    service: &ServiceRef,
    rows: &[&UnitSubjectService],
) {
    let subjects: Vec<&str> = compose
        .assignments
        .iter()
        .filter(|assignment| assignment.service.to_string() == service.id)
        .map(|assignment| assignment.subject.label.as_str())
        .collect();
    if !subjects.is_empty() {
        rules.add(
            "assigned",
            RuleOutcome::Pass,
            format!("assigned by subject {}", subjects.join(", ")),
            None,
        );
    } else if rows.iter().any(|row| !row.instances.is_empty()) {
        rules.add(
            "assigned",
            RuleOutcome::Fail,
            "no subject of this Unit brings it; what still runs is removed",
            Some("assign it to a subject of this Unit if it should stay"),
        );
    } else {
        rules.add(
            "assigned",
            RuleOutcome::Fail,
            "no subject of this Unit brings it",
            Some("assign it: `aos assign`, or the Assignments page"),
        );
    }
}

/// What the composer says of it: the version it chose, if it did.
fn composed(
    rules: &mut Rules,
    compose: &UnitForCompose,
    service: &ServiceRef,
) -> Result<Option<String>, ApiError> {
    let input = compose
        .input(&Trust::default())
        .map_err(|error| ApiError::internal(&error))?;
    let composed = aos_compose::compose(&input);
    let reports: Vec<&ServiceReport> = composed
        .reports
        .iter()
        .filter(|report| report.service.as_str() == service.id)
        .collect();
    // With several subjects the one that fares worst is what people ask about.
    let badness = |report: &&&ServiceReport| {
        report
            .rules
            .iter()
            .map(|rule| match rule.outcome {
                Outcome::Pass => 0,
                Outcome::Waiting => 1,
                Outcome::Fail => 2,
            })
            .max()
            .unwrap_or(0)
    };
    let Some(report) = reports.iter().max_by_key(badness) else {
        return Ok(None);
    };
    for rule in &report.rules {
        let outcome = match rule.outcome {
            Outcome::Pass => RuleOutcome::Pass,
            Outcome::Fail => RuleOutcome::Fail,
            Outcome::Waiting => RuleOutcome::Waiting,
        };
        rules.add(
            rule.name.as_str(),
            outcome,
            rule.text.clone(),
            rule.hint.as_deref(),
        );
    }
    Ok(report.version.clone())
}

fn link(
    rules: &mut Rules,
    unit: &Unit,
    desired: Option<&StoredDesired>,
    service: &ServiceRef,
    version: Option<&str>,
) {
    match unit.online_status {
        OnlineStatus::Offline => rules.add(
            "unit_linked",
            RuleOutcome::Waiting,
            "the Unit is offline; it gets its desired state when it comes",
            Some("check its network, and that `aos cm` runs on its main Node"),
        ),
        OnlineStatus::Connected | OnlineStatus::Online => {
            rules.add("unit_linked", RuleOutcome::Pass, "the Unit is linked", None);
        }
    }
    let current = desired.filter(|desired| {
        desired
            .content
            .items
            .iter()
            .any(|item| item.item_id == service.id && Some(item.version.as_str()) == version)
    });
    match current {
        Some(desired) if desired.acked_at.is_some() => rules.add(
            "acknowledged",
            RuleOutcome::Pass,
            format!("the Unit has desired state {}", desired.number),
            None,
        ),
        Some(desired) => rules.add(
            "acknowledged",
            RuleOutcome::Waiting,
            format!("desired state {} is not acknowledged yet", desired.number),
            None,
        ),
        None => rules.add(
            "acknowledged",
            RuleOutcome::Waiting,
            "its new desired state is being composed",
            None,
        ),
    }
}

/// An instance that went down is not trusted right after it is up again: one that ends over and over is active each time
/// for a moment.
const DISTRUST: Duration = Duration::from_secs(60);

fn is_trouble(event: &TimelineEvent, service: &ServiceRef, version: &str) -> bool {
    event.kind == TimelineKind::Instance
        && event.severity != Severity::Info
        && event.item_id.as_deref() == Some(service.id.as_str())
        && event.version.as_deref() == Some(version)
        && SystemClock.now().since(event.at) < DISTRUST
}

fn running(
    rules: &mut Rules,
    rows: &[&UnitSubjectService],
    version: &str,
    trouble: Option<&TimelineEvent>,
) {
    let wanted: u64 = rows.iter().map(|row| row.num_instances).sum();
    let of_version = || {
        rows.iter()
            .flat_map(|row| &row.instances)
            .filter(|instance| instance.version == version)
    };
    if let Some(failed) = of_version().find(|instance| instance.run_state == "failed") {
        let told = failed
            .error
            .as_ref()
            .map_or_else(String::new, |error| format!(": {}", error.message));
        rules.add(
            "running",
            RuleOutcome::Fail,
            format!(
                "instance {} on Node {} failed{told}",
                failed.instance_id, failed.node_id
            ),
            Some("look at the Unit's timeline for what came before"),
        );
        return;
    }
    // Inactive without complaint: it was meant to end, and has.
    let well = |instance: &UnitInstance| match &*instance.run_state {
        "active" => true,
        "inactive" => instance.error.is_none(),
        _ => false,
    };
    let active = of_version().filter(|one| well(one)).count() as u64;
    let seconds = |event: &TimelineEvent| SystemClock.now().since(event.at).as_secs();
    let starting =
        |instance: &&UnitInstance| instance.run_state != "active" && instance.error.is_some();
    if active >= wanted
        && let Some(trouble) = trouble
    {
        rules.add(
            "running",
            RuleOutcome::Waiting,
            format!(
                "{active} of {wanted} instances are active, but {} s ago: {}",
                seconds(trouble),
                trouble.text
            ),
            Some("look at its log; if it stays up for a minute this goes away"),
        );
    } else if let Some(instance) = of_version().find(starting) {
        let error = instance
            .error
            .as_ref()
            .map_or("", |error| error.message.as_str());
        rules.add(
            "running",
            RuleOutcome::Waiting,
            format!(
                "{active} of {wanted} instances are active; instance {} on Node {} is {}: {error}",
                instance.instance_id, instance.node_id, instance.run_state
            ),
            Some("it is started by itself; look at what it waits for, and at its log if it does not come up"),
        );
    } else if active >= wanted {
        rules.add(
            "running",
            RuleOutcome::Pass,
            format!("{active} of {wanted} instances are active"),
            None,
        );
    } else {
        rules.add(
            "running",
            RuleOutcome::Waiting,
            format!("{active} of {wanted} instances are active"),
            None,
        );
    }
}
