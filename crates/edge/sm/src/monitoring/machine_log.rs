use std::{sync::Arc, time::Duration};

use aos_store::Records;
use aos_telemetry::{Entry, Journal, KernelLog};
use tokio::time::Instant;

use crate::{
    alerts::Alerts,
    options::{LogAlerts, MonitoringOptions},
};

/// Entries of this priority and more urgent ones are alerts.
const SYSTEM: u8 = 3;
/// And of systemd itself, about its units, from this one on.
const UNITS: u8 = 4;
/// The one record's key.
const CURSOR: &str = "cursor";
/// How often the place in the journal is stored, at most: after a restart no more than this is told twice.
const STORE: Duration = Duration::from_secs(10);
/// The pause before a log that broke off is opened again; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);
/// Who reads long enough begins with the first pause again.
const GOOD: Duration = Duration::from_secs(60);

/// Makes alerts of what the machine logs. Never ends; dropping it is safe.
pub(crate) async fn watch_log(
    options: MonitoringOptions,
    alerts: Arc<Alerts>,
    kept: Records<String>,
) {
    match options.log {
        LogAlerts::Off => {}
        LogAlerts::Auto if !Journal::is_there(&options.journalctl) => kernel(&alerts).await,
        LogAlerts::Kernel => kernel(&alerts).await,
        LogAlerts::Auto | LogAlerts::Journal => journal(&options, &alerts, &kept).await,
    }
    std::future::pending().await
}

async fn kernel(alerts: &Alerts) {
    let mut log = match KernelLog::open() {
        Ok(log) => log,
        Err(error) => {
            let error = aos_types::ErrorInfo::from_error(aos_types::AosCode::Failed, &error);
            tracing::info!(%error, "there are no alerts from the kernel's log");
            return;
        }
    };
    loop {
        match log.next().await {
            Ok(entry) => tell(&entry, alerts),
            Err(error) => {
                tracing::warn!(%error, "the kernel's log has ended");
                return;
            }
        }
    }
}

/// Follows the journal. When it breaks off, as when it was rotated, it goes on behind the last entry that was seen: nothing
/// is missed and nothing told twice.
async fn journal(options: &MonitoringOptions, alerts: &Alerts, kept: &Records<String>) {
    let mut cursor = kept.get(CURSOR).await.ok().flatten().unwrap_or_default();
    let (mut pause, mut stored) = (PAUSE, Instant::now());
    loop {
        let began = Instant::now();
        match Journal::follow(&options.journalctl, UNITS, &cursor) {
            Ok(mut journal) => {
                while let Some(entry) = journal.next().await {
                    tell(&entry, alerts);
                    if !entry.cursor.is_empty() {
                        cursor = entry.cursor;
                    }
                    if stored.elapsed() >= STORE {
                        stored = Instant::now();
                        keep(kept, &cursor).await;
                    }
                }
                keep(kept, &cursor).await;
            }
            Err(error) => tracing::warn!(%error, "the journal cannot be read"),
        }
        if began.elapsed() >= GOOD {
            pause = PAUSE;
        }
        tokio::time::sleep(pause).await;
        // A cursor of a journal that was removed is refused at once, for ever: begin at the end then.
        if pause >= LONGEST {
            cursor.clear();
        }
        pause = (pause * 2).min(LONGEST);
    }
}

async fn keep(kept: &Records<String>, cursor: &String) {
    if let Err(error) = kept.put(CURSOR, cursor).await {
        tracing::warn!(%error, "the place in the journal cannot be stored");
    }
}

