//! `aos unit env`: environment variables set on a Unit over those of its items.

use std::io::Read as _;
use std::path::Path;

use aos_api::{EnvVar, EnvVarsQuery, NewEnvVar, NewEnvVars, Page, paths};
use clap::{Args, Subcommand};
use comfy_table::Cell;

use crate::cli::pick;
use crate::client::Client;
use crate::failure::{Exit, Failure, OrFail as _};
use crate::table;

/// Environment variables of a Unit.
#[derive(Subcommand)]
pub enum Env {
    /// List the variables that are set, and what became of them.
    Ls {
        /// System id, id or title of the Unit.
        unit: String,
        /// Show the values too; that is written to the audit.
        #[arg(long)]
        reveal: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Set variables; instances that are meant are started again with them.
    Set(Set),
    /// Take variables away.
    Rm {
        /// System id, id or title of the Unit.
        unit: String,
        /// Names or ids of the variables; a name means all of that name.
        #[arg(required = true)]
        variables: Vec<String>,
    },
}

/// Set variables.
#[derive(Args)]
pub struct Set {
    /// System id, id or title of the Unit.
    unit: String,
    /// `NAME=VALUE`; others on this machine may see it, so not for secrets.
    variables: Vec<String>,
    /// `NAME=FILE`: the value is the content of the file, `-` for the standard input; an end of line at its end is left
    /// out.
    #[arg(long = "from-file", value_name = "NAME=FILE")]
    files: Vec<String>,
    /// Only for this service.
    #[arg(long)]
    service: Option<String>,
    /// Only for this Subject (label or id).
    #[arg(long)]
    subject: Option<String>,
    /// Only for the instance of this number.
    #[arg(long, value_name = "N")]
    instance: Option<u64>,
    /// They end by themselves after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
}

/// `aos unit env …`.
pub async fn run(client: &Client, command: Env) -> Result<(), Failure> {
    match command {
        Env::Ls { unit, reveal, json } => {
            let all = list(client, &unit, reveal).await?;
            show(&all, json)
        }
        Env::Set(command) => set(client, command).await,
        Env::Rm { unit, variables } => remove(client, &unit, &variables).await,
    }
}

async fn list(client: &Client, unit: &str, reveal: bool) -> Result<Vec<EnvVar>, Failure> {
    let unit = pick::unit(client, unit).await?;
    let path = paths::fill(paths::UNIT_ENV_VARS, &[&unit.id.to_string()]);
    let query = EnvVarsQuery {
        reveal: reveal.then_some(true),
    };
    let page: Page<EnvVar> = client.get_with(&path, &query).await?;
    Ok(page.items)
}

fn show(all: &[EnvVar], json: bool) -> Result<(), Failure> {
    if json {
        return table::json(&all);
    }
    let mut out = table::table(&[
        "name", "value", "service", "subject", "instance", "until", "state", "error",
    ]);
    for one in all {
        let error = one
            .instances
            .iter()
            .find_map(|instance| Some((instance, instance.error.as_ref()?)))
            .map(|(instance, error)| {
                format!("instance {}: {}", instance.instance_id, error.message)
            });
        let any = |name: Option<&String>| name.map_or("any", String::as_str).to_owned();
        out.add_row([
            Cell::new(&one.name),
            Cell::new(one.value.as_deref().unwrap_or("••••")),
            Cell::new(any(one.service.as_ref().map(|it| &it.codename))),
            Cell::new(any(one.subject.as_ref().map(|it| &it.label))),
            Cell::new(any(one.instance_id.map(|it| it.to_string()).as_ref())),
            Cell::new(one.expires_at.map(|at| at.to_string()).unwrap_or_default()),
            table::state(table::word(&one.state)),
            Cell::new(error.unwrap_or_default()),
        ]);
    }
    table::show(
        &out,
        "no variables are set: `aos unit env set <unit> NAME=VALUE`",
    );
    Ok(())
}

async fn set(client: &Client, command: Set) -> Result<(), Failure> {
    let mut variables = Vec::new();
    let split = |text: &str| {
        text.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .ok_or_else(|| {
                Failure::new(format!("`{}` names no value", shown(text)))
                    .hint("write NAME=VALUE, or --from-file NAME=FILE")
            })
    };
    for text in &command.variables {
        let (name, value) = split(text)?;
        variables.push((name, value));
    }
    for text in &command.files {
        let (name, file) = split(text)?;
        variables.push((name, content(Path::new(&file))?));
    }
    if variables.is_empty() {
        return Err(
            Failure::new("no variable is named").hint("write NAME=VALUE, or --from-file NAME=FILE")
        );
    }
    let unit = pick::unit(client, &command.unit).await?;
    let names: Vec<String> = variables.iter().map(|(name, _)| name.clone()).collect();
    let body = NewEnvVars {
        service: command.service,
        subject: command.subject,
        instance_id: command.instance,
        variables: variables
            .into_iter()
            .map(|(name, value)| NewEnvVar {
                name,
                value,
                ttl: command.ttl,
            })
            .collect(),
    };
    let path = paths::fill(paths::UNIT_ENV_VARS, &[&unit.id.to_string()]);
    let _: Page<EnvVar> = client.post(&path, &body).await?;
    table::say(format!("set {} on {}", names.join(", "), unit.system_uid));
    Ok(())
}

/// What stands before a value, if one was meant: it may be a secret.
fn shown(text: &str) -> String {
    text.chars().take(32).collect()
}

fn content(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .read_to_string(&mut text)
            .or_fail(|| "cannot read the value from the standard input")?;
    } else {
        text = std::fs::read_to_string(file)
            .or_fail(|| format!("cannot read the value from {}", file.display()))?;
    }
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}

async fn remove(client: &Client, unit: &str, variables: &[String]) -> Result<(), Failure> {
    let all = list(client, unit, false).await?;
    let unit = pick::unit(client, unit).await?;
    for name in variables {
        let meant: Vec<_> = all
            .iter()
            .filter(|one| one.name == *name || one.id.to_string() == *name)
            .collect();
        if meant.is_empty() {
            return Err(Failure::new(format!(
                "no variable `{name}` is set on {}",
                unit.system_uid
            ))
            .hint("`aos unit env ls <unit>` shows what is set")
            .exit(Exit::NotFound));
        }
        for one in meant {
            let path = paths::fill(
                paths::UNIT_ENV_VAR,
                &[&unit.id.to_string(), &one.id.to_string()],
            );
            client.delete(&path).await?;
            table::say(format!("took {} from {}", one.name, unit.system_uid));
        }
    }
    Ok(())
}
