//! `aos logs`: what a Unit's services and Nodes say, asked for or followed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use aos_api::{
    LogKind, LogLine, LogLines, LogLinesQuery, LogRequest, LogState, NewLogRequest, NodeLogState,
    UnitSubjectService, paths,
};
use aos_time::{Clock as _, SystemClock, Timestamp};
use clap::Args;
use futures::StreamExt as _;
use reqwest::Method;

use crate::cli::pick;
use crate::client::Client;
use crate::failure::{Failure, OrFail as _};
use crate::progress::Spinner;

/// How long without an event until the cloud is asked whether something is new.
const LOOK: Duration = Duration::from_secs(2);
/// How long a request may take before the command gives up; the request goes on.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// Before the first line.
const BEGINNING: &str = "-1.0";
/// Lines read at once.
const PAGE: u32 = 5_000;

/// Show logs of a Unit: of its services, of a crash, or of a Node's system.
#[derive(Args)]
pub struct Logs {
    /// System id, id or title of the Unit.
    unit: String,
    /// Of which instances: SERVICE, SERVICE/SUBJECT or SERVICE/SUBJECT/INDEX; all if absent.
    instance: Option<String>,
    /// The log of the Nodes' system instead: its journal, or the kernel's log and that of AosCore.
    #[arg(long, conflicts_with_all = ["instance", "crash"])]
    system: bool,
    /// How instances crashed, with their last output.
    #[arg(long)]
    crash: bool,
    /// Only of this Node; may be given again.
    #[arg(long, value_name = "NODE")]
    node: Vec<String>,
    /// From when on: a time such as 2026-01-31T12:00:00Z, or how long ago: 90s, 15m, 2h, 7d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Until when, written as for --since.
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "follow")]
    until: Option<Timestamp>,
    /// Show lines as they are written, for 15 minutes or until Ctrl-C.
    #[arg(short, long, conflicts_with = "crash")]
    follow: bool,
    /// Only lines that hold this text.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// A time, or how long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    let ago = |unit: char, seconds: u64| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(number.checked_mul(seconds)?))
    };
    let ago = [('s', 1), ('m', 60), ('h', 3_600), ('d', 24 * 3_600)]
        .into_iter()
        .find_map(|(unit, seconds)| ago(unit, seconds));
    match ago {
        Some(ago) => Ok(SystemClock.now() - ago),
        None => text.parse().map_err(|_| {
            "is neither a time such as 2026-01-31T12:00:00Z nor how long ago, such as 15m"
                .to_owned()
        }),
    }
}

/// `aos logs`.
pub async fn run(command: Logs) -> Result<(), Failure> {
    let client = super::cloud()?;
    let unit = pick::unit(&client, &command.unit).await?;
    let new = asked(&command)?;
    let id = unit.id.to_string();
    let names = names(&client, &id).await?;
    // Before asking, so that no event is missed.
    let mut events = client.events().await?.fuse();
    let mut log: LogRequest = client
        .post(&paths::fill(paths::UNIT_LOGS, &[&id]), &new)
        .await?;
    let number = log.id.to_string();
    let path = paths::fill(paths::UNIT_LOG, &[&id, &number]);
    let spinner = Spinner::new("logs");
    let mut shown = BEGINNING.to_owned();
    let mut count = 0_u64;
    let began = tokio::time::Instant::now();
    let mut stopping = false;
    loop {
        spinner.say(waiting(&log));
        if command.follow || log.state.is_over() {
            count += show(
                &client,
                [&id, &number],
                &mut shown,
                &command,
                (&names, &spinner),
            )
            .await?;
        }
        if log.state.is_over() {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::new("the log did not come in time").hint(format!(
                "request {number} goes on: the Unit's page shows it"
            )));
        }
        let news = async {
            loop {
                match events.next().await {
                    Some(event) if event.id == Some(log.id) || event.id.is_none() => return,
                    Some(_) => {}
                    // Without events it is asked now and then.
                    None => std::future::pending().await,
                }
            }
        };
        // What is not waited for any more is read at the next look.
        tokio::select! {
            () = news => {}
            () = tokio::time::sleep(LOOK) => {}
            _ = tokio::signal::ctrl_c(), if command.follow && !stopping => {
                stopping = true;
                let stop = paths::fill(paths::UNIT_LOG_STOP, &[&id, &number]);
                let _: LogRequest = client.write(Method::POST, &stop, &serde_json::json!({})).await?;
            }
        }
        log = client.get(&path).await?;
    }
    spinner.done();
    told(&log, count, &command)
}

/// What services and Subjects are called, by the ids that lines carry.
async fn names(client: &Client, unit: &str) -> Result<Names, Failure> {
    let path = paths::fill(paths::UNIT_SUBJECTS_SERVICES, &[unit]);
    let rows: Vec<UnitSubjectService> = client.all(&path).await?;
    let names = rows.into_iter().flat_map(|row| {
        [
            (row.service.id, row.service.codename),
            (row.subject.id, row.subject.label),
        ]
    });
    Ok(Names(names.collect()))
}

/// Names by id.
struct Names(BTreeMap<String, String>);

