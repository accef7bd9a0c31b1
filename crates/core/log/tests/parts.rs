//! Cutting an answer into parts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use aos_log::{Limits, Parts};
use proptest::prelude::*;

/// All parts of these lines (oldest first), in their own order.
fn cut(lines: &[String], limits: Limits) -> Vec<String> {
    let mut parts = Parts::new(limits);
    let mut newest_first = Vec::new();
    for line in lines.iter().rev() {
        newest_first.extend(parts.push(line.clone()));
        if parts.is_full() {
            break;
        }
    }
    newest_first.extend(parts.finish());
    newest_first.reverse();
    newest_first
}

#[test]
fn nothing_has_no_part_and_a_long_line_has_its_own() {
    let limits = Limits {
        part_bytes: 10,
        parts: 5,
    };
    assert!(cut(&[], limits).is_empty());
    let lines = ["aaaa\n", "a line that is too long\n", "b\n", "c\n"].map(String::from);
    assert_eq!(
        cut(&lines, limits),
        ["aaaa\n", "a line that is too long\n", "b\nc\n"]
    );
}

#[test]
fn what_would_be_too_long_loses_its_oldest_lines_and_says_so() {
    let lines: Vec<String> = (0..1_000).map(|n| format!("line {n:04}\n")).collect();
    let limits = Limits {
        part_bytes: 100,
        parts: 3,
    };
    let parts = cut(&lines, limits);
    assert_eq!(parts.len(), 3);
    assert!(parts[0].starts_with("# older lines were left out"));
    assert!(parts[2].ends_with("line 0999\n"));
    let told: String = parts.concat();
    let told: Vec<&str> = told.lines().skip(1).collect();
    let newest: Vec<&str> = lines[lines.len() - told.len()..]
        .iter()
        .map(|line| line.trim_end())
        .collect();
    assert_eq!(told, newest);
}

proptest! {
    #[test]
    fn parts_are_within_bounds_and_hold_the_newest_lines_in_order(
        lengths in prop::collection::vec(0_usize..40, 0..200),
        part_bytes in 1_usize..200,
        most in 1_usize..20,
    ) {
        let lines: Vec<String> = lengths
            .iter()
            .enumerate()
            .map(|(n, length)| format!("{n}:{}\n", "x".repeat(*length)))
            .collect();
        let parts = cut(&lines, Limits { part_bytes, parts: most });
        prop_assert!(parts.len() <= most);
        for part in &parts {
            let own: usize = part.lines().filter(|line| !line.starts_with('#')).map(|line| line.len() + 1).sum();
            let count = part.lines().filter(|line| !line.starts_with('#')).count();
            prop_assert!(own <= part_bytes || count == 1, "{own} bytes in {count} lines");
        }
        let told: Vec<String> = parts
            .concat()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect();
        prop_assert_eq!(&told[..], &lines[lines.len() - told.len()..]);
        let whole = told.len() == lines.len();
        let says = parts.first().is_some_and(|part| part.starts_with('#'));
        prop_assert_eq!(whole, !says);
    }
}
