//! Real containers by the real `crun`: what they see, what they may, how they end, and who survives whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

mod isolation;
mod node;
mod probes;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use aos_runtime::{
    CpuQuota, CrunOptions, CrunRuntime, Error, Exit, ExitCause, HostEntry, InstanceId,
    InstanceSpec, Limits, Runtime, Status, StopPolicy, User, keeper::LogPolicy,
};
use aos_types::{Capabilities, InstanceIdent};
use node::{TestNode, alive, kill, skip, until};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

/// A Node with a container runtime; its containers, mounts and cgroups go with it.
struct Host {
    node: TestNode,
    cgroup: String,
    program: &'static str,
}

impl Host {
    fn new() -> Self {
        Self::with("crun")
    }

    /// With another OCI runtime.
    fn with(program: &'static str) -> Self {
        let node = TestNode::new();
        let name = node.folder.path().file_name().unwrap().to_string_lossy();
        let cgroup = format!("/{name}");
        Self {
            node,
            cgroup,
            program,
        }
    }

    fn options(&self) -> CrunOptions {
        CrunOptions {
            isolation: aos_runtime::Isolation::Full,
            program: self.program.into(),
            root: self.node.path("crun"),
            runtime_dir: self.node.path("run"),
            writable_dir: self.node.path("writable"),
            root_limit: 8 << 20,
            cgroup_parent: self.cgroup.clone(),
            seccomp: true,
            keeper: self.node.starter.clone(),
            deadline: Duration::from_secs(20),
            max_instances: 0,
            log: LogPolicy::default(),
        }
    }

    async fn open(&self) -> (CrunRuntime, mpsc::Receiver<Exit>) {
        CrunRuntime::open(self.options(), CancellationToken::new())
            .await
            .unwrap()
    }

    fn spec(&self, index: u64, script: &str) -> InstanceSpec {
        let ident =
            InstanceIdent::service("item".parse().unwrap(), "subject".parse().unwrap(), index);
        let storage = self.node.path(&format!("storage-{index}"));
        fs::create_dir_all(&storage).unwrap();
        std::os::unix::fs::chown(&storage, Some(5_000), Some(5_000)).unwrap();
        InstanceSpec {
            id: InstanceId::of(&ident),
            ident,
            layers: Vec::new(),
            host_base: ["/bin", "/sbin", "/lib", "/lib64", "/usr"]
                .map(PathBuf::from)
                .into(),
            args: ["/bin/sh", "-c", script].map(String::from).into(),
            env: vec![("GREETING".into(), "hello world".into())],
            cwd: "/storage".into(),
            user: User {
                uid: 5_000,
                gid: 5_000,
                additional_gids: Vec::new(),
            },
            inside: None,
            capabilities: Capabilities::default().granted(),
            read_only: false,
            hostname: Some("box".into()),
            limits: Limits::default(),
            sysctl: Default::default(),
            netns: None,
            hosts: Vec::new(),
            nameservers: Vec::new(),
            storage: Some(storage),
            state: None,
            mounts: Vec::new(),
            devices: Vec::new(),
        }
    }

    fn log(&self, id: InstanceId) -> String {
        fs::read_to_string(self.node.path(&format!("keeper/logs/{id}.log"))).unwrap_or_default()
    }

    fn mounts(&self) -> usize {
        let folder = self.node.folder.path().to_string_lossy().into_owned();
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| line.contains(&folder))
            .count()
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let tops = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        tops.map(|top| top.path().join(self.cgroup.trim_start_matches('/')))
            .chain([Path::new("/sys/fs/cgroup").join(self.cgroup.trim_start_matches('/'))])
            .filter(|path| path.is_dir())
            .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nobody may start anything from here on.
        self.node.end_keeper();
        let root = self.node.path("crun");
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let _ = Command::new(self.program)
                .arg("--root")
                .arg(&root)
                .args(["delete", "--force"])
                .arg(entry.file_name())
                .output();
        }
        for entry in fs::read_dir(self.node.path("run/instances"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = Command::new("umount")
                .arg("--lazy")
                .arg(entry.path().join("rootfs"))
                .output();
        }
        for cgroup in self.cgroups() {
            for child in fs::read_dir(&cgroup).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(child.path());
            }
            let _ = fs::remove_dir(cgroup);
        }
    }
}

