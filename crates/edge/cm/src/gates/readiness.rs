use std::time::{Duration, Instant};

use aos_update::Readiness;
use tokio::sync::watch;

use super::{ReadinessOptions, command};

/// What a program of the Unit reported, and until when it counts.
#[derive(Debug, Clone)]
struct Reported {
    readiness: Readiness,
    until: Instant,
}

/// Whether the Unit may be changed now, by the condition that is configured.
#[derive(Debug)]
pub(crate) struct UnitReadiness {
    options: Option<ReadinessOptions>,
    reported: watch::Sender<Option<Reported>>,
}

impl UnitReadiness {
    pub(crate) fn new(options: Option<ReadinessOptions>) -> Self {
        Self {
            options,
            reported: watch::Sender::default(),
        }
    }

    /// Asks. Dropping the future kills a command that runs.
    pub(crate) async fn ask(&self) -> Readiness {
        let Some(options) = &self.options else {
            return Readiness::Ready;
        };
        if let Some(command) = &options.command {
            return command::ask(command, options.timeout()).await;
        }
        match &*self.reported.borrow() {
            Some(reported) if Instant::now() < reported.until => reported.readiness.clone(),
            Some(_) => Readiness::NotReady("the last report that it is ready has run out".into()),
            None => Readiness::NotReady("no program of the Unit has reported that it is".into()),
        }
    }

    /// A program's report counts for this long. If a command decides it is only asked again. Says whether there is a
    /// condition at all.
    pub(crate) fn report(&self, readiness: Readiness, valid_for: Duration) -> bool {
        if self.options.is_none() {
            return false;
        }
        self.reported.send_replace(Some(Reported {
            readiness,
            until: Instant::now() + valid_for,
        }));
        true
    }

    /// Follows the reports.
    pub(crate) fn changes(&self) -> watch::Receiver<impl Sized + use<>> {
        self.reported.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Option<ReadinessOptions> {
        Some(toml::from_str(text).unwrap())
    }

    #[tokio::test]
    async fn a_report_counts_until_it_runs_out() {
        let readiness = UnitReadiness::new(options(""));
        let why = |readiness| match readiness {
            Readiness::NotReady(why) => why,
            Readiness::Ready => "ready".into(),
        };
        assert!(why(readiness.ask().await).starts_with("no program"));
        let hour = Duration::from_secs(3600);
        assert!(readiness.report(Readiness::NotReady("it drives".into()), hour));
        assert_eq!(why(readiness.ask().await), "it drives");
        assert!(readiness.report(Readiness::Ready, hour));
        assert_eq!(readiness.ask().await, Readiness::Ready);
        assert!(readiness.report(Readiness::Ready, Duration::ZERO));
        assert!(why(readiness.ask().await).contains("run out"));
    }

    #[tokio::test]
    async fn a_command_decides_whatever_is_reported() {
        let readiness = UnitReadiness::new(options("command = ['/bin/false']"));
        assert!(readiness.report(Readiness::Ready, Duration::from_secs(60)));
        assert!(matches!(readiness.ask().await, Readiness::NotReady(_)));
        let none = UnitReadiness::new(None);
        assert!(!none.report(Readiness::Ready, Duration::from_secs(60)));
        assert_eq!(none.ask().await, Readiness::Ready);
    }
}