impl Names {
    /// A line with names instead of ids in its source, as far as they are known.
    fn put_into(&self, line: &str) -> String {
        let parts = line
            .split_once(" [")
            .and_then(|(at, rest)| Some((at, rest.split_once(']')?)));
        let Some((at, (source, text))) = parts else {
            return line.to_owned();
        };
        let mut named = String::with_capacity(source.len());
        for word in source.split_inclusive([':', ' ']) {
            let bare = word.trim_end_matches([':', ' ']);
            let name = self.0.get(bare).map_or(bare, String::as_str);
            named.push_str(name);
            named.push_str(word.get(bare.len()..).unwrap_or_default());
        }
        format!("{at} [{named}]{text}")
    }
}

fn asked(command: &Logs) -> Result<NewLogRequest, Failure> {
    let mut words = command.instance.iter().flat_map(|text| text.split('/'));
    let mut word = || {
        words
            .next()
            .map(str::to_owned)
            .filter(|word| !word.is_empty())
    };
    let (service, subject, index) = (word(), word(), word());
    let index = match index {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Failure::new(format!("`{text}` is no number of an instance"))
                .hint("write SERVICE/SUBJECT/INDEX, such as hello/home/0")
        })?),
    };
    if words.next().is_some() {
        return Err(Failure::new("the instance has too many parts")
            .hint("write SERVICE/SUBJECT/INDEX, such as hello/home/0"));
    }
    Ok(NewLogRequest {
        log_type: match (command.system, command.crash) {
            (true, _) => LogKind::System,
            (_, true) => LogKind::Crash,
            _ => LogKind::Instance,
        },
        nodes: command.node.clone(),
        service,
        subject,
        instance_id: index,
        date_from: command.since,
        date_till: command.until,
        follow: command.follow,
    })
}

fn waiting(log: &LogRequest) -> &'static str {
    match log.state {
        LogState::Created | LogState::Sent => "asking the Unit",
        LogState::WaitingUnit => "the Unit is not connected; waiting for it",
        LogState::Receiving => "receiving",
        LogState::Done | LogState::Error | LogState::Empty => "done",
    }
}

/// Prints what was not printed yet.
async fn show(
    client: &Client,
    unit_and_log: [&str; 2],
    shown: &mut String,
    command: &Logs,
    (names, spinner): (&Names, &Spinner),
) -> Result<u64, Failure> {
    let mut count = 0;
    loop {
        let query = LogLinesQuery {
            limit: Some(PAGE),
            search: command.search.clone(),
            after: Some(shown.clone()),
            ..LogLinesQuery::default()
        };
        let path = paths::fill(paths::UNIT_LOG_LINES, &unit_and_log);
        let lines: LogLines = client.get_with(&path, &query).await?;
        if let Some(last) = lines.items.last() {
            spinner.done();
            *shown = last.cursor.clone();
        }
        for line in &lines.items {
            print(line, command, names)?;
            count += 1;
        }
        if !lines.has_newer || lines.items.is_empty() {
            return Ok(count);
        }
    }
}

fn print(line: &LogLine, command: &Logs, names: &Names) -> Result<(), Failure> {
    let text = if command.json {
        serde_json::to_string(line).or_fail(|| "cannot write JSON")?
    } else {
        // Once more: whoever runs the cloud need not be ours.
        format!(
            "{} {}",
            line.node_id,
            aos_log::clean(&names.put_into(&line.text))
        )
    };
    // A reader that has gone, such as `head`, is no failure.
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        _ => Ok(()),
    }
}

/// Says something beside the log.
fn remark(text: &str) {
    // Nobody may be there to hear it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What there is to say at the end.
fn told(log: &LogRequest, count: u64, command: &Logs) -> Result<(), Failure> {
    let mut why: Vec<String> = log.message.clone().into_iter().collect();
    for node in &log.nodes {
        if let (NodeLogState::Failed | NodeLogState::Absent, Some(message)) =
            (node.state, &node.message)
            && !why.contains(message)
            && (node.state == NodeLogState::Failed || log.state == LogState::Error)
        {
            why.push(message.clone());
        }
    }
    if log.state == LogState::Error {
        return Err(Failure::new("there is no log").why(why.join("; ")));
    }
    if count == 0 && !command.json {
        remark("there is no such line in that time");
    }
    for one in &why {
        remark(one);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_known_are_shown_by_name() {
        let pair = |id: &str, name: &str| (id.to_owned(), name.to_owned());
        let names = Names([pair("id-1", "hello"), pair("id-2", "home")].into());
        let shown = |line: &str| names.put_into(line);
        assert_eq!(
            shown("T [id-1:id-2:0 stderr] id-1 [x]"),
            "T [hello:home:0 stderr] id-1 [x]"
        );
        assert_eq!(shown("T [kernel] up"), "T [kernel] up");
        assert_eq!(shown("# a remark"), "# a remark");
    }

    #[test]
    fn times_are_moments_or_spans_before_now() {
        let now = SystemClock.now();
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("7d", 604_800)] {
            let ago = now.since(moment(text).unwrap()).as_secs();
            assert!(ago.abs_diff(seconds) <= 1, "{text}: {ago}");
        }
        assert_eq!(
            moment("1970-01-01T00:00:05Z").unwrap(),
            Timestamp::from_secs(5)
        );
        for bad in ["", "yesterday", "5", "-5m", "99999999999999999999d", "5 m"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
