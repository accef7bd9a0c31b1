//! Usage and alerts of Units: kept, merged, narrowed, trimmed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aos_api::{
    Alert, AlertState, AlertTag, AlertsQuery, ChangeTopic, NewUnit, Severity, UsagePoint,
};
use aos_db::{
    Actor, Db, LinkWrite, MOST_ALERTS, NewAlert, NewPoint, QuotaChange, Retention, hash_secret,
};
use aos_time::{Clock, SimClock, Timestamp};
use aos_types::{InstanceIdent, ItemId, ItemType, SubjectId};
use uuid::Uuid;

struct Bench {
    db: Db,
    clock: SimClock,
    actor: Actor,
    unit: Uuid,
    _folder: tempfile::TempDir,
}

async fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let clock = SimClock::at(Timestamp::from_secs(1_800_000_000));
    let db = Db::open(&folder.path().join("db"), Arc::new(clock.clone()))
        .await
        .unwrap();
    db.put_owner_token(&hash_secret("t")).await.unwrap();
    let user = db
        .set_up_owner(&hash_secret("t"), "Org", "ada", "hash")
        .await
        .unwrap()
        .unwrap();
    let actor = user.actor();
    let new = NewUnit {
        system_uid: "car-1".into(),
        title: "Car".into(),
        unit_model: None,
    };
    let unit = db.create_unit(&actor, &new).await.unwrap().id;
    Bench {
        db,
        clock,
        actor,
        unit,
        _folder: folder,
    }
}

fn ident(index: u64) -> InstanceIdent {
    InstanceIdent {
        item: ItemId::new("5f0e0f0e-0000-4000-8000-000000000001").unwrap(),
        subject: SubjectId::new("subject").unwrap(),
        index,
        item_type: ItemType::Service,
        preinstalled: false,
    }
}

fn point(at: Timestamp, cpu: u64) -> UsagePoint {
    UsagePoint {
        at,
        cpu,
        ram: 10,
        download: Some(5),
        upload: None,
        partitions: BTreeMap::from([("aos".to_owned(), 7)]),
    }
}

impl Bench {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn usage(&self, points: &[(Option<u64>, Timestamp, u64)]) {
        let points: Vec<NewPoint> = points
            .iter()
            .map(|(instance, at, cpu)| NewPoint {
                node: "main".into(),
                instance: instance.map(ident),
                point: point(*at, *cpu),
            })
            .collect();
        let none = LinkWrite::default();
        self.db
            .keep_usage(self.unit, &points, &Retention::default(), &none)
            .await
            .unwrap();
    }

    fn alert(&self, quota: Option<QuotaChange>, parameter: &str, text: &str) -> NewAlert {
        NewAlert {
            at: self.now(),
            tag: if quota.is_some() {
                AlertTag::InstanceQuota
            } else {
                AlertTag::System
            },
            severity: Severity::Warning,
            quota,
            node: quota.is_none().then(|| "main".to_owned()),
            instance: quota.map(|_| ident(0)),
            parameter: parameter.into(),
            value: Some(9),
            text: text.into(),
        }
    }

    async fn keep(&self, alerts: &[NewAlert]) {
        let none = LinkWrite::default();
        let retention = Retention::default();
        self.db
            .keep_alerts(self.unit, (alerts, &[]), &[], &retention, &none)
            .await
            .unwrap();
    }

    async fn alerts(&self, query: AlertsQuery) -> Vec<Alert> {
        self.db
            .alerts(&self.actor, Some("car-1"), &query)
            .await
            .unwrap()
            .items
    }
}

