use std::{fmt, ops::RangeInclusive, time::Duration};

use serde::Serialize;
use serde_json::Value;

use crate::tolerant::{FieldError, Fields, FromJson};

/// How it is found out whether a running instance is healthy (`docs/protocol/items.md`, health check). Ours; peers ignore
/// it.
///
/// An instance with a check is active from its first success on; `retries` failures in a row make it unhealthy, and then
/// it is started again by its [`RunParameters`](crate::RunParameters).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// What is tried.
    #[serde(flatten)]
    pub probe: Probe,
    /// From the start: failures before the first success do not count so long; 10 s by default, at most an hour.
    #[serde(with = "crate::duration")]
    pub start_period: Duration,
    /// The pause between two probes; 10 s by default, from 1 s to an hour. Until the first success it is at most 1 s.
    #[serde(with = "crate::duration")]
    pub interval: Duration,
    /// How long one probe may take; 5 s by default, from 100 ms to a minute.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy; 3 by default, from 1 to 100.
    pub retries: u32,
}

/// What a health check tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// Runs a program inside the instance, without a shell; its exit code 0 is healthy.
    Exec(Vec<String>),
    /// Gets a page from the instance's own loopback address; a status from 200 to 399 is healthy.
    Http {
        /// The port inside the instance.
        port: u16,
        /// Path and query.
        path: String,
    },
    /// Connects to the instance's own loopback address.
    Tcp {
        /// The port inside the instance.
        port: u16,
    },
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Arguments may hold what is nobody's business.
            Self::Exec(command) => write!(f, "exec {}", command.first().map_or("", |one| one)),
            Self::Http { port, path } => write!(f, "http :{port}{path}"),
            Self::Tcp { port } => write!(f, "tcp :{port}"),
        }
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
/// Program and arguments of an exec probe at most, and their bytes together.
const MAX_ARGS: usize = 64;
const MAX_ARG_BYTES: usize = 8 << 10;
/// Bytes of an HTTP path at most.
const MAX_PATH: usize = 1 << 10;

impl HealthCheck {
    /// This probe with the default times.
    pub fn of(probe: Probe) -> Self {
        Self {
            probe,
            start_period: Duration::from_secs(10),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            retries: 3,
        }
    }
}

impl FromJson for HealthCheck {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let default = Self::of(probe(&fields)?);
        let span = |key, default, range: RangeInclusive<Duration>| {
            let span = fields.opt(key)?.unwrap_or(default);
            if range.contains(&span) {
                return Ok(span);
            }
            let (least, most) = range.into_inner();
            let why = format!("must be from {least:?} to {} s", most.as_secs());
            Err(FieldError::new(why).at(key))
        };
        let retries = fields.opt("retries")?.unwrap_or(default.retries);
        if !(1..=100).contains(&retries) {
            return Err(FieldError::new("must be from 1 to 100").at("retries"));
        }
        Ok(Self {
            start_period: span("startPeriod", default.start_period, Duration::ZERO..=HOUR)?,
            interval: span("interval", default.interval, Duration::from_secs(1)..=HOUR)?,
            timeout: span(
                "timeout",
                default.timeout,
                Duration::from_millis(100)..=MINUTE,
            )?,
            retries,
            probe: default.probe,
        })
    }
}

fn probe(fields: &Fields<'_>) -> Result<Probe, FieldError> {
    let given = ["exec", "http", "tcp"].map(|key| fields.get(key).map(|value| (key, value)));
    let mut given = given.into_iter().flatten();
    let (Some((key, value)), None) = (given.next(), given.next()) else {
        let why = "needs exactly one of `exec` (a list of program and arguments), `http` and `tcp`";
        return Err(FieldError::new(why));
    };
    let probe = match key {
        "exec" => command(value).map(Probe::Exec),
        "http" => Fields::of(value).and_then(|http| {
            Ok(Probe::Http {
                port: port(&http)?,
                path: path(&http)?,
            })
        }),
        _ => Fields::of(value).and_then(|tcp| Ok(Probe::Tcp { port: port(&tcp)? })),
    };
    probe.map_err(|error| error.at(key))
}

