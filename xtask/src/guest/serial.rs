//! What the guest said on its serial console, as results of tests.

use super::Case;
use crate::results::{Counts, reason_of};

/// How one test ended, and what it printed.
struct Outcome<'a> {
    code: &'a str,
    text: String,
}

/// Counts the cases. One whose end was not told has failed: the guest ended before.
pub(super) fn read(cases: &[Case], console: &str) -> Counts {
    let mut counts = Counts::default();
    for note in console
        .lines()
        .filter_map(|line| line.trim().strip_prefix("@@note "))
    {
        println!("  guest: {note}");
    }
    for case in cases {
        let name = format!("guest {}::{}", case.program, case.test);
        match outcome(case, console) {
            None => {
                println!("  LOST {name}");
                counts
                    .failed
                    .push(format!("{name}: the guest ended before it did"));
            }
            Some(Outcome { code: "0", text }) => match reason_of(&case.test, &text) {
                Some(reason) => counts.skipped.push((name, reason.to_owned())),
                None => {
                    println!("  PASS {name}");
                    counts.passed += 1;
                }
            },
            Some(Outcome { code, text }) => {
                println!("  FAIL {name}: exit {code}\n{text}");
                counts.failed.push(name);
            }
        }
    }
    if counts
        .failed
        .iter()
        .any(|name| name.contains("the guest ended"))
    {
        let lines: Vec<&str> = console.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(60)..)
            .unwrap_or(&lines);
        println!("the guest's last words:\n{}", tail.join("\n"));
    }
    counts
}

fn outcome<'a>(case: &Case, console: &'a str) -> Option<Outcome<'a>> {
    let begin = format!("@@begin {} {}", case.executable, case.test);
    let mut lines = console.lines().map(str::trim_end);
    lines.find(|line| *line == begin)?;
    let mut text = String::new();
    for line in lines {
        if let Some(code) = line.strip_prefix("@@end ") {
            return Some(Outcome { code, text });
        }
        if line.starts_with("@@begin ") {
            return None;
        }
        text.push_str(line);
        text.push('\n');
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_were_lost_have_failed() {
        let case = |test: &str| Case {
            program: "quota::guest".into(),
            executable: "/t/quota".into(),
            test: test.into(),
        };
        let cases = ["guest_a", "guest_b", "guest_c", "guest_d"].map(case);
        let console = "boot\r\n@@begin /t/quota guest_a\r\nok\r\n\r\n@@end 0\r\n\
            @@begin /t/quota guest_b\r\nSKIPPED guest_b: needs more\r\n@@end 0\r\n\
            @@begin /t/quota guest_c\r\npanicked\r\n@@end 101\r\n\
            @@begin /t/quota guest_d\r\nKernel panic\r\n";
        let counts = read(&cases, console);
        assert_eq!(counts.passed, 1);
        assert_eq!(
            counts.skipped,
            [(
                "guest quota::guest::guest_b".to_owned(),
                "needs more".to_owned()
            )]
        );
        assert_eq!(
            counts.failed,
            [
                "guest quota::guest::guest_c",
                "guest quota::guest::guest_d: the guest ended before it did"
            ]
        );
    }
}
