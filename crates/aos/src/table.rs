//! Tables for people, JSON for programs.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::{Failure, OrFail as _};

/// Whether the standard output is a terminal that wants colours.
pub fn colours() -> bool {
    use std::io::IsTerminal as _;
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A table with these headings.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings.iter().map(|heading| {
            let cell = Cell::new(heading.to_uppercase());
            if colours() {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        }));
    table
}

/// A cell with a state: green, yellow or red on a terminal.
pub fn state(text: impl ToString) -> Cell {
    let text = text.to_string();
    let colour = match text.to_ascii_lowercase().as_str() {
        "online" | "active" | "installed" | "done" | "ready" | "provisioned" | "yes" | "pass" => {
            Some(Color::Green)
        }
        "failed" | "error" | "offline" | "fail" => Some(Color::Red),
        "" | "-" | "none" => None,
        _ => Some(Color::Yellow),
    };
    match colour {
        Some(colour) if colours() => Cell::new(text).fg(colour),
        _ => Cell::new(text),
    }
}

/// The word a value is written as in JSON.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// A text, or a dash for none.
pub fn or_dash(text: impl AsRef<str>) -> String {
    let text = text.as_ref();
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

/// How long ago a moment was, roughly.
pub fn ago(then: aos_time::Timestamp, now: aos_time::Timestamp) -> String {
    let seconds = now.since(then).as_secs();
    match seconds {
        0..=1 => "now".to_owned(),
        2..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// Prints a table; says so if it is empty.
pub fn show(table: &Table, none: &str) {
    if table.is_empty() {
        say(none);
    } else {
        for line in table.lines() {
            say(line.trim_end());
        }
    }
}

/// Prints one JSON document.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).or_fail(|| "cannot write the answer as JSON")?;
    say(text);
    Ok(())
}

/// Prints a line for people. Who reads may stop reading (`aos … | head`): then there is nothing
/// more to do, and the exit code is that of a program ended by SIGPIPE.
pub fn say(text: impl AsRef<str>) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{}", text.as_ref())
        && error.kind() == std::io::ErrorKind::BrokenPipe
    {
        std::process::exit(141);
    }
}
