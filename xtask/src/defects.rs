//! The page of known defects tells the truth: each has a test that exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The page, from the root of the workspace.
const PAGE: &str = "docs/protocol/known-defects.md";
/// The defects it lists.
const NUMBERS: &[std::ops::RangeInclusive<u8>] = &[1..=60, 69..=73, 84..=87];

fn numbers() -> impl Iterator<Item = u8> {
    NUMBERS.iter().cloned().flatten()
}

/// Fails if a defect has no test, if a test that is named does not exist, or if one exists and is not named.
pub fn run(root: &Path) -> Result<()> {
    let page =
        fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let mut written = BTreeSet::new();
    for folder in ["crates", "xtask"] {
        collect(&root.join(folder), &mut written)?;
    }
    let complaints = check(&page, &written);
    if !complaints.is_empty() {
        bail!(
            "{PAGE} and the tests differ:\n  {}",
            complaints.join("\n  ")
        );
    }
    println!("{} known defects, each with a test", numbers().count());
    Ok(())
}

fn check(page: &str, written: &BTreeSet<String>) -> Vec<String> {
    let mut named: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for name in page.split('`').filter(|word| number(word).is_some()) {
        let names = named.entry(number(name).unwrap_or_default()).or_default();
        names.push(name.to_owned());
    }
    let mut complaints = Vec::new();
    for number in numbers() {
        let names = named.remove(&number).unwrap_or_default();
        if names.is_empty() {
            complaints.push(format!("defect {number} names no test"));
        }
        for name in names.iter().filter(|name| !written.contains(*name)) {
            complaints.push(format!("there is no test `{name}`"));
        }
        let unnamed = written
            .iter()
            .filter(|name| self::number(name) == Some(number));
        for name in unnamed.filter(|name| !names.contains(name)) {
            complaints.push(format!("test `{name}` is not on the page"));
        }
    }
    complaints
}

/// The defect a test is about: 7 for `gap_07_…`.
fn number(name: &str) -> Option<u8> {
    let (digits, words) = name.strip_prefix("gap_")?.split_once('_')?;
    (digits.len() == 2 && !words.is_empty()).then(|| digits.parse().ok())?
}

/// Puts the test functions called `gap_NN_…` of all Rust files below `folder` into `found`.
fn collect(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            found.extend(tests(&text));
        }
    }
    Ok(())
}

/// The functions called `gap_NN_…` that stand below a test attribute.
fn tests(text: &str) -> Vec<String> {
    let mut marked = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if !line.starts_with("//") && !line.is_empty() {
            let after = line.trim_start_matches("async ").strip_prefix("fn ");
            let name = after.and_then(|rest| rest.split(['(', '<']).next());
            names.extend(
                name.filter(|name| marked && number(name).is_some())
                    .map(Into::into),
            );
            marked = false;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(numbers: impl Iterator<Item = u8>) -> (String, BTreeSet<String>) {
        let names: BTreeSet<String> = numbers.map(|number| format!("gap_{number:02}_x")).collect();
        let rows: Vec<String> = names.iter().map(|name| format!("| `{name}` |")).collect();
        (rows.join("\n"), names)
    }

    #[test]
    fn a_page_is_complete_or_says_what_is_missing() {
        let (text, names) = page(numbers());
        assert_eq!(check(&text, &names), Vec::<String>::new());
        let (shorter, fewer) = page(numbers().filter(|number| *number != 7));
        assert_eq!(check(&text, &fewer), ["there is no test `gap_07_x`"]);
        assert_eq!(
            check(&shorter, &names),
            [
                "defect 7 names no test",
                "test `gap_07_x` is not on the page"
            ]
        );
    }

    #[test]
    fn only_tests_count() {
        let text = "#[test]\nfn gap_01_a() {}\n#[tokio::test]\nasync fn gap_02_b() {}\nfn gap_03_c() {}\n\
                    #[test]\n#[ignore]\nfn other() {}\nfn gap_04_d() {}\n";
        assert_eq!(tests(text), ["gap_01_a", "gap_02_b"]);
    }
}