#[tokio::test]
async fn usage_is_read_back_with_what_held_before_and_old_usage_goes() {
    let bench = bench().await;
    let (db, start) = (&bench.db, bench.now());
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut changes = db.changes();
    bench.clock.advance(Duration::from_secs(2_000));
    bench
        .usage(&[
            (None, at(0), 1),
            (None, at(600), 2),
            (None, at(1200), 3),
            (Some(0), at(1200), 4),
            // Told twice, and of a future that nobody believes.
            (None, at(1200), 3),
            (None, at(90_000), 5),
        ])
        .await;
    let change = changes.recv().await.unwrap();
    assert_eq!(
        (change.topic, change.id),
        (ChangeTopic::Monitoring, bench.unit)
    );
    let hour = Duration::from_secs(3600);
    let span = (at(900), at(2_000));
    let all = db
        .usage(&bench.actor, bench.unit, span, hour)
        .await
        .unwrap();
    let cpu: Vec<Vec<u64>> = all
        .iter()
        .map(|series| series.points.iter().map(|point| point.cpu).collect())
        .collect();
    // The Node first; of the time before the span only what still held.
    assert_eq!(cpu, [vec![2, 3], vec![4]]);
    assert_eq!(all[0].points[0], point(at(600), 2));
    assert!(all[0].instance.is_none());
    let (service, _, index) = all[1].instance.clone().unwrap();
    // A service that the cloud does not know is named by its id.
    assert_eq!((service.codename, index), (ident(0).item.to_string(), 0));
    // The last of each is asked for by an empty span.
    let now = (bench.now(), bench.now());
    let last = db.usage(&bench.actor, bench.unit, now, hour).await.unwrap();
    assert!(last.iter().all(|series| series.points.len() == 1));

    bench.clock.advance(Duration::from_secs(31 * 24 * 3600));
    bench
        .usage(&[(None, bench.now(), 6), (None, at(700), 2)])
        .await;
    let all = db
        .usage(&bench.actor, bench.unit, (at(0), bench.now()), hour)
        .await
        .unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].points, [point(bench.now(), 6)]);
}

