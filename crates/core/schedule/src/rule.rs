use std::{fmt, sync::Arc};

use aos_types::Protocol;

/// Why a Node cannot be given an instance: the rule that stopped it, in the order the rules are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Paused for long, in error, lost, or without SM; the text says which.
    Unusable(Arc<str>),
    /// It is not connected.
    Away,
    /// It is paused.
    Paused,
    /// It has no runtime at all.
    NoRuntime,
    /// The instance's storage or state is on another Node, and the item does not accept its loss.
    Elsewhere(Arc<str>),
    /// It lacks a label.
    Label(Arc<str>),
    /// It does not have a resource.
    NoResource(Arc<str>),
    /// All of a resource is in use.
    ResourceTaken(Arc<str>, u64),
    /// A host port is taken, or published twice by the item; the text says which.
    Port(u16, Protocol, Arc<str>),
    /// Its runtimes are of other types.
    RuntimeType(Arc<str>),
    /// Its runtimes are of other platforms.
    Platform(Arc<str>),
    /// Not enough DMIPS: wanted, left.
    Cpu(u64, u64),
    /// Not enough memory: wanted, left.
    Ram(u64, u64),
    /// It uses more than its alert rules allow, and is not given more.
    Overloaded,
    /// Not enough space for its storage: wanted, left.
    Storage(u64, u64),
    /// Not enough space for its state: wanted, left.
    State(u64, u64),
    /// All places for instances are taken.
    Instances(u64),
}

impl Rule {
    /// The place in the order of rules.
    pub(crate) const fn rank(&self) -> u8 {
        match self {
            Self::NoRuntime => 0,
            Self::Unusable(_) | Self::Away | Self::Paused => 1,
            Self::Elsewhere(_) => 2,
            Self::Label(_) => 3,
            Self::NoResource(_) | Self::ResourceTaken(..) => 4,
            Self::Port(..) => 5,
            Self::RuntimeType(_) => 6,
            Self::Platform(_) => 7,
            Self::Cpu(..) => 8,
            Self::Ram(..) => 9,
            Self::Overloaded => 10,
            Self::Storage(..) | Self::State(..) => 11,
            Self::Instances(_) => 12,
        }
    }

    /// A stable word for programs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unusable(_) => "state",
            Self::Away => "link",
            Self::Paused => "paused",
            Self::NoRuntime => "runtime",
            Self::Elsewhere(_) => "elsewhere",
            Self::Label(_) => "labels",
            Self::NoResource(_) | Self::ResourceTaken(..) => "resources",
            Self::Port(..) => "port",
            Self::RuntimeType(_) => "runtime_type",
            Self::Platform(_) => "platform",
            Self::Cpu(..) => "cpu",
            Self::Ram(..) => "ram",
            Self::Overloaded => "overload",
            Self::Storage(..) => "storage",
            Self::State(..) => "state_space",
            Self::Instances(_) => "instances",
        }
    }

    /// What AosEdge says when this rule leaves no Node.
    pub const fn headline(&self) -> &'static str {
        match self {
            Self::NoRuntime | Self::Unusable(_) | Self::Away | Self::Paused => "no usable nodes",
            Self::Elsewhere(_) => "its storage or state is on a node that cannot run it",
            Self::Label(_) => "no nodes with instance labels",
            Self::NoResource(_) | Self::ResourceTaken(..) => "no nodes with service resources",
            Self::Port(..) => "no nodes with free host ports",
            Self::RuntimeType(_) => "no runtimes with requested runtime type",
            Self::Platform(_) => "no runtimes with requested platform",
            Self::Cpu(..) => "no runtimes with requested CPU",
            Self::Ram(..) => "no runtimes with requested RAM",
            Self::Overloaded => "no nodes that are not overloaded",
            Self::Storage(..) | Self::State(..) => "no space for storage or state",
            Self::Instances(_) => "no runtimes with a free place for an instance",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(why) => f.write_str(why),
            Self::Away => f.write_str("is not connected"),
            Self::Paused => f.write_str("is paused"),
            Self::NoRuntime => f.write_str("has no runtime"),
            Self::Elsewhere(home) => write!(f, "its storage or state is on {home}"),
            Self::Label(label) => write!(f, "has no label `{label}`"),
            Self::NoResource(name) => write!(f, "has no resource `{name}`"),
            Self::ResourceTaken(name, count) => {
                write!(f, "all {count} of resource `{name}` are in use")
            }
            Self::Port(port, protocol, why) => write!(f, "host port {port}/{protocol} {why}"),
            Self::RuntimeType(why) | Self::Platform(why) => f.write_str(why),
            Self::Cpu(wanted, left) => {
                write!(f, "{wanted} DMIPS are asked for, {left} are left")
            }
            Self::Ram(wanted, left) => {
                write!(f, "{wanted} bytes are asked for, {left} are left")
            }
            Self::Overloaded => f.write_str("uses more than its alert rules allow"),
            Self::Storage(wanted, left) => {
                write!(
                    f,
                    "{wanted} bytes of storage are asked for, {left} are left"
                )
            }
            Self::State(wanted, left) => {
                write!(f, "{wanted} bytes of state are asked for, {left} are left")
            }
            Self::Instances(most) => write!(f, "all {most} places are taken"),
        }
    }
}
