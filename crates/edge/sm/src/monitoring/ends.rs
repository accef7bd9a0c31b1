use std::{collections::BTreeMap, sync::Arc};

use aos_time::Timestamp;
use aos_types::InstanceIdent;

use crate::{
    alerts::Alerts,
    launcher::{Launcher, Report, Snapshot},
    records::End,
};

/// Tells people of instances that ended though nobody asked them to, and why. Ends when the launcher does.
pub(crate) async fn tell_ends(launcher: Arc<Launcher>, alerts: Arc<Alerts>) {
    let mut snapshots = launcher.snapshots();
    let ready = |snapshot: &Snapshot| snapshot.launches > 0;
    if snapshots.wait_for(ready).await.is_err() {
        return;
    }
    let mut told: BTreeMap<InstanceIdent, Timestamp> = BTreeMap::new();
    loop {
        let now = snapshots.borrow_and_update().instances.clone();
        told.retain(|ident, _| now.contains_key(ident));
        for (ident, report) in now.iter() {
            let Some(end) = &report.run.last_end else {
                continue;
            };
            if told.insert(ident.clone(), end.at) != Some(end.at)
                && let Some(message) = words(end, report)
            {
                alerts.instance(ident, &end.version, message);
            }
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// What is said of an end; nothing of one that is as it should be.
fn words(end: &End, report: &Report) -> Option<String> {
    let how = match (end.oom, end.code, end.signal) {
        (true, ..) => {
            "the kernel ended it because it used more memory than `quotas.ramLimit` allows"
                .to_owned()
        }
        (_, Some(0), _) => return None,
        (_, Some(code), _) => format!("it ended with exit code {code}"),
        (_, _, Some(signal)) => format!("it was ended by signal {signal}"),
        _ => "it ended, and nobody saw how".to_owned(),
    };
    let then = if report.run.unrecoverable {
        "; its starts are used up"
    } else {
        ""
    };
    Some(format!(
        "{how}, after {} restarts{then}",
        report.run.restarts
    ))
}
