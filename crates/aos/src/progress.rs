//! Progress on a terminal; nothing where there is none.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

fn bar(bar: ProgressBar) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// Bytes on their way. The name stands before the bar.
pub fn bytes(name: &str, total: u64) -> ProgressBar {
    let bar = bar(ProgressBar::new(total));
    if let Ok(style) = ProgressStyle::with_template(
        "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    ) {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar
}

/// Waiting for something, and what for.
pub struct Spinner(ProgressBar);

impl Spinner {
    /// `name` stands before what is waited for.
    pub fn new(name: &str) -> Self {
        let bar = bar(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// What is waited for now.
    pub fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    /// The waiting is over.
    pub fn done(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
