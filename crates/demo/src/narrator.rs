//! What the audience sees: each step with its time, and at the end a table.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::OwoColorize as _;

/// How wide the table is, in characters.
const WIDTH: u16 = 120;

/// One step that was told.
struct Told {
    step: String,
    time: Duration,
    outcome: String,
}

/// Tells the steps and remembers them.
pub struct Narrator {
    begin: Instant,
    colours: bool,
    told: Vec<Told>,
}

impl Default for Narrator {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            told: Vec::new(),
        }
    }
}

impl Narrator {
    /// A remark between the steps.
    pub fn remark(&self, text: &str) {
        println!("{text}");
    }

    /// A step: what happens, and what was found when it had.
    pub fn step(&mut self, title: &str, step: impl FnOnce() -> Result<String>) -> Result<()> {
        let at = self.begin.elapsed();
        let begin = Instant::now();
        let number = self.told.len() + 1;
        let head = format!("[{:6.1} s] {number:>2}. {title}", at.as_secs_f64());
        if self.colours {
            println!("{}", head.bold());
        } else {
            println!("{head}");
        }
        let result = step();
        let time = begin.elapsed();
        let outcome = match &result {
            Ok(found) => {
                println!("             {found} ({:.2} s)", time.as_secs_f64());
                found.clone()
            }
            Err(error) => {
                let text = format!("FAILED: {error:#}");
                if self.colours {
                    println!("             {}", text.red());
                } else {
                    println!("             {text}");
                }
                text
            }
        };
        self.told.push(Told {
            step: title.to_owned(),
            time,
            outcome,
        });
        result.map(|_| ())
    }

    /// Time since the curtain rose.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// All steps as a table.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::ASCII_BORDERS_ONLY_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(WIDTH)
            .set_header(["", "step", "time", "seen from outside"]);
        for (number, told) in self.told.iter().enumerate() {
            table.add_row([
                (number + 1).to_string(),
                told.step.clone(),
                format!("{:.2} s", told.time.as_secs_f64()),
                told.outcome.clone(),
            ]);
        }
        table.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_in_the_table() {
        let mut narrator = Narrator::default();
        narrator.step("it works", || Ok("seen".into())).unwrap();
        narrator
            .step("it does not", || anyhow::bail!("no answer"))
            .unwrap_err();
        let table = narrator.table();
        assert!(
            table.contains("it works") && table.contains("seen"),
            "{table}"
        );
        assert!(table.contains("FAILED: no answer"), "{table}");
    }
}
