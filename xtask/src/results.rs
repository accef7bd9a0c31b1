//! What a run of tests came to, read from what the test programs print.

use std::collections::BTreeMap;

/// How many tests passed, which failed, which were skipped and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: Vec<String>,
    pub skipped: Vec<(String, String)>,
}

impl Counts {
    /// Adds another part of the run.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// The last line of a run.
    pub fn line(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed.len(),
            self.skipped.len()
        )
    }
}

/// Reads the output of one libtest program that ran with `--show-output`.
///
/// A test that cannot run here prints `SKIPPED <test>: <reason>` and returns; libtest calls that
/// "ok". So a line like this moves one test from passed to skipped.
pub fn read_libtest(program: &str, output: &str) -> Counts {
    let mut verdicts: BTreeMap<&str, &str> = BTreeMap::new();
    let mut reasons: BTreeMap<&str, String> = BTreeMap::new();
    let mut counts = Counts::default();
    let mut section = None;
    for line in output.lines() {
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            section = Some(name);
        } else if let Some((name, verdict)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        {
            let name = name.split(" - should panic").next().unwrap_or(name);
            verdicts.insert(name, verdict);
            section = None;
        } else if let Some((name, reason)) = skipped_line(line)
            && section.is_none_or(|test| is_of(test, name))
        {
            reasons.insert(section.unwrap_or(name), reason.to_owned());
        }
    }
    for (name, verdict) in verdicts {
        let full = format!("{program}::{name}");
        if let Some(reason) = verdict.strip_prefix("ignored") {
            let reason = reason.trim_start_matches(", ").trim();
            let reason = if reason.is_empty() {
                "marked #[ignore]"
            } else {
                reason
            };
            counts.skipped.push((full, reason.to_owned()));
        } else if verdict != "ok" {
            counts.failed.push(full);
        } else if let Some(reason) = reasons.remove(name).or_else(|| by_last(&mut reasons, name)) {
            counts.skipped.push((full, reason));
        } else {
            counts.passed += 1;
        }
    }
    counts
}

/// A reason printed outside a section, under the test's short name.
fn by_last(reasons: &mut BTreeMap<&str, String>, name: &str) -> Option<String> {
    let last = name.rsplit("::").next()?;
    reasons.remove(last)
}

/// Whether a test of this full name is the one that `SKIPPED <test>` speaks of. One that only prints such a line, because it
/// tests what is done with them, is not.
fn is_of(test: &str, named: &str) -> bool {
    test.rsplit("::").next() == Some(named)
}

/// The reason why a test of this full name was skipped, if its output says so.
pub fn reason_of<'a>(test: &str, output: &'a str) -> Option<&'a str> {
    let mut lines = output.lines().filter_map(skipped_line);
    lines.find_map(|(named, reason)| is_of(test, named).then_some(reason))
}

/// Splits `SKIPPED <test>: <reason>`.
fn skipped_line(line: &str) -> Option<(&str, &str)> {
    let rest = line.trim().strip_prefix("SKIPPED ")?;
    let (name, reason) = rest.split_once(": ")?;
    Some((name.trim(), reason.trim()))
}

/// Reads the JUnit report that nextest writes with the output of successful tests kept.
pub fn read_junit(report: &str) -> Counts {
    let mut counts = Counts::default();
    for case in report.split("<testcase ").skip(1) {
        let case = case.split("</testcase>").next().unwrap_or(case);
        let program = attribute(case, "classname").unwrap_or_default();
        let name = attribute(case, "name").unwrap_or_default();
        let full = format!("{program}::{name}");
        // A test that passed only when tried again has `flakyFailure`; we allow no retries.
        if case.contains("<failure") || case.contains("<error") {
            counts.failed.push(full);
        } else if let Some(reason) = reason_of(&name, &case.replace('>', ">\n")) {
            counts.skipped.push((full, unescape(reason)));
        } else {
            counts.passed += 1;
        }
    }
    counts
}

fn attribute(element: &str, name: &str) -> Option<String> {
    let start = element.find(&format!("{name}=\""))? + name.len() + 2;
    let rest = element.get(start..)?;
    rest.split('"').next().map(unescape)
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_output_is_counted() {
        let output = "\nrunning 4 tests\n\
            test a::good ... ok\n\
            test a::needs_root ... ok\n\
            test b::slow ... ignored, takes an hour\n\
            test c::bad ... FAILED\n\
            \nsuccesses:\n\n---- a::needs_root stdout ----\n\
            SKIPPED needs_root: needs root\n\n\
            successes:\n    a::good\n    a::needs_root\n\
            \ntest result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n";
        let counts = read_libtest("aos-x", output);
        assert_eq!(counts.passed, 1);
        assert_eq!(counts.failed, ["aos-x::c::bad"]);
        assert_eq!(
            counts.skipped,
            [
                ("aos-x::a::needs_root".to_owned(), "needs root".to_owned()),
                ("aos-x::b::slow".to_owned(), "takes an hour".to_owned()),
            ]
        );
        assert_eq!(counts.line(), "1 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn a_test_that_prints_the_word_was_not_skipped() {
        let output = "test a::reads_lines ... ok\n---- a::reads_lines stdout ----\n\
            SKIPPED guest_b: needs more\n";
        let counts = read_libtest("aos-x", output);
        assert_eq!((counts.passed, counts.skipped.len()), (1, 0));
        let report = "<testcase name=\"a::reads_lines\" classname=\"x\">\n<system-out>  PASS guest a\n\
            SKIPPED guest_b: needs more\n</system-out></testcase>";
        let counts = read_junit(report);
        assert_eq!((counts.passed, counts.skipped.len()), (1, 0));
    }

    #[test]
    fn junit_report_is_counted() {
        let report = r#"<testsuites><testsuite name="aos-x">
            <testcase name="a::good" classname="aos-x" time="0.1">
            </testcase>
            <testcase name="a::root" classname="aos-x" time="0.1">
              <system-err>SKIPPED root: needs &lt;root&gt;
</system-err>
            </testcase>
            <testcase name="a::bad" classname="aos-x" time="0.1">
              <failure type="test failure">no</failure>
            </testcase></testsuite></testsuites>"#;
        let counts = read_junit(report);
        assert_eq!(counts.passed, 1);
        assert_eq!(counts.failed, ["aos-x::a::bad"]);
        assert_eq!(
            counts.skipped,
            [("aos-x::a::root".to_owned(), "needs <root>".to_owned())]
        );
    }
}
