//! Where a component's log goes and how it looks: stderr, by `AOS_LOG` and `AOS_LOG_FORMAT`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, OrFail as _};

/// Crates that would write whole handshakes and headers, tokens included, below this level.
const TALKATIVE: &[&str] = &["tungstenite=info", "h2=info", "hyper=info", "reqwest=info"];

/// Starts the log of this process. `AOS_LOG` is a level or a filter such as `info,aos_cm=debug`;
/// `AOS_LOG_FORMAT=json` writes one JSON object a line.
pub fn start() -> Result<(), Failure> {
    let text = std::env::var("AOS_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&text)
        .or_fail(|| format!("AOS_LOG=`{text}` is not a log filter"))
        .map_err(|failure| {
            failure.hint("say a level (debug, info, warn, error) or `info,aos_cm=debug`")
        })?;
    let mut filter = filter;
    for quiet in TALKATIVE {
        let directive = quiet.parse();
        filter = filter.add_directive(directive.or_fail(|| format!("`{quiet}` is no log filter"))?);
    }
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match std::env::var("AOS_LOG_FORMAT").as_deref() {
        Ok("json") => subscriber.json().flatten_event(true).try_init(),
        Ok("text") | Err(_) => subscriber
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        Ok(other) => {
            return Err(
                Failure::new(format!("AOS_LOG_FORMAT=`{other}` is no format"))
                    .hint("say `text` or `json`"),
            );
        }
    };
    started.map_err(|error| Failure::new("cannot start the log").why(error.to_string()))
}
