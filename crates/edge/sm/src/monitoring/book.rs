//! The sums of traffic of the present day, kept over restarts of SM and power cuts.

use std::{collections::BTreeMap, time::Duration};

use aos_alert::{Account, Ledger, Traffic};
use aos_types::InstanceIdent;

use crate::records::{TrafficBook, TrafficEntry};

/// Whose traffic is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counted {
    Node,
    Instance(InstanceIdent),
}

/// Goes on with what was noted, or begins anew.
pub(super) fn ledger(period: Duration, noted: Option<TrafficBook>) -> Ledger<Counted> {
    // The number of a period of another length says nothing.
    let Some(book) = noted.filter(|book| book.period_secs == period.as_secs()) else {
        return Ledger::new(period);
    };
    let traffic = |(download, upload)| Traffic { download, upload };
    let accounts: BTreeMap<Counted, Account> = book
        .entries
        .into_iter()
        .map(|entry| {
            let account = Account {
                counter: traffic(entry.counter),
                sum: traffic(entry.sum),
            };
            (
                entry.instance.map_or(Counted::Node, Counted::Instance),
                account,
            )
        })
        .collect();
    Ledger::restore(period, book.current, accounts)
}

/// What is to be noted.
pub(super) fn noted(ledger: &Ledger<Counted>) -> TrafficBook {
    let both = |traffic: Traffic| (traffic.download, traffic.upload);
    let (current, accounts) = ledger.kept();
    TrafficBook {
        period_secs: ledger.period().as_secs(),
        current,
        entries: accounts
            .iter()
            .map(|(who, account)| TrafficEntry {
                instance: match who {
                    Counted::Node => None,
                    Counted::Instance(ident) => Some(ident.clone()),
                },
                counter: both(account.counter),
                sum: both(account.sum),
            })
            .collect(),
    }
}
