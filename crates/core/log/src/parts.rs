/// How long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text in a part, before it is compressed.
    pub part_bytes: usize,
    /// Parts of an answer.
    pub parts: usize,
}

impl Default for Limits {
    /// Those of AosCore.
    fn default() -> Self {
        Self {
            part_bytes: 256 << 10,
            parts: 80,
        }
    }
}

/// Cuts an answer into parts from its newest line back.
///
/// Lines come in newest first, parts come out newest first, and within a part the oldest line is the first. When there are
/// as many parts as an answer may have, the rest is left out, and the oldest part says so.
#[derive(Debug)]
pub struct Parts {
    limits: Limits,
    lines: Vec<String>,
    bytes: usize,
    given: usize,
    cut: bool,
}

/// What stands above the oldest line when there would have been older ones.
const LEFT_OUT: &str = "# older lines were left out, the answer has as many parts as it may have: ask for a shorter time\n";

impl Parts {
    /// Nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Limits {
                part_bytes: limits.part_bytes.max(1),
                parts: limits.parts.max(1),
            },
            lines: Vec::new(),
            bytes: 0,
            given: 0,
            cut: false,
        }
    }

    /// Whether no more lines are wanted.
    pub fn is_full(&self) -> bool {
        self.cut
    }

    /// Takes the next older line, with its end; gives a part if one is complete.
    pub fn push(&mut self, line: String) -> Option<String> {
        if self.cut {
            return None;
        }
        let fits = self.bytes + line.len() <= self.limits.part_bytes || self.lines.is_empty();
        if fits {
            self.bytes += line.len();
            self.lines.push(line);
            return None;
        }
        if self.given + 1 >= self.limits.parts {
            // This is the last part there is room for: it waits for `finish`.
            self.cut = true;
            return None;
        }
        let part = self.part();
        self.bytes = line.len();
        self.lines.push(line);
        part
    }

    /// The oldest part, if there is any line in it.
    pub fn finish(mut self) -> Option<String> {
        if self.cut {
            self.lines.push(LEFT_OUT.to_owned());
        }
        self.part()
    }

    fn part(&mut self) -> Option<String> {
        if self.lines.is_empty() {
            return None;
        }
        self.given += 1;
        self.bytes = 0;
        Some(self.lines.drain(..).rev().collect())
    }
}
