//! Whether what runs as wanted has done so for a moment: a service that ends over and over is active now and then.

use std::time::Duration;

use aos_api::{Unit, UnitSubjectService};
use aos_time::Timestamp;
use tokio::time::Instant;

/// How long it must have been as wanted.
const STEADY: Duration = Duration::from_secs(2);

/// What was seen as wanted, and since when by our own clock.
#[derive(Default)]
pub struct Steady {
    seen: Option<(Timestamp, Instant)>,
}

impl Steady {
    /// All is as wanted at this moment: for how long it still has to stay so; nothing if it has for long enough.
    pub fn rest(
        &mut self,
        unit: &Unit,
        rows: &[UnitSubjectService],
        services: &[(String, Option<String>)],
        now: Instant,
    ) -> Option<Duration> {
        let named = |row: &&UnitSubjectService| {
            services
                .iter()
                .any(|(name, _)| *name == row.service.codename)
        };
        let instances = rows.iter().filter(named).flat_map(|row| &row.instances);
        let changed = instances.map(|instance| instance.changed_at).max()?;
        // Both by the cloud's clock: the Unit has been heard since, and spoke of no other change.
        let heard = unit.last_seen_at.unwrap_or(changed);
        if heard.since(changed) >= STEADY {
            return None;
        }
        let (_, since) = *self.seen.insert(
            self.seen
                .filter(|seen| seen.0 == changed)
                .unwrap_or((changed, now)),
        );
        let rest = STEADY.saturating_sub(now.duration_since(since));
        (!rest.is_zero()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(seen: &str) -> Unit {
        serde_json::from_value(serde_json::json!({
            "id": "01a1fc99-9b59-7757-9d8d-12025b54510c", "system_uid": "u", "title": "",
            "status": "provisioned", "online_status": "Online", "unit_model": null,
            "last_online_changed_at": null, "last_seen_at": seen, "installed_unit_config": null,
            "update_phase": "installed", "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "counts": {"nodes": 1, "nodes_connected": 1, "instances": 1, "instances_active": 1,
                "instances_failed": 0, "instances_desired": 1, "subjects": 1},
        }))
        .unwrap()
    }

    fn rows(changed: &str) -> Vec<UnitSubjectService> {
        let row = serde_json::json!({
            "subject": {"id": "s", "label": "s"},
            "service": {"id": "h", "codename": "hello", "title": ""},
            "desired_version": "1.0.0", "installed_version": "1.0.0", "num_instances": 1,
            "priority": 0, "labels": [],
            "instances": [{"instance_id": 0, "version": "1.0.0", "run_state": "active",
                "node_id": "main", "runtime_id": "crun", "error": null, "changed_at": changed}],
        });
        vec![serde_json::from_value(row).unwrap()]
    }

    #[test]
    fn what_was_active_for_two_seconds_is_steady() {
        let services = [("hello".to_owned(), None)];
        let early = "2026-01-01T00:00:00Z";
        let begin = Instant::now();
        let after = |millis| begin + Duration::from_millis(millis);
        let mut steady = Steady::default();
        let mut rest = |seen: &str, changed: &str, millis| {
            let rest = steady.rest(&unit(seen), &rows(changed), &services, after(millis));
            rest.map(|rest| rest.as_millis())
        };
        // Heard right when it became active, then nothing for two seconds.
        assert_eq!(rest(early, early, 0), Some(2_000));
        assert_eq!(rest(early, early, 1_500), Some(500));
        // Down and up again.
        let later = "2026-01-01T00:00:01Z";
        assert_eq!(rest(later, later, 1_900), Some(2_000));
        assert_eq!(rest(later, later, 3_900), None);
        // The Unit has spoken since, and not of this.
        assert_eq!(rest("2026-01-01T00:00:04Z", later, 0), None);
        // Nothing runs: nothing to wait for.
        assert_eq!(steady.rest(&unit(early), &[], &services, begin), None);
    }
}
