//! Waiting for a state of the world, never for an event and never for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often the world is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until `look` gives a value. It says what is still missing otherwise.
///
/// Fails when `limit` has passed, with what was missing last, or when `stop` is set.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    stop: &AtomicBool,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        let missing = match look() {
            Ok(found) => return Ok(found),
            Err(missing) => missing,
        };
        if stop.load(Ordering::SeqCst) {
            bail!("stopped while waiting for {what}");
        }
        if Instant::now() >= until {
            return Err(missing.context(format!(
                "{what} did not happen within {} s",
                limit.as_secs()
            )));
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_missing_last() {
        let mut looks = 0;
        let error = wait_for(
            "rain",
            Duration::from_millis(120),
            &AtomicBool::new(false),
            || {
                looks += 1;
                bail!("dry for {looks} looks") as Result<()>
            },
        )
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.starts_with("rain did not happen within 0 s: dry for "),
            "{text}"
        );
    }

    #[test]
    fn stops_when_told() {
        let stop = AtomicBool::new(true);
        let error = wait_for("rain", Duration::from_secs(60), &stop, || {
            bail!("dry") as Result<()>
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "stopped while waiting for rain");
    }
}