fn tell(entry: &Entry, alerts: &Alerts) {
    match judge(entry) {
        Some(Told::System) => alerts.system(text(entry)),
        Some(Told::Core(component)) => alerts.component(component, entry.message.clone()),
        None => {}
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    System,
    Core(&'static str),
}

/// What kind of alert an entry is; nothing if it is none.
fn judge(entry: &Entry) -> Option<Told> {
    // What the journal says of itself, as when it was rotated, is nobody's trouble.
    if entry.unit.starts_with("systemd-journald") || entry.identifier == "systemd-journald" {
        return None;
    }
    let of_systemd = entry.identifier == "systemd" && !entry.unit.is_empty();
    let urgent = if of_systemd { UNITS } else { SYSTEM };
    if entry.priority > urgent || entry.message.trim().is_empty() {
        return None;
    }
    // What components say they tell themselves; this is what systemd says of them, or their last words.
    let component = [
        ("aos-cm", "CM"),
        ("aos-sm", "SM"),
        ("aos-iam", "IAM"),
        ("aos-mp", "MP"),
    ];
    let found = component
        .iter()
        .find(|(unit, _)| entry.unit.starts_with(unit));
    Some(found.map_or(Told::System, |(_, name)| Told::Core(name)))
}

fn text(entry: &Entry) -> String {
    let who = match (entry.unit.as_str(), entry.identifier.as_str()) {
        ("", "") => return entry.message.clone(),
        ("", who) => who,
        (unit, _) => unit,
    };
    format!("{who}: {}", entry.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_ipc::proto::servicemanager::v5::alert::AlertItem;
    use aos_store::Store;
    use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Mutex};

    fn entry(priority: u8, unit: &str, identifier: &str) -> Entry {
        Entry {
            priority,
            unit: unit.into(),
            identifier: identifier.into(),
            message: "something".into(),
            cursor: String::new(),
        }
    }

    #[test]
    fn errors_of_the_machine_and_of_components_are_told_apart() {
        for (entry, wanted) in [
            (entry(3, "", "kernel"), Some(Told::System)),
            (entry(4, "", "kernel"), None),
            (entry(3, "ssh.service", "sshd"), Some(Told::System)),
            (entry(4, "ssh.service", "sshd"), None),
            (entry(4, "ssh.service", "systemd"), Some(Told::System)),
            (entry(5, "ssh.service", "systemd"), None),
            (entry(3, "aos-cm.service", "aos"), Some(Told::Core("CM"))),
            (
                entry(4, "aos-sm.service", "systemd"),
                Some(Told::Core("SM")),
            ),
            (
                entry(3, "systemd-journald.service", "systemd-journald"),
                None,
            ),
        ] {
            assert_eq!(judge(&entry), wanted, "{entry:?}");
        }
    }

    /// A `journalctl` that reads a file of entries, one a line, and is replaced when the journal is rotated.
    fn journalctl(folder: &Path) -> std::path::PathBuf {
        let program = folder.join("journalctl");
        let script = format!(
            "#!/bin/sh\ncd {}\nafter=0\nfor word; do case $word in --after-cursor=*) after=${{word#*=c}};; esac; done\n\
             n=0; while read -r text; do n=$((n+1)); [ $n -gt $after ] && \
             printf '{{\"PRIORITY\":\"3\",\"SYSLOG_IDENTIFIER\":\"%s\",\"MESSAGE\":\"%s\",\"__CURSOR\":\"c%s\"}}\\n' \
             \"${{text%%:*}}\" \"${{text#*:}}\" $n; done < entries\n",
            folder.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    #[tokio::test]
    async fn gap_71_rotation_of_the_journal_raises_no_alert_and_loses_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("sm.db"), crate::records::SCHEMA).unwrap();
        let kept: Records<String> = Records::new(store, "journal");
        kept.put(CURSOR, &"c0".to_owned()).await.unwrap();
        let entries = folder.path().join("entries");
        fs::write(&entries, "kernel:disk one\n").unwrap();
        let options = MonitoringOptions {
            log: LogAlerts::Journal,
            journalctl: journalctl(folder.path()),
            ..MonitoringOptions::default()
        };
        let alerts = Arc::new(Alerts::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let watching = tokio::spawn(watch_log(options, alerts.clone(), kept.clone()));
        let (hearing, heard) = (alerts.clone(), told.clone());
        let following = tokio::spawn(async move {
            hearing
                .follow(|alert| {
                    if let Some(AlertItem::SystemAlert(alert)) = alert.alert_item {
                        heard.lock().unwrap().push(alert.message);
                    }
                    std::future::ready(Ok(()))
                })
                .await;
        });
        let until = async |count: usize| {
            let waiting = async {
                while told.lock().unwrap().len() < count {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), waiting)
                .await
                .unwrap();
        };
        until(1).await;
        // The journal is rotated: the reader ends, the journal says so in an entry of its own, and goes on.
        fs::write(
            &entries,
            "kernel:disk one\nsystemd-journald:Journal file rotated\nkernel:disk two\n",
        )
        .unwrap();
        until(2).await;
        // Once more, with nothing new.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(
            *told.lock().unwrap(),
            ["kernel: disk one", "kernel: disk two"]
        );
        watching.abort();
        following.abort();
        let _ = tokio::join!(watching, following);
        assert_eq!(kept.get(CURSOR).await.unwrap().as_deref(), Some("c3"));
    }
}
