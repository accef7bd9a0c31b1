use std::time::Duration;

use aos_types::AlertRule;

/// When usage is too much, in the unit of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// How long the usage must stay beyond a threshold before that counts.
    pub hold: Duration,
    /// Below this it is no longer too much.
    pub lower: u64,
    /// From this on it is too much.
    pub upper: u64,
}

/// A rule that nobody can follow.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WrongRule {
    /// A threshold is no number, or below zero.
    #[error("`{field}` is {value}, and must be a number from 0 on")]
    Number {
        /// Which.
        field: &'static str,
        /// What it is.
        value: f64,
    },
    /// It would end before it begins.
    #[error("`minThreshold` {lower} is above `maxThreshold` {upper}: exchange them")]
    Reversed {
        /// The lower one.
        lower: f64,
        /// The upper one.
        upper: f64,
    },
    /// What is counted in percent is of unknown size.
    #[error("the size of what it is a percentage of is not known")]
    NoSize,
}

impl Rule {
    /// Thresholds in percent of `size`.
    pub fn of_percent(rule: &AlertRule, size: u64) -> Result<Self, WrongRule> {
        if size == 0 {
            return Err(WrongRule::NoSize);
        }
        Self::scaled(rule, size as f64 / 100.0)
    }

    /// Thresholds that are amounts.
    pub fn of_amount(rule: &AlertRule) -> Result<Self, WrongRule> {
        Self::scaled(rule, 1.0)
    }

    fn scaled(rule: &AlertRule, factor: f64) -> Result<Self, WrongRule> {
        let (lower, upper) = (rule.min_threshold, rule.max_threshold);
        for (field, value) in [("minThreshold", lower), ("maxThreshold", upper)] {
            if !value.is_finite() || value < 0.0 {
                return Err(WrongRule::Number { field, value });
            }
        }
        if lower > upper {
            return Err(WrongRule::Reversed { lower, upper });
        }
        // A cast from a float saturates, and a threshold in percent is not exact anyway.
        let amount = |threshold: f64| (threshold * factor).round() as u64;
        Ok(Self {
            hold: rule.min_timeout,
            lower: amount(lower),
            // Nothing at all is never too much.
            upper: amount(upper).max(1),
        })
    }
}