async fn next(exits: &mut mpsc::Receiver<Exit>) -> Exit {
    timeout(Duration::from_secs(15), exits.recv())
        .await
        .expect("an exit within 15 s")
        .expect("the runtime lives")
}

#[tokio::test]
async fn an_instance_sees_what_it_was_given_and_nothing_else() {
    if skip("an_instance_sees_what_it_was_given_and_nothing_else") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    // Two layers: the later one lies on top, also inside the Node's own /usr.
    for (layer, text) in [("below", "below"), ("above", "above")] {
        let path = host.node.path(layer);
        fs::create_dir_all(path.join("data")).unwrap();
        fs::create_dir_all(path.join("usr/share/item")).unwrap();
        fs::write(path.join("data/both"), text).unwrap();
        fs::write(path.join("usr/share/item").join(layer), text).unwrap();
    }
    let script = r#"
        { echo "uid $(id -u) gid $(id -g)"; echo "env $GREETING $AOS_ITEM_ID $AOS_SUBJECT_ID $AOS_INSTANCE_INDEX $AOS_INSTANCE_ID"
          echo "layers $(cat /data/both) $(cat /usr/share/item/below /usr/share/item/above)"
          echo "host $(hostname) pids $(ls -d /proc/[0-9]* | wc -l)"
          echo "top $(ls / | tr '\n' ' ')"
          echo "hosts $(grep -c mate /etc/hosts) dns $(cat /etc/resolv.conf)"
          grep -E 'CapEff|NoNewPrivs' /proc/self/status
          echo "nofile $(ulimit -n)"
          echo x > /usr/x || echo "usr is read-only"
          echo x > /var/x || echo "var is root's"
          echo state > /state.dat
        } > /storage/report 2>/dev/null; exit 3"#;
    let mut spec = host.spec(1, script);
    spec.layers = vec![host.node.path("below"), host.node.path("above")];
    spec.hosts = vec![HostEntry {
        ip: "10.1.2.3".parse().unwrap(),
        names: vec!["mate".into()],
    }];
    spec.nameservers = vec!["9.9.9.9".parse().unwrap()];
    spec.limits.open_files = Some(77);
    let state = host.node.path("state.dat");
    fs::write(&state, "").unwrap();
    std::os::unix::fs::chown(&state, Some(5_000), Some(5_000)).unwrap();
    spec.state = Some(state.clone());
    let started = runtime.start(&spec).await.unwrap();
    let exit = next(&mut exits).await;
    assert_eq!(
        (exit.pid, exit.cause),
        (started.pid, ExitCause::Code(3)),
        "{}",
        host.log(spec.id)
    );
    let report = fs::read_to_string(host.node.path("storage-1/report")).unwrap();
    for line in [
        "uid 5000 gid 5000".to_owned(),
        format!("env hello world item subject 1 {}", spec.id),
        "layers above belowabove".into(),
        "host box".into(),
        "hosts 1 dns nameserver 9.9.9.9".into(),
        "CapEff:\t0000000000000400".into(),
        "NoNewPrivs:\t1".into(),
        "nofile 77".into(),
        "usr is read-only".into(),
        "var is root's".into(),
    ] {
        assert!(report.contains(&line), "`{line}` is missing:\n{report}");
    }
    let top = report.lines().find(|line| line.starts_with("top")).unwrap();
    for hidden in ["work", "boot", "opt", "srv", "mnt"] {
        assert!(!top.split(' ').any(|name| name == hidden), "{top}");
    }
    assert_eq!(fs::read_to_string(state).unwrap(), "state\n");
    assert_eq!(runtime.status(spec.id).await.unwrap(), Status::Ended);
    runtime.acknowledge(&exit).await.unwrap();
    runtime.stop(spec.id, StopPolicy::default()).await.unwrap();
    assert_eq!(runtime.status(spec.id).await.unwrap(), Status::Absent);
    assert_eq!(host.mounts(), 0, "nothing stays mounted");
    assert!(
        !host
            .node
            .path("writable")
            .join(spec.id.to_string())
            .exists()
    );
}

