use std::collections::BTreeMap;

use aos_cloud_protocol::{
    EnvVarStatus, EnvVarsOverride, InstanceFilter, OverrideEnvVars, OverrideEnvVarsStatus,
};
use aos_time::Timestamp;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, ItemId, SubjectId};
use serde::{Deserialize, Serialize};

/// Most overrides in the set, and most variables in one of them.
const MOST: usize = 1000;
/// Longest name and value, in bytes (schema 7: 256 and 10240 characters).
const LONGEST_NAME: usize = 1024;
const LONGEST_VALUE: usize = 40960;

/// A variable with the time it ends. Its value may be a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Variable {
    name: String,
    value: String,
    until: Option<Timestamp>,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variable")
            .field("name", &self.name)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

/// Variables for some instances; what is `None` means any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Override {
    item: Option<ItemId>,
    subject: Option<SubjectId>,
    index: Option<u64>,
    variables: Vec<Variable>,
}

impl Override {
    fn means(&self, ident: &InstanceIdent) -> bool {
        self.item.as_ref().is_none_or(|item| *item == ident.item)
            && self
                .subject
                .as_ref()
                .is_none_or(|subject| *subject == ident.subject)
            && self.index.is_none_or(|index| index == ident.index)
    }
}

/// The overrides in force, as they are stored: the last set that came, without what has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Overrides(Vec<Override>);

impl Overrides {
    /// The set of a message, as far as it can be used; `None` if it leaves everything as it is. With it one status for
    /// each variable of each instance of `known` that it means.
    pub(super) fn read(
        message: OverrideEnvVars,
        known: &[InstanceIdent],
        now: Timestamp,
    ) -> (Option<Self>, OverrideEnvVarsStatus) {
        let mut statuses = Vec::new();
        let Some(items) = message.items else {
            return (None, OverrideEnvVarsStatus::default());
        };
        let mut all = Vec::new();
        for (place, item) in items.into_iter().enumerate() {
            let EnvVarsOverride { filter, variables } = item;
            let InstanceFilter {
                item,
                subject,
                instance,
            } = filter;
            let mut read = Override {
                item,
                subject,
                index: instance,
                variables: Vec::new(),
            };
            let meant: Vec<&InstanceIdent> =
                known.iter().filter(|ident| read.means(ident)).collect();
            for (count, variable) in variables.into_iter().enumerate() {
                let error = match (place.max(count) >= MOST, variable.ttl) {
                    (true, _) => Some(format!("there are more than {MOST}")),
                    (_, Some(until)) if until <= now => Some("its time is over".to_owned()),
                    _ => unusable(&variable.name, &variable.value),
                };
                let error = error.map(|why| {
                    ErrorInfo::new(AosCode::InvalidArgument, format!("it is not set: {why}"))
                });
                statuses.extend(meant.iter().map(|ident| EnvVarStatus {
                    instance: (*ident).clone(),
                    name: variable.name.chars().take(256).collect(),
                    error: error.clone(),
                }));
                if error.is_none() {
                    read.variables.push(Variable {
                        name: variable.name,
                        value: variable.value,
                        until: variable.ttl,
                    });
                }
            }
            if !read.variables.is_empty() {
                all.push(read);
            }
        }
        (Some(Self(all)), OverrideEnvVarsStatus { statuses })
    }

    /// The variables of an instance, by name; of several for one name the last counts.
    pub(super) fn of(&self, ident: &InstanceIdent, now: Timestamp) -> Vec<(String, String)> {
        let meant = self.0.iter().filter(|one| one.means(ident));
        let variables: BTreeMap<&String, &String> = meant
            .flat_map(|one| &one.variables)
            .filter(|variable| variable.until.is_none_or(|until| until > now))
            .map(|variable| (&variable.name, &variable.value))
            .collect();
        variables
            .into_iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Without what has ended; `None` if nothing has.
    pub(super) fn without_ended(&self, now: Timestamp) -> Option<Self> {
        let mut left = self.clone();
        for one in &mut left.0 {
            one.variables
                .retain(|variable| variable.until.is_none_or(|until| until > now));
        }
        left.0.retain(|one| !one.variables.is_empty());
        (left != *self).then_some(left)
    }

    /// When the next variable ends.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        let variables = self.0.iter().flat_map(|one| &one.variables);
        variables.filter_map(|variable| variable.until).min()
    }
}

/// Why no process can have such a variable.
fn unusable(name: &str, value: &str) -> Option<String> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(['=', '\0']) {
        return Some(format!(
            "a name has 1 to {LONGEST_NAME} bytes and neither `=` nor a zero byte"
        ));
    }
    (value.len() > LONGEST_VALUE || value.contains('\0'))
        .then(|| format!("a value has at most {LONGEST_VALUE} bytes and no zero byte"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aos_cloud_protocol::EnvVar;

    use super::*;

    fn ident(item: &str, index: u64) -> InstanceIdent {
        InstanceIdent::service(
            ItemId::new(item).unwrap(),
            SubjectId::new("s").unwrap(),
            index,
        )
    }

    fn variable(name: &str, value: &str, ttl: Option<Timestamp>) -> EnvVar {
        EnvVar {
            name: name.into(),
            value: value.into(),
            ttl,
        }
    }

    fn overriding(item: Option<&str>, variables: Vec<EnvVar>) -> EnvVarsOverride {
        EnvVarsOverride {
            filter: InstanceFilter {
                item: item.map(|item| ItemId::new(item).unwrap()),
                subject: None,
                instance: None,
            },
            variables,
        }
    }

    #[test]
    fn later_ones_win_they_end_at_their_time_and_each_is_answered() {
        let now = Timestamp::default() + Duration::from_secs(1000);
        let soon = now + Duration::from_secs(60);
        let known = [ident("web", 0), ident("web", 1), ident("db", 0)];
        let message = OverrideEnvVars {
            items: Some(vec![
                overriding(
                    None,
                    vec![variable("A", "1", None), variable("B", "1", Some(soon))],
                ),
                overriding(Some("web"), vec![variable("A", "2", None)]),
                overriding(
                    Some("db"),
                    vec![variable("X=Y", "1", None), variable("OLD", "1", Some(now))],
                ),
            ]),
        };
        let (overrides, status) = Overrides::read(message, &known, now);
        let overrides = overrides.unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            overrides.of(&known[0], now),
            [pair("A", "2"), pair("B", "1")]
        );
        assert_eq!(
            overrides.of(&known[2], now),
            [pair("A", "1"), pair("B", "1")]
        );
        assert_eq!(overrides.of(&known[0], soon), [pair("A", "2")]);
        assert_eq!(overrides.next_end(), Some(soon));
        let left = overrides.without_ended(soon).unwrap();
        assert_eq!((left.next_end(), left.without_ended(soon)), (None, None));
        let failed: Vec<&str> = status
            .statuses
            .iter()
            .filter(|one| one.error.is_some())
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(failed, ["X=Y", "OLD"]);
        assert_eq!(status.statuses.len(), 3 * 2 + 2 + 2);
    }

    #[test]
    fn an_absent_list_changes_nothing_and_an_empty_one_clears() {
        let now = Timestamp::default();
        let read = |items| Overrides::read(OverrideEnvVars { items }, &[], now).0;
        assert_eq!(read(None), None);
        assert_eq!(read(Some(vec![])), Some(Overrides::default()));
    }
}
