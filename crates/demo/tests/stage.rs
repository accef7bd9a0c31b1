//! The stage is set up, works as a network, and leaves nothing behind, also after a crash.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aos_demo::stage::{Place, Stage, missing};
use aos_demo::waiting::wait_for;

#[test]
fn places_reach_each_other_and_nothing_is_left() {
    if let Some(reason) = missing() {
        eprintln!("SKIPPED places_reach_each_other_and_nothing_is_left: {reason}");
        return;
    }
    let stage = Stage::build().unwrap();
    let prefix = stage.prefix();

    // Somebody listens in the cloud's place; the host and the main Node can talk to them.
    let address = stage.address(Place::Cloud);
    let mut listener = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", stage.namespace(Place::Cloud)))
        .args(["--", "perl", "-MIO::Socket::INET", "-e"])
        .arg(format!(
            "my $s = IO::Socket::INET->new(LocalAddr => '{address}', LocalPort => 7000, Listen => 5) or die; \
             while (my $c = $s->accept) {{ print $c 'hello'; close $c }}"
        ))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let never = AtomicBool::new(false);
    let connect = || Ok(TcpStream::connect((address, 7000))?.write_all(b"x")?);
    wait_for(
        "the host connected",
        Duration::from_secs(5),
        &never,
        connect,
    )
    .unwrap();
    let from_main = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", stage.namespace(Place::Main)))
        .args([
            "--",
            "bash",
            "-c",
            &format!("exec 3<>/dev/tcp/{address}/7000 && head -c5 <&3"),
        ])
        .output()
        .unwrap();
    assert_eq!(from_main.stdout, b"hello", "{from_main:?}");
    assert!(stage.folder().join("main").is_dir());

    // As if the run had crashed here: the listener still runs. Clearing finds and ends it.
    stage.clear().unwrap();
    assert!(!listener.wait().unwrap().success());
    assert!(!stage.folder().exists() && !stage.run_folder().exists());
    let links = Command::new("ip").args(["-o", "link"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&links.stdout).contains(&format!("{prefix}@")));
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&namespaces.stdout).contains(&format!("{prefix}-")));
    stage.clear().unwrap();
}
