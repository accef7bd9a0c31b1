use aos_time::Timestamp;

/// A time: from a moment on, and before another. What is absent has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// From this moment on.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub till: Option<Timestamp>,
}

impl Span {
    /// Whether a moment lies in it.
    pub fn contains(&self, at: Timestamp) -> bool {
        !self.is_before(at) && self.till.is_none_or(|till| at < till)
    }

    /// Whether a moment lies before all of it: whoever reads backwards is done then.
    pub fn is_before(&self, at: Timestamp) -> bool {
        self.from.is_some_and(|from| at < from)
    }

    /// Whether anything written from `first` to `last` may lie in it.
    pub fn meets(&self, first: Timestamp, last: Timestamp) -> bool {
        !self.is_before(last) && self.till.is_none_or(|till| first < till)
    }

    /// Whether nothing can lie in it.
    pub fn is_empty(&self) -> bool {
        matches!((self.from, self.till), (Some(from), Some(till)) if till <= from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_belongs_to_it_and_the_end_does_not() {
        let at = Timestamp::from_secs;
        let span = Span {
            from: Some(at(10)),
            till: Some(at(20)),
        };
        assert!(span.contains(at(10)) && span.contains(at(19)));
        assert!(!span.contains(at(9)) && !span.contains(at(20)));
        assert!(span.meets(at(0), at(10)) && !span.meets(at(0), at(9)));
        assert!(span.meets(at(19), at(30)) && !span.meets(at(20), at(30)));
        assert!(Span::default().contains(at(-5)) && !Span::default().is_empty());
        let none = Span {
            from: Some(at(5)),
            till: Some(at(5)),
        };
        assert!(none.is_empty() && !none.contains(at(5)));
    }
}
