//! What instances may not do: system calls, rights, their root.

mod users;

use std::{fs, path::PathBuf, process::Command};

use aos_runtime::{ExitCause, InstanceSpec, Runtime, StopPolicy};
use aos_types::Capability;

use super::{Host, next};
use crate::node::{skip, until};

/// Tries a system call by name and says how it failed.
const TRIES: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static long four(long n, long a, long b, long c, long d) { return syscall(n, a, b, c, d, 0, 0); }
static void told(const char *name, long got) { printf("%s=%d\n", name, got < 0 ? errno : 0); errno = 0; }
int main(void) {
    char buf[64] = {0};
    told("mount", four(SYS_mount, (long)"none", (long)"/tmp", (long)"tmpfs", 0));
    told("umount2", four(SYS_umount2, (long)"/proc", 2, 0, 0));
    told("ptrace", four(SYS_ptrace, 0, 0, 0, 0));
    told("process_vm_readv", four(SYS_process_vm_readv, getpid(), 0, 0, 0));
    told("keyctl", four(SYS_keyctl, 0, -3, 0, 0));
    told("add_key", four(SYS_add_key, (long)"user", (long)"k", (long)buf, 1));
    told("kexec_load", four(SYS_kexec_load, 0, 0, 0, 0));
    told("bpf", four(SYS_bpf, 0, (long)buf, sizeof buf, 0));
    told("unshare", four(SYS_unshare, CLONE_NEWUSER, 0, 0, 0));
    told("setns", four(SYS_setns, 0, 0, 0, 0));
    told("clone_newuser", four(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0));
    told("clone3", four(SYS_clone3, (long)buf, sizeof buf, 0, 0));
    told("io_uring_setup", four(SYS_io_uring_setup, 1, (long)buf, 0, 0));
    told("perf_event_open", four(SYS_perf_event_open, (long)buf, 0, -1, -1));
    told("userfaultfd", four(SYS_userfaultfd, 0, 0, 0, 0));
    told("init_module", four(SYS_init_module, (long)buf, 1, (long)"", 0));
    told("chroot", four(SYS_chroot, (long)"/", 0, 0, 0));
    told("pivot_root", four(SYS_pivot_root, (long)"/", (long)"/", 0, 0));
    told("swapon", four(SYS_swapon, (long)"/x", 0, 0, 0));
    told("reboot", four(SYS_reboot, 0, 0, 0, 0));
    told("settimeofday", four(SYS_settimeofday, 0, 0, 0, 0));
    told("sethostname", four(SYS_sethostname, (long)"x", 1, 0, 0));
    told("syslog", four(SYS_syslog, 10, 0, 0, 0));
    told("open_by_handle_at", four(SYS_open_by_handle_at, -100, (long)buf, 0, 0));
    told("vsock", four(SYS_socket, 40, 1, 0, 0));
    told("personality", four(SYS_personality, 0x0040000, 0, 0, 0));
    told("inet", four(SYS_socket, 2, 1, 0, 0));
    told("fs_setflags", four(SYS_ioctl, 0, 0x40086602, (long)buf, 0));
    told("fs_setproject", four(SYS_ioctl, 0, 0x401c5820, (long)buf, 0));
    told("subvolume", four(SYS_ioctl, 0, 0x5000940e, (long)buf, 0));
    told("subvolume_2", four(SYS_ioctl, 0, 0x7fff000050009418, (long)buf, 0));
    told("fs_getflags", four(SYS_ioctl, 0, 0x80086601, (long)buf, 0));
    told("tcgets", four(SYS_ioctl, 0, 0x5401, (long)buf, 0));
    told("getrandom", four(SYS_getrandom, (long)buf, 8, 0, 0));
    printf("END\n");
    return 0;
}
"#;

/// What an instance said, once it has said `END`: its output may come a little after its end is told.
pub async fn said(host: &Host, spec: &InstanceSpec) -> String {
    until("it said all", || host.log(spec.id).contains("END")).await;
    host.log(spec.id)
}

/// Compiles `code` into a layer of its own and makes it the instance's program.
fn program(host: &Host, spec: &mut InstanceSpec, code: &str) -> bool {
    let layer: PathBuf = host.node.path(&format!("layer-{}", spec.ident.index));
    fs::create_dir_all(&layer).unwrap();
    let source = host.node.path("program.c");
    fs::write(&source, code).unwrap();
    let built = Command::new("cc")
        .args(["-static", "-O1", "-o"])
        .arg(layer.join("program"))
        .arg(&source)
        .status();
    if !built.is_ok_and(|status| status.success()) {
        let test = std::thread::current();
        let test = test.name().unwrap_or_default();
        let test = test.rsplit("::").next().unwrap_or(test);
        eprintln!("SKIPPED {test}: needs cc and a static C library");
        return false;
    }
    spec.layers = vec![layer];
    spec.args = vec!["/program".into()];
    true
}

