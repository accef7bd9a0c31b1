use std::{fs, io};

use rustix::process::{self, Pid, PidfdFlags};
use std::os::fd::OwnedFd;

/// What is known of a process from `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its parent.
    pub(crate) parent: u32,
    /// Its session.
    pub(crate) session: u32,
    /// Clock ticks from boot to its start.
    pub(super) started: u64,
    /// It has ended and waits to be reaped.
    pub(super) zombie: bool,
}

/// When the process started, in clock ticks since boot; nothing if there is no such process. With its number it names a
/// process for good: numbers are reused.
pub fn start_time(pid: u32) -> Option<u64> {
    facts(pid).map(|facts| facts.started)
}

pub(crate) fn facts(pid: u32) -> Option<Facts> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether a process can notice a signal: it handles it, or blocks it to read it by other means. The first process of a
/// pid namespace never sees the default action of a signal from outside, `SIGKILL` excepted, so waiting for one that cannot
/// notice is in vain. True if nothing is known.
pub(crate) fn notices(pid: u32, signal: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return true;
    };
    let mask = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
    };
    let bit = u32::try_from(signal - 1)
        .ok()
        .and_then(|shift| 1_u64.checked_shl(shift))
        .unwrap_or(0);
    match (mask("SigCgt:"), mask("SigBlk:")) {
        (Some(caught), Some(blocked)) => (caught | blocked) & bit != 0,
        _ => true,
    }
}

/// A process handle that stays right when the number is reused.
pub(super) fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Fields of proc_pid_stat(5). The name may hold spaces and brackets; what counts comes after its last bracket.
fn parse(stat: &str) -> Option<Facts> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Facts {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_ourselves_are_right() {
        let me = facts(std::process::id()).unwrap();
        assert_eq!(me.parent, std::os::unix::process::parent_id());
        assert!(me.started > 0 && !me.zombie);
        assert_eq!(start_time(std::process::id()), Some(me.started));
        assert_eq!(facts(u32::MAX), None);
    }

    #[test]
    fn who_handles_a_signal_is_known() {
        let mut sleep = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(!notices(sleep.id(), 15));
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        // Rust handles SIGSEGV to tell a stack overflow.
        assert!(notices(std::process::id(), 11));
        assert!(notices(u32::MAX, 15));
    }

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        let stat = "7 (a) Z 1 (b) S 42 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1";
        assert_eq!(
            parse(stat),
            Some(Facts {
                parent: 42,
                session: 7,
                started: 12345,
                zombie: false
            })
        );
        assert_eq!(parse("nonsense"), None);
    }
}
