//! What the command line says: its help, and its errors with what to do about them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `aos` as somebody whose home is `home`.
fn aos(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aos"))
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("AOS_HOME", home)
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn help(words: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut arguments = words.to_vec();
    arguments.push("--help");
    let output = aos(home.path(), &arguments);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code and text of a command that fails; the home's path is made the same everywhere.
fn fails(arguments: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = aos(home.path(), arguments);
    assert!(!output.status.success(), "{arguments:?} did not fail");
    assert!(
        output.stdout.is_empty(),
        "an error goes to stderr: {output:?}"
    );
    let text = String::from_utf8(output.stderr).unwrap();
    format!("exit {}\n{}", output.status.code().unwrap(), text)
        .replace(home.path().to_str().unwrap(), "HOME")
}

#[test]
fn help_of_the_program() {
    insta::assert_snapshot!(help(&[]));
}

#[test]
fn help_of_each_command() {
    let mut text = String::new();
    for words in [
        &["cloud", "serve"][..],
        &["core", "run"],
        &["iam", "run"],
        &["login"],
        &["whoami"],
        &["bundle"],
        &["bundle", "init"],
        &["bundle", "check"],
        &["bundle", "sign"],
        &["bundle", "push"],
        &["unit"],
        &["unit", "claim"],
        &["unit", "join"],
        &["unit", "why"],
        &["unit", "consent"],
        &["unit", "consent", "refuse"],
        &["unit", "ready"],
        &["update"],
        &["update", "start"],
        &["unit", "show"],
        &["unit", "pause"],
        &["unit", "config"],
        &["unit", "schedule"],
        &["unit", "env", "ls"],
        &["unit", "env", "set"],
        &["unit", "desired"],
        &["model"],
        &["model", "config"],
        &["model", "order"],
        &["model", "schedule"],
        &["service"],
        &["assign"],
        &["unassign"],
        &["status"],
        &["explain"],
        &["demo"],
        &["completion"],
    ] {
        text.push_str(&format!(
            "$ aos {} --help\n{}\n",
            words.join(" "),
            help(words)
        ));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn errors_say_what_why_and_what_to_do() {
    let mut text = String::new();
    for arguments in [
        &["whoami"][..],
        &["unit", "ls"],
        &[
            "login",
            "http://localhost:10000",
            "--user",
            "anna",
            "--ca-fingerprint",
            FINGERPRINT,
        ],
        &[
            "login",
            "https://localhost:1",
            "--user",
            "anna",
            "--ca-fingerprint",
            FINGERPRINT,
        ],
        &[
            "login",
            "https://localhost:1",
            "--user",
            "anna",
            "--ca-fingerprint",
            "beef",
        ],
        &[
            "login",
            "https://localhost:1",
            "--user",
            "anna",
            "--ca",
            "/does/not/exist.pem",
        ],
        &["core", "run", "--config", "/does/not/exist.toml"],
        &["assign", "hello"],
        &["bundle", "check", "/does/not/exist"],
        &["demo", "--examples", "/does/not/exist"],
        &["nonsense"],
    ] {
        text.push_str(&format!(
            "$ aos {}\n{}\n",
            arguments.join(" "),
            fails(arguments)
        ));
    }
    insta::assert_snapshot!(text);
}

const FINGERPRINT: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn a_wrong_configuration_names_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "[iam]\nstate_dir = \"/tmp/x\"\ncolour = \"blue\"\n").unwrap();
    let text = fails(&["iam", "run", "--config", file.to_str().unwrap()]);
    assert!(text.contains("colour") && text.contains("line 3"), "{text}");
    std::fs::write(&file, "").unwrap();
    let text = fails(&["cm", "run", "--config", file.to_str().unwrap()]);
    assert!(text.contains("has no table [cm]"), "{text}");
}

#[test]
fn completion_is_written_for_each_shell() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = aos(home.path(), &["completion", shell]);
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("unassign"), "{shell}: {script}");
    }
}
