//! What the service runtime costs, beside the least it could cost.
//!
//! On the stage of the demo a service that answers over HTTP and otherwise does nothing is deployed, killed, exchanged and
//! stopped, its image cached, and the time of each is taken from outside. Floors are measured in the same run: the bundles
//! that SM made are copied, given namespaces and cgroups of their own, and started and stopped by `crun` one after the
//! other. Each figure is a median; the ratio is what counts, not the seconds. `docs/performance.md` explains each.

mod bundle;
mod exchange;
mod floor;
mod many;
mod senses;
mod usage;

use anyhow::{Result, ensure};

use crate::narrator::Narrator;
use crate::play::Play;
use crate::stage::Place;
use crate::story::{self, WEB};

/// One figure. Printed as a line of JSON, for programs.
#[derive(Debug, serde::Serialize)]
pub struct Figure {
    /// What was measured, such as `deploy.active.50`.
    pub name: String,
    /// The median.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The floor, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// Value by floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

impl Figure {
    fn alone(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            floor: None,
            ratio: None,
        }
    }

    /// Seconds beside the floor's.
    fn beside(name: impl Into<String>, values: Vec<f64>, floors: Vec<f64>) -> Self {
        let (value, floor) = (median(values), median(floors));
        Self {
            name: name.into(),
            value,
            unit: "s",
            floor: Some(floor),
            ratio: Some(value / floor),
        }
    }

    fn words(&self) -> String {
        match (self.floor, self.ratio) {
            (Some(floor), Some(ratio)) => format!(
                "{} {:.3} s (floor {floor:.3}, ratio {ratio:.2})",
                self.name, self.value
            ),
            _ => format!("{} {:.3} {}", self.name, self.value, self.unit),
        }
    }
}

/// Measures everything and prints a line of JSON for each figure.
pub fn tell(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    story::prologue(play, narrator)?;
    let mut figures = Vec::new();
    let empty = usage::at_rest(play, narrator, &mut figures)?;
    exchange::tell(play, narrator, &mut figures)?;
    many::tell(play, narrator, &empty, &mut figures)?;
    for figure in &figures {
        println!("{}", serde_json::to_string(figure)?);
    }
    Ok(())
}

/// Measures what monitoring costs and prints a line of JSON for each figure.
pub fn senses(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    story::prologue(play, narrator)?;
    let mut figures = Vec::new();
    senses::tell(play, narrator, &mut figures)?;
    for figure in &figures {
        println!("{}", serde_json::to_string(figure)?);
    }
    Ok(())
}

fn said(figures: &[Figure]) -> String {
    figures
        .iter()
        .map(Figure::words)
        .collect::<Vec<_>>()
        .join("; ")
}

fn withdraw(play: &mut Play<'_>) -> Result<()> {
    play.user.aos(&[
        "unassign",
        WEB,
        "--unit",
        &play.unit,
        "--wait",
        "--timeout",
        "180",
    ])?;
    play.until("the last process gone", 60, |play| {
        let left = story::processes(play, Place::Main).len();
        ensure!(left == 0, "{left} process(es) are left");
        Ok(())
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_ratio_is_value_by_floor() {
        let figure = Figure::beside("x", vec![4.0], vec![2.0]);
        assert_eq!((figure.ratio, figure.unit), (Some(2.0), "s"));
    }
}
