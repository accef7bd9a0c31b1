use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use aos_time::Timestamp;
use aos_types::{AlertRule, AlertRules};

use crate::{Change, Rule, Watch, WrongRule};

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parameter {
    /// Processing power, in DMIPS.
    Cpu,
    /// Memory, in bytes.
    Ram,
    /// Received in the period that is counted, in bytes.
    Download,
    /// Sent in the period that is counted, in bytes.
    Upload,
    /// Used of a partition, in bytes.
    Partition(String),
}

/// Any text is a parameter: what is not one of the four names a partition.
impl From<&str> for Parameter {
    fn from(name: &str) -> Self {
        match name {
            "cpu" => Self::Cpu,
            "ram" => Self::Ram,
            "download" => Self::Download,
            "upload" => Self::Upload,
            partition => Self::Partition(partition.to_owned()),
        }
    }
}

impl fmt::Display for Parameter {
    /// As alerts name it on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Ram => "ram",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Partition(name) => name,
        })
    }
}

/// What percentages are of: always the Node's, also for an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sizes {
    /// DMIPS of the Node; 0 if not known.
    pub cpu: u64,
    /// Bytes of memory of the Node; 0 if not known.
    pub ram: u64,
    /// Bytes of each partition.
    pub partitions: BTreeMap<String, u64>,
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert<K> {
    /// Of whom.
    pub of: K,
    /// Of what.
    pub parameter: Parameter,
    /// How much it was.
    pub value: u64,
    /// Whether it begins, goes on or is over.
    pub change: Change,
}

/// All rules of a Node: its own and those of its instances, told apart by `K`.
#[derive(Debug, Clone)]
pub struct Watches<K> {
    all: BTreeMap<(K, Parameter), (Watch, u64)>,
}

impl<K> Default for Watches<K> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Watches<K> {
    /// The rules of one of them from now on. Alerts of rules that are gone are over; rules that are there again go on as
    /// they were. Gives what is to be told, and the rules that cannot be followed.
    pub fn set(
        &mut self,
        of: &K,
        rules: &AlertRules,
        sizes: &Sizes,
    ) -> (Vec<Alert<K>>, Vec<(Parameter, WrongRule)>) {
        let mut wrong = Vec::new();
        let mut kept = BTreeSet::new();
        for (parameter, rule) in absolute(rules, sizes) {
            match rule {
                Ok(rule) => {
                    kept.insert(parameter.clone());
                    self.all
                        .entry((of.clone(), parameter))
                        .and_modify(|(watch, _)| watch.change(rule))
                        .or_insert_with(|| (Watch::new(rule), 0));
                }
                Err(why) => wrong.push((parameter, why)),
            }
        }
        (
            self.end(|(whose, parameter)| whose != of || kept.contains(parameter)),
            wrong,
        )
    }

    /// Only these are there from now on; alerts of the others are over.
    pub fn retain(&mut self, there: impl Fn(&K) -> bool) -> Vec<Alert<K>> {
        self.end(|(of, _)| there(of))
    }

    fn end(&mut self, stays: impl Fn(&(K, Parameter)) -> bool) -> Vec<Alert<K>> {
        let mut over = Vec::new();
        self.all.retain(|key, (watch, value)| {
            let stays = stays(key);
            if !stays && watch.is_raised() {
                over.push(Alert {
                    of: key.0.clone(),
                    parameter: key.1.clone(),
                    value: *value,
                    change: Change::Fall,
                });
            }
            stays
        });
        over
    }

    /// A measurement; gives what is to be told. What has no rule is not watched.
    pub fn measured(
        &mut self,
        now: Timestamp,
        of: &K,
        parameter: &Parameter,
        value: u64,
    ) -> Option<Alert<K>> {
        let (watch, last) = self.all.get_mut(&(of.clone(), parameter.clone()))?;
        *last = value;
        let change = watch.measured(now, value)?;
        Some(Alert {
            of: of.clone(),
            parameter: parameter.clone(),
            value,
            change,
        })
    }

    /// Alerts that were told before this program was started and have not ended. They go on when their rules are set, and
    /// are over if those are gone.
    pub fn resume(&mut self, now: Timestamp, raised: impl IntoIterator<Item = (K, Parameter)>) {
        for key in raised {
            self.all.insert(key, (Watch::resumed(now), 0));
        }
    }

    /// The alerts that have not ended.
    pub fn raised(&self) -> Vec<(K, Parameter)> {
        let raised = self.all.iter().filter(|(_, (watch, _))| watch.is_raised());
        raised.map(|(key, _)| key.clone()).collect()
    }

    /// Whether anything of it is watched.
    pub fn watches(&self, of: &K) -> bool {
        self.all.keys().any(|(whose, _)| whose == of)
    }
}

/// All rules in the unit of what they are about.
fn absolute<'a>(
    rules: &'a AlertRules,
    sizes: &'a Sizes,
) -> impl Iterator<Item = (Parameter, Result<Rule, WrongRule>)> + 'a {
    let percent = |parameter, rule: &Option<AlertRule>, size| {
        let rule = rule.as_ref()?;
        Some((parameter, Rule::of_percent(rule, size)))
    };
    let amount = |parameter, rule: &Option<AlertRule>| {
        let rule = rule.as_ref()?;
        Some((parameter, Rule::of_amount(rule)))
    };
    let of_partitions = rules.partitions.iter().map(|one| {
        let size = sizes.partitions.get(&one.name).copied().unwrap_or(0);
        (
            Parameter::Partition(one.name.clone()),
            Rule::of_percent(&one.rule, size),
        )
    });
    [
        percent(Parameter::Cpu, &rules.cpu, sizes.cpu),
        percent(Parameter::Ram, &rules.ram, sizes.ram),
        amount(Parameter::Download, &rules.download),
        amount(Parameter::Upload, &rules.upload),
    ]
    .into_iter()
    .flatten()
    .chain(of_partitions)
}
