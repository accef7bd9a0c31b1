use std::{borrow::Cow, fmt::Write as _};

use aos_time::Timestamp;

/// Longest line in bytes. What is longer goes on in a next line, marked as such.
pub const MAX_LINE: usize = 32 << 10;

/// Where a line came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line, or a piece of one, as the keeper writes it: `<time> <stdout|stderr> <F|P> <text>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// When it came.
    pub at: Timestamp,
    /// From where.
    pub stream: Stream,
    /// The line goes on.
    pub partial: bool,
    /// What was written.
    pub text: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Reads a line of the keeper's file, without its end. Nothing if it is none: a power cut may leave half a line.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |&byte| byte == b' ');
        let at = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let partial = match fields.next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self {
            at,
            stream,
            partial,
            text: fields.next()?,
        })
    }
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub at: Timestamp,
    /// Who wrote it: an instance, a unit of the service manager, the kernel.
    pub source: String,
    /// What it says; one line, without characters that a terminal would obey.
    pub text: String,
}

impl Line {
    /// The line as it travels, with its end: `<time> [<source>] <text>`.
    pub fn render(&self) -> String {
        format!("{} [{}] {}\n", self.at, self.source, self.text)
    }
}

/// Makes lines of pieces.
#[derive(Debug, Default)]
pub struct Joiner {
    open: [Option<(Timestamp, Vec<u8>)>; 2],
}

impl Joiner {
    /// Takes a piece; gives the line that it ends.
    pub fn take(&mut self, source: &str, piece: Piece<'_>) -> Option<Line> {
        let place = match piece.stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        let open = self.open.get_mut(place)?;
        let (_, text) = open.get_or_insert_with(|| (piece.at, Vec::new()));
        text.extend_from_slice(piece.text);
        if piece.partial && text.len() < MAX_LINE {
            return None;
        }
        let (at, mut text) = open.take()?;
        text.truncate(MAX_LINE);
        Some(line(source, piece.stream, at, &text))
    }

    /// The lines that have not ended yet, the older one first.
    pub fn rest(&mut self, source: &str) -> Vec<Line> {
        let streams = [Stream::Stdout, Stream::Stderr];
        let mut lines: Vec<Line> = self
            .open
            .iter_mut()
            .zip(streams)
            .filter_map(|(open, stream)| {
                let (at, text) = open.take()?;
                Some(line(source, stream, at, &text))
            })
            .collect();
        lines.sort_by_key(|line| line.at);
        lines
    }
}

fn line(source: &str, stream: Stream, at: Timestamp, text: &[u8]) -> Line {
    Line {
        at,
        source: match stream {
            Stream::Stdout => source.to_owned(),
            Stream::Stderr => format!("{source} stderr"),
        },
        text: clean(&String::from_utf8_lossy(text)).into_owned(),
    }
}

/// Text without characters that a terminal would obey: they are written as `\x1b`. A tabulator stays.
pub fn clean(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && c != '\t';
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    // What ends a line on other systems says nothing more.
    let text = text.strip_suffix('\r').unwrap_or(text);
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if bad(c) {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(line: &str) -> Piece<'_> {
        Piece::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn pieces_of_both_streams_become_lines_of_their_own() {
        let mut joiner = Joiner::default();
        let mut take = |line| joiner.take("i", piece(line)).map(|line| line.render());
        assert_eq!(take("2026-01-01T00:00:00Z stdout P half"), None);
        assert_eq!(
            take("2026-01-01T00:00:01Z stderr F other").unwrap(),
            "2026-01-01T00:00:01Z [i stderr] other\n"
        );
        assert_eq!(
            take("2026-01-01T00:00:02Z stdout F  a line").unwrap(),
            "2026-01-01T00:00:00Z [i] half a line\n"
        );
        assert_eq!(
            take("2026-01-01T00:00:03Z stdout F ").unwrap(),
            "2026-01-01T00:00:03Z [i] \n"
        );
    }

    #[test]
    fn what_never_ends_is_cut_and_what_is_no_line_is_passed_over() {
        let mut joiner = Joiner::default();
        let long = format!("2026-01-01T00:00:00Z stdout P {}", "x".repeat(MAX_LINE / 2));
        assert!(joiner.take("i", piece(&long)).is_none());
        let line = joiner.take("i", piece(&long)).unwrap();
        assert_eq!(line.text.len(), MAX_LINE);
        assert!(joiner.rest("i").is_empty());
        for bad in [
            "",
            "x",
            "2026-01-01T00:00:00Z stdout",
            "2026-01-01T00:00:00Z stdout Q x",
            "yesterday stdout F x",
            "2026-01-01T00:00:00Z stdin F x",
        ] {
            assert_eq!(Piece::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_terminal_obeys_nothing_that_a_service_wrote() {
        assert_eq!(clean("a\tb ä"), "a\tb ä");
        assert_eq!(clean("\u{1b}[2J\u{7}x\r"), "\\x1b[2J\\x07x");
        assert_eq!(clean("a\u{9b}b"), "a\\x9bb");
    }
}
