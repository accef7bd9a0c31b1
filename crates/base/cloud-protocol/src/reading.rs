//! Reading lists element by element, so that one bad element does not spoil the others.

use aos_types::{
    ItemId, NodeId, Schedule, SubjectId,
    tolerant::{FieldError, Fields, FromJson},
};
use serde_json::Value;

/// Guards against hostile or broken peers. They are far above anything real and can be raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Longest message, in bytes.
    pub message_bytes: usize,
    /// Most elements of one list.
    pub list_elements: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            message_bytes: 16 << 20,
            list_elements: 1 << 16,
        }
    }
}

impl Caps {
    /// Longest frame that is still read to its end, so that what is too long can be answered; a peer that sends more than
    /// this is cut off.
    pub const fn frame_bytes(&self) -> usize {
        self.message_bytes.saturating_mul(2)
    }
}

/// What an unreadable element is about, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// An item.
    Item(ItemId),
    /// The instances of an item, of one subject or of all.
    Instances {
        /// The item.
        item: ItemId,
        /// The subject, if it can be read.
        subject: Option<SubjectId>,
    },
    /// A Node.
    Node(NodeId),
    /// A subject.
    Subject(SubjectId),
    /// A certificate by its fingerprint, a certificate chain by its name.
    Name(String),
}

/// A list, or one element of it, that could not be read. Nothing may be removed because of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// The list's field name in the message's data; for a list inside an element its path, as `instances[2].instances`.
    pub list: String,
    /// Which element, from 0; `None`: the whole list cannot be read.
    pub index: Option<usize>,
    /// What the element is about. If this is `None` the receiver must keep whatever the whole list is about.
    pub named: Option<Named>,
    /// Which field is wrong and why.
    pub error: FieldError,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

/// An element of a list.
pub(crate) trait Element: Sized {
    /// Reads it.
    fn read(value: &Value, reader: &mut Reader<'_>) -> Result<Self, FieldError>;

    /// What it is about, when it could not be read.
    fn named(_fields: Fields<'_>) -> Option<Named> {
        None
    }
}

/// Collects what could not be read on the way.
pub(crate) struct Reader<'c> {
    caps: &'c Caps,
    /// Elements we are inside of, as `instances[2]`.
    inside: Vec<String>,
    unreadable: Vec<Unreadable>,
}

impl<'c> Reader<'c> {
    pub(crate) fn new(caps: &'c Caps) -> Self {
        Self {
            caps,
            inside: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    pub(crate) fn finish(self) -> Vec<Unreadable> {
        self.unreadable
    }

    fn report(
        &mut self,
        key: &str,
        index: Option<usize>,
        named: Option<Named>,
        mut error: FieldError,
    ) {
        let mut list = key.to_owned();
        if let Some(index) = index {
            error = error.at_index(index);
        }
        error = error.at(key);
        for outer in self.inside.iter().rev() {
            list = format!("{outer}.{list}");
            error = error.at(outer);
        }
        self.unreadable.push(Unreadable {
            list,
            index,
            named,
            error,
        });
    }

    /// A list of elements. `None` if it is absent, or unreadable as a whole, which is reported.
    pub(crate) fn list<T: Element>(&mut self, fields: &Fields<'_>, key: &str) -> Option<Vec<T>> {
        let value = fields.get(key)?;
        let Value::Array(elements) = value else {
            self.report(key, None, None, FieldError::new("expected a list"));
            return None;
        };
        if elements.len() > self.caps.list_elements {
            let error = FieldError::new(format!(
                "holds {} elements, more than the {} this side is configured to take",
                elements.len(),
                self.caps.list_elements
            ));
            self.report(key, None, None, error);
            return None;
        }
        let mut list = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            self.inside.push(format!("{key}[{index}]"));
            let read = T::read(element, self);
            self.inside.pop();
            match read {
                Ok(element) => list.push(element),
                Err(error) => {
                    let named = Fields::of(element).ok().and_then(T::named);
                    self.report(key, Some(index), named, error);
                }
            }
        }
        Some(list)
    }

    /// A list whose absence is the same as an empty one.
    pub(crate) fn list_or_empty<T: Element>(&mut self, fields: &Fields<'_>, key: &str) -> Vec<T> {
        self.list(fields, key).unwrap_or_default()
    }

    /// A schedule. What of it cannot be read is reported; the rest counts, and never as "at once".
    pub(crate) fn schedule(&mut self, fields: &Fields<'_>, key: &str) -> Option<Schedule> {
        let (schedule, errors) = Schedule::read(fields.get(key)?);
        for error in errors {
            self.report(key, None, None, error);
        }
        Some(schedule)
    }

    /// A part that can be left out without loss to the rest: unreadable is reported and counts as absent.
    pub(crate) fn part<T: FromJson>(&mut self, fields: &Fields<'_>, key: &str) -> Option<T> {
        match T::from_json(fields.get(key)?) {
            Ok(part) => Some(part),
            Err(error) => {
                self.report(key, None, None, error);
                None
            }
        }
    }
}