#[tokio::test]
async fn limits_hold_and_a_memory_kill_is_told() {
    if skip("limits_hold_and_a_memory_kill_is_told") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let mut greedy = host.spec(1, "exec tail /dev/zero");
    greedy.limits = Limits {
        ram: Some(32 << 20),
        cpu: CpuQuota::from_dmips(500, 1_000, 1),
        pids: Some(20),
        ..Limits::default()
    };
    runtime.start(&greedy).await.unwrap();
    let exit = next(&mut exits).await;
    assert_eq!((exit.cause, exit.oom), (ExitCause::Signal(9), true));
    let mut forks = host.spec(
        2,
        "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done 2>/storage/err; wait",
    );
    forks.limits.pids = Some(6);
    // The limit of processes counts a user's processes everywhere, so this user must be nobody else.
    forks.user.uid = 60_000 + std::process::id() % 5_000;
    std::os::unix::fs::chown(host.node.path("storage-2"), Some(forks.user.uid), None).unwrap();
    runtime.start(&forks).await.unwrap();
    let failed = host.node.path("storage-2/err");
    until("fork fails", || {
        fs::read_to_string(&failed).is_ok_and(|text| text.contains("fork"))
    })
    .await;
    runtime.stop(forks.id, StopPolicy::KILL).await.unwrap();
    runtime.stop(greedy.id, StopPolicy::KILL).await.unwrap();
    for cgroup in host.cgroups() {
        assert_eq!(
            fs::read_dir(&cgroup)
                .unwrap()
                .flatten()
                .filter(|entry| entry.path().is_dir())
                .count(),
            0,
            "{}",
            cgroup.display()
        );
    }
}