#[tokio::test]
async fn gap_54_system_calls_that_reach_the_node_are_refused() {
    if skip("gap_54_system_calls_that_reach_the_node_are_refused") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    // Also for one that is as much root as an item can be.
    let mut mighty = host.spec(2, "");
    mighty.user.uid = 0;
    mighty.capabilities = Capability::ALL.into();
    for mut spec in [host.spec(1, ""), mighty] {
        let chroot = spec.capabilities.contains(&Capability::SysChroot);
        if !program(&host, &mut spec, TRIES) {
            return;
        }
        runtime.start(&spec).await.unwrap();
        let exit = next(&mut exits).await;
        let log = said(&host, &spec).await;
        assert_eq!(exit.cause, ExitCause::Code(0), "{log}");
        for line in log.lines().filter(|line| line.contains('=')) {
            let (name, found) = line.rsplit_once('=').unwrap();
            let name = name.rsplit(' ').next().unwrap();
            let wanted = match name {
                "clone3" => "38",
                "inet" | "getrandom" => "0",
                // They come through, and /dev/null does not know them.
                "fs_getflags" | "tcgets" => "25",
                "chroot" if chroot => "0",
                _ => "1",
            };
            assert_eq!(found.trim(), wanted, "{name} in\n{log}");
        }
        runtime.stop(spec.id, StopPolicy::KILL).await.unwrap();
    }
}

#[tokio::test]
async fn ordinary_programs_run_under_the_filter() {
    if skip("ordinary_programs_run_under_the_filter") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let script = r#"set -e
        cd /storage; mkdir a; ls -la / >a/list; cp a/list a/copy; cmp a/list a/copy; ln -s list a/link
        tar cf b.tar a; gzip b.tar; gunzip b.tar.gz; tar tf b.tar; mv b.tar c; touch -d yesterday c
        sort a/list | uniq | wc -l; (sleep 0.01 & wait); mkfifo pipe; (echo x >pipe &) ; cat pipe
        date; find / -xdev -name hosts 2>/dev/null | head -1; chmod 600 c; dd if=/dev/urandom of=r bs=1k count=9
        if command -v perl; then perl -e 'use Socket; socketpair(A,B,AF_UNIX,SOCK_STREAM,0) or die; fork; wait'; fi
        if command -v python3; then python3 -c 'import threading,subprocess,select
t=threading.Thread(target=print);t.start();t.join();subprocess.run(["true"],check=True)'; fi"#;
    let spec = host.spec(1, script);
    runtime.start(&spec).await.unwrap();
    let exit = next(&mut exits).await;
    assert_eq!(exit.cause, ExitCause::Code(0), "{}", host.log(spec.id));
    runtime.stop(spec.id, StopPolicy::KILL).await.unwrap();
}

#[tokio::test]
async fn rights_are_those_granted_and_no_program_gets_more() {
    if skip("rights_are_those_granted_and_no_program_gets_more") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    // A set-user-id shell in the image makes nobody root.
    let layer = host.node.path("suid");
    fs::create_dir_all(&layer).unwrap();
    fs::copy("/usr/bin/id", layer.join("id")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(layer.join("id"), fs::Permissions::from_mode(0o4755)).unwrap();
    for (index, rights, mask) in [
        (1, vec![], "0000000000000000"),
        (2, vec![Capability::NetBindService], "0000000000000400"),
        (
            3,
            vec![Capability::Chown, Capability::Setuid],
            "0000000000000081",
        ),
    ] {
        let mut spec = host.spec(
            index,
            "grep -E 'Cap(Eff|Prm|Bnd|Amb)' /proc/self/status; echo as $(/id -u); echo END",
        );
        spec.layers = vec![layer.clone()];
        spec.capabilities = rights.into_iter().collect();
        runtime.start(&spec).await.unwrap();
        let exit = next(&mut exits).await;
        assert_eq!(exit.cause, ExitCause::Code(0), "{}", host.log(spec.id));
        let log = said(&host, &spec).await;
        assert_eq!(log.matches(mask).count(), 4, "{log}");
        assert!(log.contains("as 5000"), "{log}");
        runtime.stop(spec.id, StopPolicy::KILL).await.unwrap();
    }
}

#[tokio::test]
async fn gap_52_later_layers_lie_on_top_and_a_root_may_be_written_to() {
    if skip("gap_52_later_layers_lie_on_top_and_a_root_may_be_written_to") {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let layer = host.node.path("layer");
    fs::create_dir_all(layer.join("data")).unwrap();
    std::os::unix::fs::chown(layer.join("data"), Some(5_000), Some(5_000)).unwrap();
    let above = host.node.path("above");
    fs::create_dir_all(&above).unwrap();
    for (folder, text) in [(&layer, "below"), (&above, "above")] {
        fs::write(folder.join("both"), text).unwrap();
    }
    let script = "echo top $(cat /both); ls /data; echo new > /data/new && echo written; echo tmp > /tmp/x && echo tmp written; \
        echo s > /storage/s && echo storage written; echo END";
    for (index, read_only, wanted) in [(1, false, true), (2, true, false)] {
        for round in 1..=2 {
            let mut spec = host.spec(index, script);
            spec.layers = vec![layer.clone(), above.clone()];
            spec.read_only = read_only;
            spec.limits.tmp = Some(1 << 20);
            runtime.start(&spec).await.unwrap();
            next(&mut exits).await;
            let full = || host.log(spec.id).matches("END").count() == round;
            until("it said all", full).await;
            let log = host.log(spec.id);
            assert!(log.contains("top above"), "{log}");
            let lines = |text: &str| log.lines().filter(|line| line.ends_with(text)).count();
            assert!(
                lines("tmp written") > 0 && lines("storage written") > 0,
                "{log}"
            );
            assert_eq!(
                log.contains(" written")
                    && lines(" written") > lines("tmp written") + lines("storage written"),
                wanted,
                "{log}"
            );
            assert!(
                !log.lines().any(|line| line.ends_with(" new")),
                "nothing stays: {log}"
            );
            runtime.stop(spec.id, StopPolicy::KILL).await.unwrap();
        }
    }
    assert!(
        !layer.join("data/new").exists(),
        "layers are never written to"
    );
}
