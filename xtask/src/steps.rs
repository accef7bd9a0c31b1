//! The steps of a test run: each is timed, none hides another's failure.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::results::Counts;

/// Runs one step, printing its name before and its time after.
pub fn timed<T>(name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n== {name}");
    let begin = Instant::now();
    let result = step();
    let word = if result.is_ok() { "done" } else { "FAILED" };
    println!("== {name}: {word} in {}", seconds(begin.elapsed()));
    result
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// What the steps of a run came to.
#[derive(Default)]
pub struct Run {
    lines: Vec<(String, Duration, String)>,
    counts: Counts,
}

impl Run {
    /// A step that counts as one check.
    pub fn check(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> bool {
        self.counted(name, || {
            step().map(|()| Counts {
                passed: 1,
                ..Counts::default()
            })
        })
    }

    /// A step that counts its own tests. An error counts as one failed check beside them.
    pub fn counted(&mut self, name: &str, step: impl FnOnce() -> Result<Counts>) -> bool {
        let begin = Instant::now();
        let result = timed(name, step);
        let (good, word) = match result {
            Ok(counts) => {
                let good = counts.failed.is_empty();
                self.counts.add(counts);
                (good, if good { "passed" } else { "FAILED" })
            }
            Err(error) => {
                eprintln!("{name}: {error:#}");
                self.counts.failed.push(format!("{name}: {error:#}"));
                (false, "FAILED")
            }
        };
        self.lines
            .push((name.to_owned(), begin.elapsed(), word.to_owned()));
        good
    }

    /// A step that cannot be done here, and why.
    pub fn skip(&mut self, name: &str, reason: &str) {
        println!("\n== {name}: skipped: {reason}");
        self.lines
            .push((name.to_owned(), Duration::ZERO, "skipped".to_owned()));
        self.counts
            .skipped
            .push((name.to_owned(), reason.to_owned()));
    }

    /// Prints times, skipped and failed checks, and as the very last line the sums.
    pub fn finish(self) -> bool {
        println!("\n== steps");
        for (name, time, word) in &self.lines {
            println!("  {name:<28} {:>9}  {word}", seconds(*time));
        }
        if !self.counts.skipped.is_empty() {
            println!("\n== skipped");
            for (name, reason) in &self.counts.skipped {
                println!("  SKIPPED {name}: {reason}");
            }
        }
        if !self.counts.failed.is_empty() {
            println!("\n== failed");
            for name in &self.counts.failed {
                println!("  FAILED {name}");
            }
        }
        println!();
        println!("{}", self.counts.line());
        self.counts.failed.is_empty()
    }
}
