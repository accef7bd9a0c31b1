//! What a Unit used, as a chart wants it: thinned out, beside the limits that its configurations say.

use std::{collections::BTreeMap, time::Duration};

use aos_alert::{Rule, WrongRule};
use aos_api::{InstanceUsage, MonitoringQuery, NodeUsage, UnitMonitoring, UsageLimit, UsagePoint};
use aos_db::{Actor, Db, UsageSeries};
use aos_time::Timestamp;
use aos_types::{AlertRule, AlertRules, ItemConfig, NodeId, NodeInfo};

use crate::ApiError;

/// The span that is given when none is asked for.
const HOUR: Duration = Duration::from_secs(3600);
/// Points of each if nothing else is asked for, and the bounds of what can be.
const POINTS: u32 = 300;
const LEAST_POINTS: u32 = 2;
const MOST_POINTS: u32 = 2000;
/// Usage that does not change is told so often at the latest: a point of this time before is still true.
const HOLDS: Duration = Duration::from_secs(1500);
/// The longest span.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The answer to a query.
pub(crate) async fn monitoring(
    db: &Db,
    actor: &Actor,
    unit: &str,
    query: &MonitoringQuery,
) -> Result<UnitMonitoring, ApiError> {
    let unit = db.unit(actor, unit).await?;
    let till = query.datetime_till.unwrap_or_else(|| db.now());
    let latest = query.datetime_from.as_deref() == Some("latest");
    let from = match query.datetime_from.as_deref() {
        None => till - HOUR,
        Some("latest") => till,
        Some(text) => text.parse().map_err(|error| {
            ApiError::invalid("datetime_from", format!("`latest` or a time: {error}"))
        })?,
    };
    if from > till {
        return Err(ApiError::invalid(
            "datetime_from",
            "is later than `datetime_till`",
        ));
    }
    if till.since(from) > LONGEST {
        return Err(ApiError::invalid(
            "datetime_from",
            "is more than a year before `datetime_till`",
        ));
    }
    let most = query.points.unwrap_or(POINTS);
    if !(LEAST_POINTS..=MOST_POINTS).contains(&most) {
        let why = format!("must be {LEAST_POINTS} to {MOST_POINTS}");
        return Err(ApiError::invalid("points", why));
    }
    let span = (from, till);
    let (all, reports) = (
        db.usage(actor, unit.id, span, HOLDS).await?,
        db.node_reports(unit.id).await?,
    );
    let (config, items) = (
        db.unit_config_of(unit.id).await?,
        db.running_configs(unit.id).await?,
    );
    let mut answer = UnitMonitoring {
        datetime_from: from,
        datetime_till: till,
        nodes: Vec::new(),
        instances: Vec::new(),
        alerts: db.usage_alerts(actor, unit.id, span).await?,
    };
    for series in all {
        let UsageSeries {
            node,
            instance,
            points,
        } = series;
        let points = thin(points, span, if latest { 1 } else { most });
        let report = reports
            .iter()
            .map(|report| &report.info)
            .find(|info| info.id.as_str() == node);
        match instance {
            None => {
                let rules = config.as_ref().and_then(|config| {
                    let id = NodeId::new(&node).ok()?;
                    let group = report
                        .map(|report| report.node_type.as_str())
                        .unwrap_or_default();
                    config.for_node(&id, group).alert_rules
                });
                answer.nodes.push(NodeUsage {
                    max_dmips: report.map_or(0, |report| report.max_dmips),
                    total_ram: report.map_or(0, |report| report.total_ram),
                    partitions: report.map(partitions).unwrap_or_default(),
                    limits: limits(rules.as_ref(), None, report),
                    node_id: node,
                    points,
                });
            }
            Some((service, subject, instance_id)) => {
                let item = items.get(&service.id);
                let rules = item.and_then(|item| item.alert_rules.as_ref());
                answer.instances.push(InstanceUsage {
                    limits: limits(rules, item, report),
                    service,
                    subject,
                    instance_id,
                    node_id: node,
                    points,
                });
            }
        }
    }
    Ok(answer)
}

fn partitions(report: &NodeInfo) -> BTreeMap<String, u64> {
    report
        .partitions
        .iter()
        .map(|one| (one.name.clone(), one.total_size))
        .collect()
}

/// At most `most` points, the highest of each span, so that a peak is not lost; and always the last.
fn thin(
    points: Vec<UsagePoint>,
    (from, till): (Timestamp, Timestamp),
    most: u32,
) -> Vec<UsagePoint> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if points.len() <= most {
        return points;
    }
    let length = till.since(from).as_micros().max(1);
    let last = points.last().cloned();
    let mut thinned: BTreeMap<u128, UsagePoint> = BTreeMap::new();
    for point in points {
        let place = point.at.since(from).as_micros() * (most as u128 - 1).max(1) / length;
        match thinned.get_mut(&place) {
            None => {
                thinned.insert(place, point);
            }
            Some(kept) => {
                kept.cpu = kept.cpu.max(point.cpu);
                kept.ram = kept.ram.max(point.ram);
                kept.download = point.download;
                kept.upload = point.upload;
                kept.partitions = point.partitions;
                kept.at = point.at;
            }
        }
    }
    let mut points: Vec<UsagePoint> = thinned.into_values().collect();
    if let (Some(end), Some(last)) = (points.last_mut(), last) {
        *end = last;
    }
    let surplus = points.len().saturating_sub(most);
    points.drain(..surplus);
    points
}