#[tokio::test]
async fn a_quota_alert_is_one_row_from_its_beginning_to_its_end() {
    let bench = bench().await;
    let began = bench.now();
    let said = |change, text: &str| bench.alert(Some(change), "ram", text);
    // The end of what nobody heard of is nothing.
    bench.keep(&[said(QuotaChange::Fall, "no longer")]).await;
    assert_eq!(bench.alerts(AlertsQuery::default()).await, []);
    bench.keep(&[said(QuotaChange::Raise, "too much")]).await;
    bench.clock.advance(Duration::from_secs(30));
    bench
        .keep(&[said(QuotaChange::Continue, "too much still")])
        .await;
    let goes_on = bench.alerts(AlertsQuery::default()).await;
    assert_eq!(goes_on.len(), 1);
    assert_eq!(goes_on[0].state, AlertState::Active);
    assert_eq!((goes_on[0].at, goes_on[0].count), (began, 2));
    assert_eq!(goes_on[0].last_at, bench.now());
    assert_eq!(
        (
            goes_on[0].unit_title.as_str(),
            goes_on[0].system_uid.as_str()
        ),
        ("Car", "car-1")
    );
    // Another parameter is another alert; a day later the first still goes on, as its end was not told.
    bench
        .keep(&[bench.alert(Some(QuotaChange::Raise), "cpu", "cpu")])
        .await;
    bench.clock.advance(Duration::from_secs(24 * 3600));
    let active = AlertsQuery {
        state: Some(AlertState::Active),
        ..AlertsQuery::default()
    };
    assert_eq!(bench.alerts(active.clone()).await.len(), 2);
    bench.keep(&[said(QuotaChange::Fall, "no longer")]).await;
    let over = bench.alerts(AlertsQuery::default()).await;
    assert_eq!(
        (over[0].state, over[0].ended_at),
        (AlertState::Ended, Some(bench.now()))
    );
    assert_eq!(over[0].count, 3);
    assert_eq!(bench.alerts(active).await.len(), 1);
    // The next time is another one.
    bench.keep(&[said(QuotaChange::Raise, "again")]).await;
    assert_eq!(bench.alerts(AlertsQuery::default()).await.len(), 3);
    let span = (began, bench.now());
    let drawn = bench
        .db
        .usage_alerts(&bench.actor, bench.unit, span)
        .await
        .unwrap();
    assert_eq!(drawn.len(), 3);
    let before = (
        began - Duration::from_secs(100),
        began - Duration::from_secs(1),
    );
    assert_eq!(
        bench
            .db
            .usage_alerts(&bench.actor, bench.unit, before)
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn of_a_unit_that_does_not_tell_ends_an_alert_fades() {
    let bench = bench().await;
    bench
        .keep(&[bench.alert(Some(QuotaChange::On), "ram", "too much")])
        .await;
    let state = async |wanted| {
        let query = AlertsQuery {
            state: Some(wanted),
            ..AlertsQuery::default()
        };
        bench.alerts(query).await.len()
    };
    assert_eq!(
        (
            state(AlertState::Active).await,
            state(AlertState::Ended).await
        ),
        (1, 0)
    );
    bench.clock.advance(Duration::from_secs(1_000));
    assert_eq!(
        (
            state(AlertState::Active).await,
            state(AlertState::Ended).await
        ),
        (0, 1)
    );
    let all = bench.alerts(AlertsQuery::default()).await;
    assert_eq!(all[0].state, AlertState::Ended);
    assert!(all[0].ended_at.is_some());
}

#[tokio::test]
async fn the_same_words_are_one_alert_and_a_flood_is_bounded() {
    let bench = bench().await;
    for _ in 0..50 {
        bench.keep(&[bench.alert(None, "", "disk error")]).await;
        bench.clock.advance(Duration::from_secs(1));
    }
    let once = bench.alerts(AlertsQuery::default()).await;
    assert_eq!(
        (once.len(), once[0].count, once[0].state),
        (1, 50, AlertState::Once)
    );
    // Hours later it is news again.
    bench.clock.advance(Duration::from_secs(7_200));
    bench.keep(&[bench.alert(None, "", "disk error")]).await;
    assert_eq!(bench.alerts(AlertsQuery::default()).await.len(), 2);
    let mut flood = Vec::new();
    for number in 0..MOST_ALERTS + 500 {
        bench.clock.advance(Duration::from_millis(10));
        flood.push(bench.alert(None, "", &format!("noise {number}")));
    }
    bench.keep(&flood).await;
    let page = bench
        .db
        .alerts(&bench.actor, None, &AlertsQuery::default())
        .await
        .unwrap();
    assert!(page.total <= MOST_ALERTS as u64 + 1, "{}", page.total);
    bench.clock.advance(Duration::from_secs(91 * 24 * 3600));
    bench.keep(&[bench.alert(None, "", "new")]).await;
    assert_eq!(bench.alerts(AlertsQuery::default()).await.len(), 1);
}

#[tokio::test]
async fn alerts_are_narrowed_and_of_other_organisations_none_is_seen() {
    let bench = bench().await;
    let mut of_instance = bench.alert(None, "", "it ended with exit code 3");
    of_instance.tag = AlertTag::Instance;
    of_instance.severity = Severity::Error;
    of_instance.node = None;
    of_instance.instance = Some(ident(2));
    bench
        .keep(&[
            bench.alert(None, "", "Disk 100% full"),
            of_instance,
            bench.alert(Some(QuotaChange::Raise), "cpu", "too much cpu"),
        ])
        .await;
    let count = async |query: AlertsQuery| bench.alerts(query).await.len();
    let any = AlertsQuery::default;
    assert_eq!(count(any()).await, 3);
    let tag = Some(AlertTag::Instance);
    assert_eq!(count(AlertsQuery { tag, ..any() }).await, 1);
    let severity = Some(Severity::Error);
    assert_eq!(count(AlertsQuery { severity, ..any() }).await, 1);
    let node = Some("main".to_owned());
    assert_eq!(count(AlertsQuery { node, ..any() }).await, 1);
    let service = Some(ident(0).item.to_string());
    assert_eq!(count(AlertsQuery { service, ..any() }).await, 2);
    let search = Some("100%".to_owned());
    assert_eq!(count(AlertsQuery { search, ..any() }).await, 1);
    let state = Some(AlertState::Once);
    assert_eq!(count(AlertsQuery { state, ..any() }).await, 2);
    let datetime_from = Some(bench.now() + Duration::from_secs(1));
    assert_eq!(
        count(AlertsQuery {
            datetime_from,
            ..any()
        })
        .await,
        0
    );
    let limit = Some(1);
    let page = bench
        .db
        .alerts(&bench.actor, None, &AlertsQuery { limit, ..any() })
        .await
        .unwrap();
    assert_eq!((page.items.len(), page.total), (1, 3));
    assert_eq!(page.items[0].instance_id, Some(0));

    let stranger = Actor::system(Uuid::now_v7());
    let page = bench.db.alerts(&stranger, None, &any()).await.unwrap();
    assert_eq!((page.items.len(), page.total), (0, 0));
    assert!(
        bench
            .db
            .alerts(&stranger, Some("car-1"), &any())
            .await
            .is_err()
    );
    // They go with their Unit.
    bench.db.delete_unit(&bench.actor, "car-1").await.unwrap();
    assert_eq!(
        bench
            .db
            .alerts(&bench.actor, None, &any())
            .await
            .unwrap()
            .total,
        0
    );
}