#[tokio::test]
async fn stopping_asks_first_and_kills_after_the_grace_period() {
    if skip("stopping_asks_first_and_kills_after_the_grace_period") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let polite = host.spec(
        1,
        "trap 'echo bye > /storage/bye; exit 0' TERM; echo up; while :; do sleep 0.05; done",
    );
    let stubborn = host.spec(
        2,
        "trap 'echo not yet' TERM; echo up; while :; do sleep 0.05; done",
    );
    for spec in [&polite, &stubborn] {
        runtime.start(spec).await.unwrap();
        until("it is up", || host.log(spec.id).contains("up")).await;
    }
    let started = Instant::now();
    runtime
        .stop(polite.id, StopPolicy::default())
        .await
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(
        fs::read_to_string(host.node.path("storage-1/bye")).unwrap(),
        "bye\n"
    );
    let started = Instant::now();
    let policy = StopPolicy {
        signal: 15,
        grace: Duration::from_millis(300),
    };
    runtime.stop(stubborn.id, policy).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(runtime.running().await.unwrap(), []);
    // An end that was ordered is not an event, and nothing is left of it anywhere.
    assert!(exits.try_recv().is_err());
    assert_eq!(host.mounts(), 0);
    assert_eq!(
        fs::read_dir(host.node.path("run/instances"))
            .unwrap()
            .count(),
        0
    );
    runtime
        .stop(polite.id, StopPolicy::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_new_runtime_adopts_what_runs_and_removes_the_rest() {
    if skip("a_new_runtime_adopts_what_runs_and_removes_the_rest") {
        return;
    }
    let host = Host::new();
    let other = Host::new();
    let (bystander, _bystander_exits) = other.open().await;
    let foreign = bystander
        .start(&other.spec(1, "exec sleep 100"))
        .await
        .unwrap();

    let (runtime, exits) = host.open().await;
    let kept = host.spec(
        1,
        "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done",
    );
    let short = host.spec(2, "exec sleep 100");
    let unknown = host.spec(
        3,
        "trap 'echo bye > /storage/bye; exit 0' TERM; echo up; while :; do sleep 0.05; done",
    );
    let mut pids = Vec::new();
    for spec in [&kept, &short, &unknown] {
        pids.push(runtime.start(spec).await.unwrap().pid);
    }
    until("they are up", || {
        let up = |id| host.log(id).contains("up");
        up(kept.id) && up(unknown.id)
    })
    .await;
    drop((runtime, exits));
    // While nobody is there one of them dies.
    kill(pids[1], "-KILL");
    until("it is dead", || !alive(pids[1])).await;

    let (runtime, mut exits) = host.open().await;
    let adopted = runtime
        .adopt(&[kept.id, short.id], StopPolicy::default())
        .await
        .unwrap();
    assert_eq!(
        adopted.iter().map(|a| (a.id, a.pid)).collect::<Vec<_>>(),
        [(kept.id, pids[0])],
        "the same process goes on"
    );
    let exit = next(&mut exits).await;
    assert_eq!((exit.id, exit.cause), (short.id, ExitCause::Signal(9)));
    assert!(!alive(pids[2]), "what nobody knows is removed");
    assert!(
        host.node.path("storage-3/bye").exists(),
        "it was asked to end and had its time"
    );
    assert!(
        alive(foreign.pid),
        "another Node's instance is not ours to touch"
    );

    assert!(runtime.start(&kept).await.unwrap().already);
    kill(pids[0], "-TERM");
    let exit = next(&mut exits).await;
    assert_eq!((exit.id, exit.cause), (kept.id, ExitCause::Code(9)));
    // An ended instance is started again over its leftovers.
    let again = runtime.start(&kept).await.unwrap();
    assert!(!again.already && again.pid != pids[0]);
    for id in [kept.id, short.id] {
        runtime.stop(id, StopPolicy::KILL).await.unwrap();
    }
    bystander.stop(foreign.id, StopPolicy::KILL).await.unwrap();
}

#[tokio::test]
async fn a_dead_keeper_is_replaced_and_the_service_goes_on() {
    if skip("a_dead_keeper_is_replaced_and_the_service_goes_on") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let spec = host.spec(1, "while :; do echo tick; sleep 0.02; done");
    let started = runtime.start(&spec).await.unwrap();
    let keeper = host.node.keeper_pid().unwrap();
    kill(keeper, "-KILL");
    until("the keeper is dead", || !alive(keeper)).await;
    until("there is a new one", || host.node.keeper_pid().is_some()).await;
    let status = runtime.status(spec.id).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut status = status.unwrap();
    while status != (Status::Running { pid: started.pid }) {
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        status = runtime.status(spec.id).await.unwrap();
    }
    let before = host.log(spec.id).len();
    until("its output is kept again", || {
        host.log(spec.id).len() > before
    })
    .await;
    kill(started.pid, "-KILL");
    let exit = next(&mut exits).await;
    assert_eq!((exit.pid, exit.cause), (started.pid, ExitCause::Unknown));
    runtime.stop(spec.id, StopPolicy::KILL).await.unwrap();
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    if skip("a_start_that_fails_says_why_and_leaves_nothing") {
        return;
    }
    let host = Host::new();
    let (runtime, _exits) = host.open().await;
    let mut spec = host.spec(1, "true");
    spec.args = vec!["/no/such/program".into()];
    match runtime.start(&spec).await {
        Err(Error::Command { message, .. }) => {
            assert!(message.contains("no/such/program"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(runtime.status(spec.id).await.unwrap(), Status::Absent);
    assert_eq!(host.mounts(), 0);

    // Half a bundle of a start that a power cut ended.
    let half = host.node.path("run/instances").join(spec.id.to_string());
    fs::create_dir_all(half.join("rootfs/etc")).unwrap();
    fs::write(half.join("config.json"), "{").unwrap();
    let good = host.spec(1, "exec sleep 100");
    runtime.start(&good).await.unwrap();
    runtime.stop(good.id, StopPolicy::KILL).await.unwrap();

    let mut full = host.options();
    full.max_instances = 1;
    drop(runtime);
    let (runtime, _exits) = CrunRuntime::open(full, CancellationToken::new())
        .await
        .unwrap();
    let (one, two) = (
        host.spec(1, "exec sleep 100"),
        host.spec(2, "exec sleep 100"),
    );
    let (a, b) = tokio::join!(runtime.start(&one), runtime.start(&one));
    assert_eq!(
        a.unwrap().pid,
        b.unwrap().pid,
        "twice the same order, one instance"
    );
    assert!(matches!(
        runtime.start(&two).await,
        Err(Error::Full { limit: 1 })
    ));
    runtime.stop(one.id, StopPolicy::KILL).await.unwrap();
}

#[tokio::test]
async fn other_oci_runtimes_do_the_same() {
    if skip("other_oci_runtimes_do_the_same") {
        return;
    }
    for program in ["runc", "youki"] {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("SKIPPED other_oci_runtimes_do_the_same: needs {program}");
            continue;
        }
        let host = Host::with(program);
        let (runtime, mut exits) = host.open().await;
        let short = host.spec(
            1,
            "grep -E 'CapEff|Seccomp:' /proc/self/status > /storage/report; exit 3",
        );
        let one = runtime.start(&short).await.unwrap();
        let exit = next(&mut exits).await;
        assert_eq!(
            (exit.pid, exit.cause, exit.oom),
            (one.pid, ExitCause::Code(3), false)
        );
        runtime.acknowledge(&exit).await.unwrap();
        let report = fs::read_to_string(host.node.path("storage-1/report")).unwrap();
        assert!(report.contains("CapEff:\t0000000000000400"), "{report}");
        assert!(report.contains("Seccomp:\t2"), "{report}");
        let mut greedy = host.spec(2, "exec tail /dev/zero");
        greedy.limits.ram = Some(32 << 20);
        runtime.start(&greedy).await.unwrap();
        let exit = next(&mut exits).await;
        assert_eq!((exit.cause, exit.oom), (ExitCause::Signal(9), true));
        runtime.acknowledge(&exit).await.unwrap();
        for id in [short.id, greedy.id] {
            runtime.stop(id, StopPolicy::KILL).await.unwrap();
        }
        // Who asks for the end is not told of it, however the runtime removes what is left.
        let polite = host.spec(
            3,
            "trap 'echo bye > /storage/bye; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        );
        let running = runtime.start(&polite).await.unwrap();
        until("it is up", || host.log(polite.id).contains("up")).await;
        drop((runtime, exits));
        let (runtime, mut exits) = host.open().await;
        let adopted = runtime.adopt(&[polite.id], StopPolicy::KILL).await.unwrap();
        assert_eq!(adopted[0].pid, running.pid);
        runtime
            .stop(polite.id, StopPolicy::default())
            .await
            .unwrap();
        assert!(host.node.path("storage-3/bye").exists());
        assert!(exits.try_recv().is_err());
        let mut missing = host.spec(4, "true");
        missing.args = vec!["/no/such/program".into()];
        let error = runtime.start(&missing).await.unwrap_err();
        assert!(error.is_final(), "{error}");
        assert_eq!(runtime.running().await.unwrap(), []);
        assert_eq!(host.mounts(), 0);
    }
}

#[tokio::test]
async fn the_words_of_a_short_life_are_kept() {
    if skip("the_words_of_a_short_life_are_kept") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    for index in 0..30 {
        let spec = host.spec(index, "echo last words");
        runtime.start(&spec).await.unwrap();
        let exit = next(&mut exits).await;
        // What was said before the end is written down before the end is told.
        assert!(host.log(exit.id).contains("last words"), "of {index}");
        runtime.stop(spec.id, StopPolicy::KILL).await.unwrap();
    }
}

#[tokio::test]
async fn what_an_ended_instance_left_can_be_cleared_before_its_next_start() {
    if skip("what_an_ended_instance_left_can_be_cleared_before_its_next_start") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let ended = host.spec(0, "exit 4");
    let running = host.spec(1, "exec sleep 100");
    runtime.start(&ended).await.unwrap();
    let started = runtime.start(&running).await.unwrap();
    let exit = next(&mut exits).await;
    assert_eq!(
        runtime.status(ended.id).await.unwrap(),
        Status::Ended,
        "an exit alone clears nothing"
    );
    for id in [ended.id, running.id] {
        runtime.clear(id).await.unwrap();
        runtime.clear(id).await.unwrap();
    }
    assert_eq!(runtime.status(ended.id).await.unwrap(), Status::Absent);
    let alive = Status::Running { pid: started.pid };
    assert_eq!(runtime.status(running.id).await.unwrap(), alive);
    // What was told of its end is still there to be acknowledged.
    assert_eq!(exit.cause, ExitCause::Code(4));
    runtime.acknowledge(&exit).await.unwrap();
    assert!(!runtime.start(&ended).await.unwrap().already);
    runtime.stop(running.id, StopPolicy::KILL).await.unwrap();
    runtime.stop(ended.id, StopPolicy::KILL).await.unwrap();
    assert_eq!(host.mounts(), 0);
}

#[tokio::test]
async fn many_instances_start_and_stop_at_once() {
    if skip("many_instances_start_and_stop_at_once") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let runtime = std::sync::Arc::new(runtime);
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..20 {
        let (runtime, spec) = (runtime.clone(), host.spec(index, "exec sleep 100"));
        tasks.spawn(async move { runtime.start(&spec).await.unwrap() });
    }
    let started = tasks.join_all().await;
    eprintln!("20 instances started in {:?}", began.elapsed());
    assert_eq!(runtime.running().await.unwrap().len(), 20);
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for instance in started {
        let runtime = runtime.clone();
        tasks.spawn(async move { runtime.stop(instance.id, StopPolicy::default()).await });
    }
    for stopped in tasks.join_all().await {
        stopped.unwrap();
    }
    eprintln!("and stopped in {:?}", began.elapsed());
    assert!(exits.try_recv().is_err());
    assert_eq!(host.mounts(), 0);
}

#[tokio::test]
async fn a_quota_of_memory_holds_for_memory_and_swap_together() {
    if skip("a_quota_of_memory_holds_for_memory_and_swap_together") {
        return;
    }
    let host = Host::new();
    let (runtime, _exits) = host.open().await;
    let mut spec = host.spec(1, "exec sleep 100");
    spec.limits.ram = Some(32 << 20);
    runtime.start(&spec).await.unwrap();
    let own = |file: &str| {
        let cgroups = host.cgroups().into_iter();
        let text = cgroups
            .filter_map(|cgroup| {
                fs::read_to_string(cgroup.join(spec.id.to_string()).join(file)).ok()
            })
            .next()?;
        text.trim().parse::<u64>().ok()
    };
    match (own("memory.swap.max"), own("memory.memsw.limit_in_bytes")) {
        (Some(swap), _) => assert_eq!(swap, 0, "nothing of it goes to the swap of the Node"),
        (None, Some(both)) => assert_eq!(both, 32 << 20),
        (None, None) => eprintln!(
            "SKIPPED a_quota_of_memory_holds_for_memory_and_swap_together: needs a kernel that accounts for swap"
        ),
    }
    runtime.stop(spec.id, StopPolicy::KILL).await.unwrap();
}
