//! What the person wants of the Unit, and how they change their mind.

use anyhow::Result;

use super::dice::Dice;
use crate::play::Play;
use crate::stage::Place;
use crate::story::{self, COUNTER, WEB};

/// What shall run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Where the HTTP service runs, if it shall.
    pub web: Option<Place>,
    /// How many counters, and where: always there, because their storage is.
    pub counters: (usize, Place),
    /// The newest version of the HTTP service; it is the one that is delivered.
    pub version: u32,
    /// That version cannot start.
    pub broken: bool,
}

/// One change of mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Another number of counters.
    Scale(usize),
    /// The HTTP service away, or back.
    ToggleWeb,
    /// The HTTP service on the other Node.
    MoveWeb,
    /// A new version of the HTTP service.
    Publish {
        /// It cannot start.
        broken: bool,
    },
}

impl Wish {
    /// As the story's first deployment leaves it.
    pub fn first() -> Self {
        Self {
            web: Some(Place::Main),
            counters: (1, Place::Main),
            version: 0,
            broken: false,
        }
    }

    /// Whether the Unit can get there.
    pub fn possible(&self) -> bool {
        !(self.broken && self.web.is_some())
    }

    /// Version `number` of the HTTP service.
    pub fn version_text(number: u32) -> String {
        format!("1.0.{number}")
    }

    /// Draws a change that makes a difference.
    pub fn draw(&self, dice: &mut Dice) -> Change {
        // Who published something broken mends it sooner or later.
        if self.broken && dice.once_in(2) {
            return Change::Publish { broken: false };
        }
        match dice.below(10) {
            0..=3 => {
                let (now, _) = self.counters;
                let other = usize::try_from(dice.below(3)).unwrap_or(0) + 1;
                Change::Scale(if other >= now { other + 1 } else { other })
            }
            4 => Change::ToggleWeb,
            5 | 6 if self.web.is_some() => Change::MoveWeb,
            7 if !self.broken => Change::Publish { broken: true },
            _ => Change::Publish { broken: false },
        }
    }

    /// The wish after a change.
    pub fn after(&self, change: Change) -> Self {
        let mut wish = self.clone();
        match change {
            Change::Scale(count) => wish.counters.0 = count,
            Change::ToggleWeb => {
                wish.web = match wish.web {
                    Some(_) => None,
                    None => Some(Place::Main),
                }
            }
            Change::MoveWeb => wish.web = wish.web.map(other),
            Change::Publish { broken } => {
                wish.version += 1;
                wish.broken = broken;
            }
        }
        wish
    }

    /// Orders the change by the command line. Tried again it does the same.
    pub fn order(&self, play: &Play<'_>, change: Change) -> Result<()> {
        match change {
            Change::Scale(_) => {
                let (count, place) = self.counters;
                let count = count.to_string();
                story::order(
                    play,
                    &[COUNTER, "--instances", &count, "--label", label(place)],
                )
            }
            Change::ToggleWeb | Change::MoveWeb => match self.web {
                Some(place) => story::order(play, &[WEB, "--label", label(place)]),
                None => play
                    .user
                    .aos(&["unassign", WEB, "--unit", &play.unit])
                    .map(|_| ()),
            },
            Change::Publish { broken } => {
                let version = Self::version_text(self.version);
                story::publish_with(play, WEB, &version, |config| {
                    if broken {
                        config.replace("PORT=80", "PORT=none")
                    } else {
                        config.to_owned()
                    }
                })
                .map(|_| ())
            }
        }
    }
}

/// The other Node.
fn other(place: Place) -> Place {
    if place == Place::Main {
        Place::Secondary
    } else {
        Place::Main
    }
}

/// The label of a Node in the demo's unit model.
fn label(place: Place) -> &'static str {
    if place == Place::Main { "main" } else { "edge" }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scale(count) => write!(f, "{count} counter(s)"),
            Self::ToggleWeb => f.write_str("HTTP service away or back"),
            Self::MoveWeb => f.write_str("HTTP service to the other Node"),
            Self::Publish { broken: false } => f.write_str("a new version"),
            Self::Publish { broken: true } => f.write_str("a version that cannot start"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_changes_something() {
        let mut dice = Dice::new(3);
        let mut wish = Wish::first();
        let mut impossible = 0;
        for _ in 0..300 {
            let next = wish.after(wish.draw(&mut dice));
            assert_ne!(next, wish);
            assert!((1..=4).contains(&next.counters.0), "{next:?}");
            impossible += usize::from(!next.possible());
            wish = next;
        }
        assert!(impossible > 10, "only {impossible} wishes were impossible");
    }
}