/// The limits that rules and quotas mean on this Node.
fn limits(
    rules: Option<&AlertRules>,
    item: Option<&ItemConfig>,
    report: Option<&NodeInfo>,
) -> Vec<UsageLimit> {
    let mut all: BTreeMap<String, UsageLimit> = BTreeMap::new();
    let mut put = |parameter: &str, rule: Option<Result<Rule, WrongRule>>, quota: Option<u64>| {
        let rule = rule.and_then(Result::ok);
        if rule.is_none() && quota.is_none() {
            return;
        }
        let limit = UsageLimit {
            parameter: parameter.to_owned(),
            raise: rule.map(|rule| rule.upper),
            fall: rule.map(|rule| rule.lower),
            quota,
        };
        all.insert(parameter.to_owned(), limit);
    };
    let none = AlertRules::default();
    let rules = rules.unwrap_or(&none);
    let quotas = item.map(|item| item.quotas).unwrap_or_default();
    let percent =
        |rule: Option<AlertRule>, size: u64| rule.map(|rule| Rule::of_percent(&rule, size));
    let (dmips, ram) = report.map_or((0, 0), |report| (report.max_dmips, report.total_ram));
    put("cpu", percent(rules.cpu, dmips), quotas.cpu_dmips_limit);
    put("ram", percent(rules.ram, ram), quotas.ram_limit);
    put(
        "download",
        rules.download.map(|rule| Rule::of_amount(&rule)),
        quotas.download_limit,
    );
    put(
        "upload",
        rules.upload.map(|rule| Rule::of_amount(&rule)),
        quotas.upload_limit,
    );
    let size = |name: &str| {
        let partitions = report
            .map(|report| report.partitions.as_slice())
            .unwrap_or_default();
        let of_type = |kind: &str| {
            partitions
                .iter()
                .find(|one| one.types.iter().any(|kind_of| kind_of == kind))
        };
        let found = partitions
            .iter()
            .find(|one| one.name == name)
            .or_else(|| of_type(name));
        found.map_or(0, |one| one.total_size)
    };
    for partition in &rules.partitions {
        let quota = match partition.name.as_str() {
            "storages" => quotas.storage_limit,
            "states" => quotas.state_limit,
            _ => None,
        };
        put(
            &partition.name,
            Some(Rule::of_percent(&partition.rule, size(&partition.name))),
            quota,
        );
    }
    for (name, quota) in [
        ("storages", quotas.storage_limit),
        ("states", quotas.state_limit),
    ] {
        if !rules.partitions.iter().any(|one| one.name == name) {
            put(name, None, quota);
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(second: i64, cpu: u64) -> UsagePoint {
        UsagePoint {
            at: Timestamp::from_secs(second),
            cpu,
            ram: 1,
            download: None,
            upload: None,
            partitions: BTreeMap::new(),
        }
    }

    #[test]
    fn a_peak_survives_thinning_and_the_end_is_exact() {
        let span = (Timestamp::from_secs(0), Timestamp::from_secs(10_000));
        let mut points: Vec<UsagePoint> = (0..10_000).map(|second| point(second, 5)).collect();
        points[4_321].cpu = 900;
        let thinned = thin(points.clone(), span, 100);
        assert!(thinned.len() <= 100, "{}", thinned.len());
        assert!(thinned.iter().any(|point| point.cpu == 900));
        assert_eq!(thinned.last().unwrap().at, Timestamp::from_secs(9_999));
        assert_eq!(thin(points.clone(), span, 1).len(), 1);
        points.truncate(50);
        assert_eq!(thin(points.clone(), span, 100), points);
    }

    #[test]
    fn limits_are_of_the_node_and_quotas_stand_beside_them() {
        let rules = AlertRules {
            cpu: Some(AlertRule {
                min_threshold: 10.0,
                max_threshold: 50.0,
                ..AlertRule::default()
            }),
            ..AlertRules::default()
        };
        let mut item = ItemConfig::default();
        item.quotas.cpu_dmips_limit = Some(7);
        item.quotas.ram_limit = Some(9);
        let report: NodeInfo = serde_json::from_value(serde_json::json!({
            "id": "n", "nodeType": "t", "title": "", "maxDmips": 1000, "totalRam": 0, "os": {"os": "linux"}, "cpus": [],
            "partitions": [], "attrs": {}, "state": "provisioned",
        }))
        .unwrap();
        let found = limits(Some(&rules), Some(&item), Some(&report));
        let short: Vec<_> = found
            .iter()
            .map(|one| (one.parameter.as_str(), one.raise, one.fall, one.quota))
            .collect();
        assert_eq!(
            short,
            [
                ("cpu", Some(500), Some(100), Some(7)),
                ("ram", None, None, Some(9))
            ]
        );
        // Of a Node of unknown size percentages mean nothing.
        assert_eq!(limits(Some(&rules), None, None), []);
    }
}
