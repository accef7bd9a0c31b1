//! Probes of real containers: what they find, what they leave behind.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use aos_runtime::{CrunRuntime, ExitCause, InstanceId, Runtime, Started, StopPolicy, Unhealthy};
use aos_types::Probe;
use nix::sched::{CloneFlags, setns};

use super::{Host, next};
use crate::node::{alive, skip, until};

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(700);

fn sh(script: &str) -> Probe {
    Probe::Exec(["/bin/sh", "-c", script].map(String::from).into())
}

/// The processes of an instance, its first one excepted: those of its pid namespace.
fn others(started: Started) -> Vec<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(started.pid);
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != started.pid && namespace(pid) == own)
        .collect()
}

async fn look(
    runtime: &CrunRuntime,
    one: Started,
    probe: Probe,
    time: Duration,
) -> Result<(), Unhealthy> {
    // The command of an exec probe belongs to the start; here each probe is another one.
    runtime.probe(one.id, one.pid, &probe, time).await
}

/// A running instance for one exec probe, which is part of it.
async fn instance(host: &Host, runtime: &CrunRuntime, index: u64) -> Started {
    let spec = host.spec(index, "trap 'exit 0' TERM; sleep 600 & wait");
    runtime.start(&spec).await.unwrap()
}

#[tokio::test]
async fn an_exec_probe_runs_as_the_instance_and_says_why() {
    if skip("an_exec_probe_runs_as_the_instance_and_says_why") {
        return;
    }
    let host = Host::new();
    let (runtime, _exits) = host.open().await;
    for (index, (probe, wanted)) in [
        (
            sh(r#"test "$(id -u)" = 5000 && test "$GREETING" = "hello world" && test "$PWD" = /storage"#),
            "",
        ),
        (sh("echo some; echo trouble >&2; exit 3"), "exit code 3: some trouble"),
        (sh("kill -9 $$"), "exit code 137"),
        (Probe::Exec(vec!["/bin/nope".into()]), "executable file `/bin/nope` not found"),
    ]
    .into_iter()
    .enumerate()
    {
        let one = instance(&host, &runtime, index as u64).await;
        // Repeated: one probe leaves nothing in the way of the next.
        for _ in 0..3 {
            let found = match look(&runtime, one, probe.clone(), SOON).await {
                Ok(()) => String::new(),
                Err(why) => why.to_string(),
            };
            assert!(found.contains(wanted) && found.is_empty() == wanted.is_empty(), "{probe}: {found}");
        }
        runtime.stop(one.id, StopPolicy::KILL).await.unwrap();
    }
}

#[tokio::test]
async fn an_exec_probe_that_hangs_is_ended_with_all_it_started() {
    if skip("an_exec_probe_that_hangs_is_ended_with_all_it_started") {
        return;
    }
    let host = Host::new();
    let (runtime, _exits) = host.open().await;
    let one = instance(&host, &runtime, 0).await;
    until("the instance's own child", || others(one).len() == 1).await;
    let own = others(one);
    let hanging = sh("sleep 500 & sleep 500; true");
    let began = Instant::now();
    let why = look(&runtime, one, hanging.clone(), SHORT)
        .await
        .unwrap_err();
    assert!(
        matches!(why, Unhealthy::Timeout(time) if time == SHORT),
        "{why}"
    );
    assert!(began.elapsed() < SHORT + Duration::from_secs(4));
    until("ended", || {
        others(one)
            .iter()
            .all(|pid| own.contains(pid) || !alive(*pid))
    })
    .await;
    assert!(alive(one.pid));
    // Whoever gives up waiting leaves nothing behind either.
    let given_up = tokio::time::timeout(SHORT, look(&runtime, one, hanging, SOON)).await;
    assert!(given_up.is_err());
    until("ended", || {
        others(one)
            .iter()
            .all(|pid| own.contains(pid) || !alive(*pid))
    })
    .await;
    assert!(alive(one.pid));
    runtime.stop(one.id, StopPolicy::KILL).await.unwrap();
}

#[tokio::test]
async fn output_held_open_does_not_hold_a_probe() {
    if skip("output_held_open_does_not_hold_a_probe") {
        return;
    }
    let host = Host::new();
    let (runtime, _exits) = host.open().await;
    let one = instance(&host, &runtime, 0).await;
    let began = Instant::now();
    look(&runtime, one, sh("sleep 60 & exit 0"), SOON)
        .await
        .unwrap();
    assert!(began.elapsed() < Duration::from_secs(3));
    runtime.stop(one.id, StopPolicy::KILL).await.unwrap();
}

/// Listens on the instance's loopback address and gives each caller `answer`; nothing at all if it is empty.
fn listen(pid: u32, answer: &'static str) -> u16 {
    let (give, port) = mpsc::channel();
    thread::spawn(move || {
        let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        give.send(listener.local_addr().unwrap().port()).unwrap();
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut asked = [0; 1024];
            if answer.is_empty() {
                open.push(stream);
            } else if stream.read(&mut asked).is_ok_and(|count| count > 0) {
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    port.recv().unwrap()
}

#[tokio::test]
async fn network_probes_look_from_inside() {
    if skip("network_probes_look_from_inside") {
        return;
    }
    let host = Host::new();
    let (runtime, _exits) = host.open().await;
    let one = instance(&host, &runtime, 0).await;
    let http = |port| Probe::Http {
        port,
        path: "/up".into(),
    };
    for (answer, wanted) in [
        ("HTTP/1.1 200 OK\r\n\r\nfine", ""),
        ("HTTP/1.0 302 Found\r\n\r\n", ""),
        ("HTTP/1.1 503 Busy\r\n\r\n", "HTTP status 503"),
        ("SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        ("", "no answer within 700ms"),
    ] {
        let port = listen(one.pid, answer);
        let found = look(&runtime, one, http(port), SHORT).await;
        let found = found.map_or_else(|why| why.to_string(), |()| String::new());
        assert_eq!(found, wanted);
        look(&runtime, one, Probe::Tcp { port }, SHORT)
            .await
            .unwrap();
        // Nobody listens there outside.
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
    let closed = look(&runtime, one, Probe::Tcp { port: 1 }, SHORT)
        .await
        .unwrap_err();
    assert!(
        matches!(closed, Unhealthy::Connection { port: 1, .. }),
        "{closed}"
    );
    runtime.stop(one.id, StopPolicy::KILL).await.unwrap();
}

#[tokio::test]
async fn a_program_that_cannot_run_is_named() {
    if skip("a_program_that_cannot_run_is_named") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let mut missing = host.spec(0, "");
    missing.args = vec!["/bin/nope".into()];
    let error = runtime.start(&missing).await.unwrap_err();
    assert!(error.is_final(), "{error}");
    // The OCI runtime would count it as started and see it end.
    let layer = host.node.path("layer");
    fs::create_dir_all(&layer).unwrap();
    let mut broken = host.spec(1, "");
    let formats = fs::read_dir("/proc/sys/fs/binfmt_misc").map_or(0, Iterator::count);
    if formats > 2 {
        eprintln!(
            "SKIPPED a_program_that_cannot_run_is_named: programs of other formats, as this kernel has binfmt_misc entries"
        );
    }
    broken.layers = vec![layer.clone()];
    for (content, wanted) in [
        (
            b"no program".to_vec(),
            "neither an ELF program nor a script",
        ),
        (foreign(), "is a program for"),
    ]
    .into_iter()
    .take(if formats > 2 { 0 } else { 2 })
    {
        let file = layer.join("broken");
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        broken.args = vec!["/broken".into()];
        let error = runtime.start(&broken).await.unwrap_err();
        assert!(error.is_final(), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
    let ended = host.spec(2, "exit 4");
    runtime.start(&ended).await.unwrap();
    assert_eq!(next(&mut exits).await.cause, ExitCause::Code(4));
    for spec in [&missing, &broken, &ended] {
        let id: InstanceId = spec.id;
        runtime.stop(id, StopPolicy::KILL).await.unwrap();
    }
}

/// A program for another machine: ours with another number in its header.
fn foreign() -> Vec<u8> {
    let mut program = fs::read("/bin/true").unwrap();
    program[18] = 243 - program[18] % 2;
    program
}
