use aos_time::Timestamp;
use aos_types::{
    ErrorInfo, InstanceIdent, ItemId, SubjectId,
    tolerant::{FieldError, Fields, FromJson},
};
use serde_json::Value;

use crate::{
    envelope::Data,
    identity::{self, WithInstance, id_json},
    reading::{Element, Named, Reader},
    writing::{Out, ToJson},
};

/// Which instances are meant; what is `None` means any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceFilter {
    /// Of this item.
    pub item: Option<ItemId>,
    /// For this subject.
    pub subject: Option<SubjectId>,
    /// With this index.
    pub instance: Option<u64>,
}

/// One environment variable. Its value may be a secret, so it is not shown by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
    /// When it ends; `None`: never.
    pub ttl: Option<Timestamp>,
}

impl std::fmt::Debug for EnvVar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnvVar")
            .field("name", &self.name)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// Variables for some instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVarsOverride {
    /// Which instances.
    pub filter: InstanceFilter,
    /// The variables.
    pub variables: Vec<EnvVar>,
}

/// The whole set of overrides; it replaces the one before. An absent list leaves that as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OverrideEnvVars {
    /// The overrides.
    pub items: Option<Vec<EnvVarsOverride>>,
}

/// How overriding one variable of one instance went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVarStatus {
    /// Which instance.
    pub instance: InstanceIdent,
    /// Which variable.
    pub name: String,
    /// Why it failed; `None`: it is set.
    pub error: Option<ErrorInfo>,
}

/// How overriding went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OverrideEnvVarsStatus {
    /// One for each instance and variable.
    pub statuses: Vec<EnvVarStatus>,
}

impl FromJson for EnvVarList {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let read = |value: &Value| {
            let fields = Fields::of(value)?;
            Ok(EnvVar {
                name: fields.req("name")?,
                value: fields.or_default("value")?,
                ttl: fields.opt("ttl")?,
            })
        };
        let list: Vec<Value> = FromJson::from_json(value)?;
        list.iter()
            .enumerate()
            .map(|(index, value)| read(value).map_err(|error: FieldError| error.at_index(index)))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Variables of one override are taken or refused together.
struct EnvVarList(Vec<EnvVar>);

impl Element for EnvVarsOverride {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let named = |key: &str| fields.get(key).is_some();
        let subject_key = if named("subject") {
            "subject"
        } else {
            "subjectId"
        };
        Ok(Self {
            filter: InstanceFilter {
                item: named("item")
                    .then(|| identity::item(&fields, "item"))
                    .transpose()?,
                subject: named(subject_key)
                    .then(|| identity::subject(&fields, subject_key))
                    .transpose()?,
                instance: fields.opt("instance")?,
            },
            variables: fields.req::<EnvVarList>("variables")?.0,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        Some(Named::Instances {
            item: identity::item(&fields, "item").ok()?,
            subject: identity::subject(&fields, "subject").ok(),
        })
    }
}

impl ToJson for EnvVarsOverride {
    fn to_json(&self) -> Value {
        let filter = &self.filter;
        Out::new()
            .opt("item", filter.item.as_ref().map(|id| id_json(id.as_str())))
            .opt(
                "subject",
                filter.subject.as_ref().map(|id| id_json(id.as_str())),
            )
            .opt("instance", filter.instance)
            .list("variables", &self.variables)
            .into()
    }
}

impl ToJson for EnvVar {
    fn to_json(&self) -> Value {
        let out = Out::new()
            .put("name", self.name.as_str())
            .put("value", self.value.as_str());
        match self.ttl {
            Some(ttl) => out.time("ttl", ttl),
            None => out,
        }
        .into()
    }
}

impl Element for EnvVarStatus {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            instance: identity::instance(&fields)?,
            name: fields.req("name")?,
            error: fields.opt("errorInfo")?,
        })
    }
}

impl ToJson for EnvVarStatus {
    fn to_json(&self) -> Value {
        Out::new()
            .instance(&self.instance, "subjectId")
            .put("name", self.name.as_str())
            .error(self.error.as_ref())
            .into()
    }
}

impl Data for OverrideEnvVars {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            items: reader.list(&fields, "items"),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.opt_list("items", self.items.as_ref())
    }
}

impl Data for OverrideEnvVarsStatus {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            statuses: reader.list_or_empty(&fields, "statuses"),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.list("statuses", &self.statuses)
    }
}
