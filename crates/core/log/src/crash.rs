use aos_time::Timestamp;

/// How a process ended that was not asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// Whose.
    pub source: String,
    /// Of which version.
    pub version: String,
    /// What it returned.
    pub code: Option<i32>,
    /// What ended it.
    pub signal: Option<i32>,
    /// Something of it was killed because its memory limit was reached.
    pub oom: bool,
    /// When.
    pub at: Timestamp,
    /// What is known of its core, a line each.
    pub core: Vec<String>,
}

impl Crash {
    /// The log of the crash: how it ended, then its last output, which are whole lines.
    pub fn render(&self, output: &str) -> String {
        let source = &self.source;
        let mut said = vec![
            format!("crash of {source} version {}", self.version),
            match (self.code, self.signal) {
                (_, Some(signal)) => format!("ended by signal {signal} ({})", signal_name(signal)),
                (Some(code), None) => format!("exit code {code}"),
                (None, None) => "exit status unknown: nobody who could know was there".to_owned(),
            },
        ];
        if self.oom {
            said.push("its memory limit was reached".to_owned());
        }
        said.extend(self.core.iter().cloned());
        said.push(if output.is_empty() {
            "it had written nothing".to_owned()
        } else {
            "its last output:".to_owned()
        });
        let mut text: String = said
            .iter()
            .map(|line| format!("{} [{source}] # {line}\n", self.at))
            .collect();
        text.push_str(output);
        text
    }
}

/// The name of a signal on Linux.
pub fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => "a signal without a common name",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_says_how_and_what_was_said_before() {
        let mut crash = Crash {
            source: "item:subject:0".into(),
            version: "1.0.0".into(),
            code: None,
            signal: Some(11),
            oom: false,
            at: Timestamp::from_secs(0),
            core: vec!["core: /app, at 0x401000".into()],
        };
        assert_eq!(
            crash.render("1970-01-01T00:00:00Z [item:subject:0] last words\n"),
            "1970-01-01T00:00:00Z [item:subject:0] # crash of item:subject:0 version 1.0.0\n\
             1970-01-01T00:00:00Z [item:subject:0] # ended by signal 11 (SIGSEGV)\n\
             1970-01-01T00:00:00Z [item:subject:0] # core: /app, at 0x401000\n\
             1970-01-01T00:00:00Z [item:subject:0] # its last output:\n\
             1970-01-01T00:00:00Z [item:subject:0] last words\n"
        );
        (crash.signal, crash.code, crash.oom, crash.core) = (None, Some(3), true, vec![]);
        let text = crash.render("");
        assert!(text.contains("# exit code 3\n") && text.contains("memory limit"));
        assert!(text.ends_with("# it had written nothing\n"));
        crash.code = None;
        assert!(crash.render("").contains("exit status unknown"));
    }
}
