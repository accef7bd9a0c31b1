//! Which lines of a log are shown.

use std::{collections::VecDeque, io::Read};

use aos_api::{LogLine, LogLines, LogLinesQuery};
use aos_db::KeptPart;
use aos_log::clean;
use flate2::read::MultiGzDecoder;

use crate::ApiError;

/// Most parts that are read for one answer.
pub(crate) const MOST_PARTS: u32 = 4_096;
/// Most bytes of text in one part: a small file may claim to be a large one.
const MOST_TEXT: u64 = 4 << 20;
/// Longest text that is searched for.
const MOST_SEARCH: usize = 200;

/// The place of a line: its part, and its number in it.
type Place = (i64, usize);

/// What of a log is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    limit: usize,
    search: Option<String>,
    node: Option<String>,
    after: Option<Place>,
    before: Option<Place>,
}

impl Window {
    pub(crate) fn read(query: &LogLinesQuery) -> Result<Self, ApiError> {
        let place = |field: &'static str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => text
                .split_once('.')
                .and_then(|(part, line)| Some((part.parse().ok()?, line.parse().ok()?)))
                .map(Some)
                .ok_or_else(|| ApiError::invalid(field, "is no cursor of a line")),
        };
        let (after, before) = (
            place("after", &query.after)?,
            place("before", &query.before)?,
        );
        if after.is_some() && before.is_some() {
            return Err(ApiError::invalid("before", "cannot stand beside `after`"));
        }
        let search = query.search.as_ref().filter(|text| !text.is_empty());
        if search.is_some_and(|text| text.len() > MOST_SEARCH) {
            let why = format!("is longer than {MOST_SEARCH} bytes");
            return Err(ApiError::invalid("search", why));
        }
        Ok(Self {
            limit: query.limit(),
            search: search.map(|text| text.to_lowercase()),
            node: query.node.clone().filter(|node| !node.is_empty()),
            after,
            before,
        })
    }

    /// The part before the first that can have a wanted line.
    pub(crate) fn first_part(&self) -> Option<i64> {
        self.after.map(|(part, _)| part.saturating_sub(1))
    }

    fn wants(&self, node: &str, text: &str) -> bool {
        self.node.as_deref().is_none_or(|wanted| wanted == node)
            && self
                .search
                .as_ref()
                .is_none_or(|search| text.to_lowercase().contains(search))
    }

    /// The lines in it, the oldest first.
    pub(crate) fn lines(&self, parts: Vec<KeptPart>) -> LogLines {
        let mut out = LogLines {
            items: Vec::new(),
            has_older: self.after.is_some(),
            has_newer: self.before.is_some(),
            unreadable_parts: 0,
        };
        let mut found: VecDeque<LogLine> = VecDeque::new();
        for part in parts {
            let mut text = Vec::new();
            let read = MultiGzDecoder::new(&part.content[..])
                .take(MOST_TEXT)
                .read_to_end(&mut text);
            // What came before the damage is shown.
            out.unreadable_parts += u64::from(read.is_err());
            for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
                let place = (part.place, number);
                if self.after.is_some_and(|after| place <= after) {
                    continue;
                }
                if self.before.is_some_and(|before| place >= before) {
                    break;
                }
                if !self.wants(&part.node_id, line) {
                    continue;
                }
                if found.len() == self.limit {
                    if self.after.is_some() {
                        out.has_newer = true;
                        out.items = found.into();
                        return out;
                    }
                    // The newest are wanted.
                    found.pop_front();
                    out.has_older = true;
                }
                found.push_back(LogLine {
                    cursor: format!("{}.{}", place.0, place.1),
                    node_id: part.node_id.clone(),
                    text: clean(line).into_owned(),
                });
            }
        }
        out.items = found.into();
        out
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn parts() -> Vec<KeptPart> {
        let part = |place: i64, node: &str, text: &str| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(text.as_bytes()).unwrap();
            KeptPart {
                place,
                node_id: node.into(),
                content: out.finish().unwrap(),
            }
        };
        vec![
            part(5, "a", "one\ntwo\n"),
            part(7, "b", "three \u{1b}[31m\nTwo\n"),
            part(9, "a", "four\n"),
        ]
    }

    fn texts(query: LogLinesQuery) -> (Vec<String>, bool, bool) {
        let lines = Window::read(&query).unwrap().lines(parts());
        let texts = lines.items.iter().map(|line| line.text.clone()).collect();
        (texts, lines.has_older, lines.has_newer)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_window_shows_the_newest_or_what_is_after_or_before() {
        let all = ["one", "two", "three \\x1b[31m", "Two", "four"];
        let query = LogLinesQuery::default();
        let (found, older, newer) = texts(query.clone());
        assert_eq!(
            (&found[..], older, newer),
            (&all.map(String::from)[..], false, false)
        );
        let limited = LogLinesQuery {
            limit: Some(2),
            ..query.clone()
        };
        assert_eq!(texts(limited.clone()).0, ["Two", "four"]);
        assert!(texts(limited.clone()).1);
        let before = LogLinesQuery {
            before: some("7.1"),
            ..limited.clone()
        };
        assert_eq!(texts(before).0, ["two", "three \\x1b[31m"]);
        let after = LogLinesQuery {
            after: some("5.0"),
            ..limited
        };
        assert_eq!(texts(after.clone()).0, ["two", "three \\x1b[31m"]);
        assert!(texts(after).2);
        let search = LogLinesQuery {
            search: some("tWo"),
            ..query.clone()
        };
        assert_eq!(texts(search.clone()).0, ["two", "Two"]);
        let of_node = LogLinesQuery {
            node: some("b"),
            ..search
        };
        assert_eq!(texts(of_node).0, ["Two"]);
        let last = LogLinesQuery {
            after: some("9.0"),
            ..query
        };
        assert!(texts(last).0.is_empty());
    }

    #[test]
    fn what_is_damaged_or_asked_wrongly_is_told() {
        let mut damaged = parts();
        damaged[0].content.truncate(12);
        damaged[1].content = b"no gzip".to_vec();
        let lines = Window::read(&LogLinesQuery::default())
            .unwrap()
            .lines(damaged);
        assert_eq!(lines.unreadable_parts, 2);
        assert_eq!(lines.items.last().unwrap().text, "four");
        for bad in ["", "x", "1", "1.x", "1.-2"] {
            let query = LogLinesQuery {
                after: some(bad),
                ..LogLinesQuery::default()
            };
            assert!(Window::read(&query).is_err(), "{bad}");
        }
    }
}
