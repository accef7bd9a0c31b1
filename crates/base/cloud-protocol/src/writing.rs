//! Building JSON objects in the one spelling we write.

use aos_time::Timestamp;
use aos_types::ErrorInfo;
use serde_json::{Map, Value};

/// Something that knows its JSON form.
pub(crate) trait ToJson {
    fn to_json(&self) -> Value;
}

/// A JSON object under construction.
#[derive(Default)]
pub(crate) struct Out(Map<String, Value>);

impl Out {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    pub(crate) fn opt(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    /// Left out when empty.
    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.opt(key, (!value.is_empty()).then_some(value))
    }

    pub(crate) fn json(self, key: &str, value: &impl ToJson) -> Self {
        self.put(key, value.to_json())
    }

    pub(crate) fn list<T: ToJson>(self, key: &str, list: &[T]) -> Self {
        self.put(
            key,
            list.iter().map(ToJson::to_json).collect::<Vec<Value>>(),
        )
    }

    /// Left out when absent; an empty list is written.
    pub(crate) fn opt_list<T: ToJson>(self, key: &str, list: Option<&Vec<T>>) -> Self {
        match list {
            Some(list) => self.list(key, list),
            None => self,
        }
    }

    /// Left out when empty.
    pub(crate) fn filled_list<T: ToJson>(self, key: &str, list: &[T]) -> Self {
        if list.is_empty() {
            self
        } else {
            self.list(key, list)
        }
    }

    /// Left out when there is no error.
    pub(crate) fn error(self, error: Option<&ErrorInfo>) -> Self {
        let Some(error) = error.filter(|error| **error != ErrorInfo::default()) else {
            return self;
        };
        let info = Self::new()
            .put("aosCode", error.aos_code)
            .put("exitCode", error.exit_code)
            .put("message", error.message.as_str());
        self.put("errorInfo", info)
    }

    pub(crate) fn time(self, key: &str, time: Timestamp) -> Self {
        self.put(key, whole_seconds(time))
    }
}

impl From<Out> for Value {
    fn from(out: Out) -> Self {
        Self::Object(out.0)
    }
}

impl ToJson for String {
    fn to_json(&self) -> Value {
        self.as_str().into()
    }
}

impl ToJson for aos_types::Digest {
    fn to_json(&self) -> Value {
        self.to_string().into()
    }
}

/// UTC with seconds and a `Z`: peers do not all read parts of a second.
fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_secs(time.as_secs()).to_string()
}

/// At most `chars` characters, never empty: the schema refuses both.
pub(crate) fn bounded_text(text: &str, chars: usize) -> String {
    if text.is_empty() {
        return "(no text)".into();
    }
    text.chars().take(chars).collect()
}

/// An enumeration of words: unknown ones are errors that name the known ones.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $kind:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal $(| $alias:literal)*,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value.
            #[allow(dead_code, reason = "every enumeration has it, not every one needs it")]
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word we write.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = aos_types::tolerant::FieldError;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                $(if word.eq_ignore_ascii_case($word) $(|| word.eq_ignore_ascii_case($alias))* {
                    return Ok(Self::$variant);
                })*
                Err(aos_types::tolerant::FieldError::new(format!(
                    concat!("`{}` is not a ", $kind, "; known are {}"),
                    word.chars().take(64).collect::<String>(),
                    [$($word,)*].join(", ")
                )))
            }
        }

        impl aos_types::tolerant::FromJson for $name {
            fn from_json(value: &serde_json::Value) -> Result<Self, aos_types::tolerant::FieldError> {
                aos_types::tolerant::word(value)
            }
        }
    )*};
}
pub(crate) use words;
