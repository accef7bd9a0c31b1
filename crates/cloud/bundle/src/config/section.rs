//! Reads the fields of one mapping, noting every problem and going on.

use std::cell::RefCell;

use serde_json::{Map, Value};

use super::{Problem, Problems, Severity, yaml::Lines};

/// What is noted while a configuration is read.
pub(crate) struct Notes {
    pub(crate) lines: Lines,
    problems: RefCell<Vec<Problem>>,
}

impl Notes {
    pub(crate) fn new(lines: Lines) -> Self {
        Self {
            lines,
            problems: RefCell::default(),
        }
    }

    fn note(&self, severity: Severity, field: &str, message: String) {
        self.problems.borrow_mut().push(Problem {
            severity,
            line: self.lines.of(field),
            field: field.to_owned(),
            message,
        });
    }

    pub(crate) fn error(&self, field: &str, message: impl Into<String>) {
        self.note(Severity::Error, field, message.into());
    }

    pub(crate) fn warn(&self, field: &str, message: impl Into<String>) {
        self.note(Severity::Warning, field, message.into());
    }

    pub(crate) fn take(&self) -> Problems {
        let mut problems = self.problems.take();
        problems.sort_by_key(|problem| problem.line);
        Problems(problems)
    }
}

/// A mapping of the configuration.
pub(crate) struct Section<'a> {
    pub(crate) notes: &'a Notes,
    path: String,
    map: &'a Map<String, Value>,
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

impl<'a> Section<'a> {
    pub(crate) fn of(notes: &'a Notes, path: String, value: &'a Value) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { notes, path, map }),
            other => {
                notes.error(&path, format!("expected a mapping, found {}", kind(other)));
                None
            }
        }
    }

    pub(crate) fn field(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(crate) fn error(&self, key: &str, message: impl Into<String>) {
        self.notes.error(&self.field(key), message);
    }

    pub(crate) fn warn(&self, key: &str, message: impl Into<String>) {
        self.notes.warn(&self.field(key), message);
    }

    /// Warns of every field that is not in `known`.
    pub(crate) fn only(&self, known: &[&str]) {
        for key in self.map.keys() {
            if known.contains(&key.as_str()) {
                continue;
            }
            self.warn(key, unknown(key, known.iter().copied()));
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) {
        self.error(key, format!("expected {expected}, found {}", kind(found)));
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            number @ Value::Number(_) => {
                self.error(
                    key,
                    format!("expected a text, found the number {number}: write it in quotes"),
                );
                None
            }
            other => {
                self.wrong(key, "a text", other);
                None
            }
        }
    }

    /// A text that must be there; a missing one is noted.
    pub(crate) fn required_text(&self, key: &str) -> Option<String> {
        if self.get(key).is_none() {
            self.error(key, "is missing");
            return None;
        }
        self.text(key).filter(|text| {
            let empty = text.trim().is_empty();
            if empty {
                self.error(key, "is empty");
            }
            !empty
        })
    }

    pub(crate) fn unsigned(&self, key: &str) -> Option<u64> {
        let value = self.get(key)?;
        let number = value.as_u64();
        if number.is_none() {
            self.wrong(key, "a whole number from 0", value);
        }
        number
    }

    pub(crate) fn boolean(&self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        let truth = value.as_bool();
        if truth.is_none() {
            self.wrong(key, "true or false", value);
        }
        truth
    }

    pub(crate) fn section(&self, key: &str) -> Option<Section<'a>> {
        Self::of(self.notes, self.field(key), self.get(key)?)
    }

    fn list(&self, key: &str) -> &'a [Value] {
        match self.get(key) {
            None => &[],
            Some(Value::Array(list)) => list,
            Some(other) => {
                self.wrong(key, "a list", other);
                &[]
            }
        }
    }

    pub(crate) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        self.list(key)
            .iter()
            .enumerate()
            .filter_map(|(i, value)| {
                Self::of(self.notes, format!("{}[{i}]", self.field(key)), value)
            })
            .collect()
    }

    /// A list of texts; a single text is a list of one.
    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        self.texts_or(key, |_| None)
    }

    /// The same; what is no text is first offered to `other`.
    pub(crate) fn texts_or(
        &self,
        key: &str,
        other: impl Fn(&'a Value) -> Option<&'a str>,
    ) -> Vec<String> {
        if let Some(Value::String(one)) = self.get(key) {
            return vec![one.clone()];
        }
        self.list(key)
            .iter()
            .enumerate()
            .filter_map(|(i, value)| match value {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                found => {
                    let text = other(found).map(str::to_owned);
                    if text.is_none() {
                        self.wrong(&format!("{key}[{i}]"), "a text", found);
                    }
                    text
                }
            })
            .collect()
    }

    /// Environment: a list of `NAME=value`, or a mapping.
    pub(crate) fn env(&self, key: &str) -> Vec<String> {
        let list = match self.get(key) {
            Some(Value::Object(map)) => map
                .iter()
                .filter_map(|(name, value)| match value {
                    Value::String(text) => Some(format!("{name}={text}")),
                    Value::Number(_) | Value::Bool(_) => Some(format!("{name}={value}")),
                    other => {
                        self.wrong(&format!("{key}.{name}"), "a text", other);
                        None
                    }
                })
                .collect(),
            _ => self.texts(key),
        };
        for (i, entry) in list.iter().enumerate() {
            let named = entry
                .split_once('=')
                .is_some_and(|(name, _)| !name.is_empty());
            if !named || entry.contains('\0') {
                self.error(&format!("{key}[{i}]"), "is not NAME=value");
            }
        }
        list
    }
}

/// What is said of a key that is not among the known ones.
pub(crate) fn unknown<'k>(key: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let lower = key.to_lowercase();
    let close = known
        .into_iter()
        .find(|name| distance(&name.to_lowercase(), &lower) <= 2);
    match close {
        Some(name) => format!("is not a known field and has no effect: is `{name}` meant?"),
        None => "is not a known field and has no effect".to_owned(),
    }
}

/// Levenshtein distance of two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (j, to) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or_default();
            let best = (diagonal + usize::from(from != *to))
                .min(above + 1)
                .min(left + 1);
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            diagonal = above;
            left = best;
        }
        if let Some(last) = row.last_mut() {
            *last = left;
        }
    }
    row.last().copied().unwrap_or_default()
}
