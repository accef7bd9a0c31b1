//! Whom an image runs as, and what asks it to end, in the words of its config.

use std::str::FromStr;

/// One part of a user: a number, or a name that the image's own files know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// A number.
    Id(u32),
    /// A name in the image's `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// `user`, `user:group`, each a name or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    /// User.
    pub user: Account,
    /// Group; without it the user's own.
    pub group: Option<Account>,
}

/// A user cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no user: write a name or a number, or two with a colon for user and group")]
pub struct NoUser(String);

impl FromStr for Account {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            // The greatest number means "nobody in particular" to the kernel.
            let id = text.parse().ok().filter(|id| *id != u32::MAX);
            return id.map(Self::Id).ok_or(());
        }
        let fits = (1..=64).contains(&text.len())
            && !text.starts_with('-')
            && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/');
        fits.then(|| Self::Name(text.into())).ok_or(())
    }
}

impl FromStr for ImageUser {
    type Err = NoUser;

    fn from_str(text: &str) -> Result<Self, NoUser> {
        let bad = |()| NoUser(text.chars().take(80).collect());
        let (user, group) = match text.split_once(':') {
            None => (text, None),
            // `user:` is taken by other engines too.
            Some((user, "")) => (user, None),
            Some((user, group)) if !group.contains(':') => (user, Some(group)),
            Some(_) => return Err(bad(())),
        };
        Ok(Self {
            user: user.parse().map_err(bad)?,
            group: group.map(str::parse).transpose().map_err(bad)?,
        })
    }
}

/// A signal that may ask a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal(pub i32);

/// A signal cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no signal such as SIGTERM, INT, 15 or SIGRTMIN+3")]
pub struct NoSignal(String);

/// signal(7), as Linux numbers them on all machines we run on.
const SIGNALS: [(&str, i32); 14] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("TSTP", 20),
    ("WINCH", 28),
    ("PWR", 30),
];
/// The first real-time signal that a C library leaves to programs, and the last.
const REAL_TIME: (i32, i32) = (34, 64);

impl FromStr for StopSignal {
    type Err = NoSignal;

    fn from_str(text: &str) -> Result<Self, NoSignal> {
        let bad = || NoSignal(text.chars().take(40).collect());
        if let Ok(number) = text.parse::<i32>() {
            let fits = (1..=REAL_TIME.1).contains(&number) && number != 19;
            return fits.then_some(Self(number)).ok_or_else(bad);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let offset = |rest: &str| -> Option<i32> {
            if rest.is_empty() {
                return Some(0);
            }
            rest.get(1..)?.parse().ok().filter(|n| (0..=30).contains(n))
        };
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            offset(rest)
                .filter(|_| rest.is_empty() || rest.starts_with('+'))
                .map(|n| REAL_TIME.0 + n)
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            offset(rest)
                .filter(|_| rest.is_empty() || rest.starts_with('-'))
                .map(|n| REAL_TIME.1 - n)
        } else {
            SIGNALS
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, number)| *number)
        };
        number.map(Self).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_in_all_forms() {
        let name = |text: &str| Account::Name(text.into());
        for (text, user, group) in [
            ("1000", Account::Id(1000), None),
            ("app", name("app"), None),
            ("app:", name("app"), None),
            ("1000:staff", Account::Id(1000), Some(name("staff"))),
            ("app:0", name("app"), Some(Account::Id(0))),
        ] {
            assert_eq!(text.parse(), Ok(ImageUser { user, group }), "{text}");
        }
        for bad in [
            "",
            ":",
            ":1",
            "a:b:c",
            "12x",
            "a b",
            "4294967295",
            "-1",
            "../x",
        ] {
            assert!(bad.parse::<ImageUser>().is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_are_read_in_all_forms() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("int", 2),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMIN", 34),
        ] {
            assert_eq!(text.parse(), Ok(StopSignal(number)), "{text}");
        }
        for bad in [
            "", "0", "65", "SIGSTOP", "19", "RTMIN+31", "RTMIN-1", "SIGNOPE", "-3",
        ] {
            assert!(bad.parse::<StopSignal>().is_err(), "{bad}");
        }
    }
}