fn command(value: &Value) -> Result<Vec<String>, FieldError> {
    let command: Vec<String> = Vec::from_json(value)?;
    let bytes: usize = command.iter().map(String::len).sum();
    if command.first().is_none_or(String::is_empty) {
        return Err(FieldError::new("names no program"));
    }
    if command.len() > MAX_ARGS || bytes > MAX_ARG_BYTES {
        let why = format!("has more than {MAX_ARGS} arguments or {MAX_ARG_BYTES} bytes");
        return Err(FieldError::new(why));
    }
    if command.iter().any(|arg| arg.contains('\0')) {
        return Err(FieldError::new("holds a NUL character"));
    }
    Ok(command)
}

fn port(fields: &Fields<'_>) -> Result<u16, FieldError> {
    match fields.req("port")? {
        0 => Err(FieldError::new("a port is a number from 1 to 65535").at("port")),
        port => Ok(port),
    }
}

/// What may stand in a request line: no space ends it early, no line break begins another header.
fn path(fields: &Fields<'_>) -> Result<String, FieldError> {
    let path = fields.opt("path")?.unwrap_or_else(|| "/".to_owned());
    let fits = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits || path.len() > MAX_PATH {
        let why =
            format!("must begin with `/` and have at most {MAX_PATH} printable ASCII characters");
        return Err(FieldError::new(why).at("path"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<HealthCheck, String> {
        HealthCheck::from_json(&value).map_err(|error| error.to_string())
    }

    #[test]
    fn each_probe_is_read_and_written() {
        for (json, probe) in [
            (
                json!({"exec": ["/bin/check", "-q"]}),
                Probe::Exec(vec!["/bin/check".into(), "-q".into()]),
            ),
            (
                json!({"http": {"port": 80}}),
                Probe::Http {
                    port: 80,
                    path: "/".into(),
                },
            ),
            (json!({"TCP": {"port": 5432}}), Probe::Tcp { port: 5432 }),
        ] {
            let check = read(json).unwrap();
            assert_eq!(check, HealthCheck::of(probe));
            let written = serde_json::to_value(&check).unwrap();
            assert_eq!(read(written).unwrap(), check);
        }
        let check = read(
            json!({"http": {"port": 8, "path": "/up?full=1"}, "startPeriod": "1m",
            "interval": 2, "timeout": "500ms", "retries": 1}),
        )
        .unwrap();
        let times = (check.start_period, check.interval, check.timeout);
        let millis = Duration::from_millis;
        assert_eq!(times, (millis(60_000), millis(2_000), millis(500)));
        assert_eq!(check.retries, 1);
        assert_eq!(read(serde_json::to_value(&check).unwrap()).unwrap(), check);
    }

    #[test]
    fn errors_name_the_field() {
        for (bad, text) in [
            (json!({}), "exactly one of"),
            (
                json!({"tcp": {"port": 1}, "exec": ["/x"]}),
                "exactly one of",
            ),
            (json!({"exec": []}), "`exec`: names no program"),
            (json!({"exec": "/bin/true"}), "`exec`"),
            (json!({"exec": ["/x", "\u{0}"]}), "`exec`: holds a NUL"),
            (
                json!({"exec": ["x".repeat(9_000)]}),
                "`exec`: has more than",
            ),
            (json!({"tcp": {"port": 0}}), "`tcp.port`"),
            (json!({"http": {"path": "/"}}), "`http.port`: is missing"),
            (
                json!({"http": {"port": 1, "path": "x"}}),
                "`http.path`: must begin",
            ),
            (
                json!({"http": {"port": 1, "path": "/ HTTP/1.1\r\nX: y"}}),
                "`http.path`",
            ),
            (
                json!({"tcp": {"port": 1}, "interval": 0}),
                "`interval`: must be from 1s",
            ),
            (json!({"tcp": {"port": 1}, "timeout": "2m"}), "`timeout`"),
            (
                json!({"tcp": {"port": 1}, "startPeriod": "P1D"}),
                "`startPeriod`",
            ),
            (json!({"tcp": {"port": 1}, "retries": 0}), "`retries`"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
