//! Which system calls an instance may make: a list of those that ordinary programs use, everything else is refused.
//!
//! Left out are calls that change the Node or its kernel (mounts, modules, the clock, `kexec`, `bpf`, `perf_event_open`),
//! that look into other processes (`ptrace`, `process_vm_readv`), that hold what has no namespace (`keyctl`) and those that
//! make namespaces, with which an instance could reach more of the kernel. A refused call fails with `EPERM`; calls that a
//! C library only tries first fail with `ENOSYS`, so that it takes the older one.

use aos_types::Capability;
use oci_spec::{
    OciSpecError,
    runtime::{
        Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
        LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
    },
};

use super::ioctls::{self, Prefix};
use crate::InstanceSpec;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// `CLONE_NEW…`: all flags of clone(2) that make a namespace, that of time excepted, which it cannot make.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Sockets to the host of a virtual machine, which lead past all network rules.
const AF_VSOCK: u64 = 40;
/// personality(2): the values that ordinary programs ask for.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Files, folders and what is in them.
const FILES: &str = "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 \
    execve execveat faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchown \
    fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 \
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch lchown lchown32 lgetxattr link linkat \
    listxattr llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat \
    name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read \
    readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile sendfile64 setxattr \
    splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs tee truncate \
    truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev \
    landlock_add_rule landlock_create_ruleset landlock_restrict_self";

/// Memory, and what processes share of it.
const MEMORY: &str = "brk get_mempolicy madvise membarrier memfd_create memfd_secret mincore mlock mlock2 \
    mlockall mmap mmap2 mprotect mremap msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect \
    process_madvise process_mrelease remap_file_pages";

/// Processes and threads, their users and limits.
const PROCESSES: &str = "arch_prctl capget capset exit exit_group fork getcpu getegid getegid32 geteuid \
    geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getrandom \
    getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid get_thread_area gettid \
    getuid getuid32 ioprio_get ioprio_set kill pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq \
    sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 \
    setreuid setreuid32 setrlimit set_robust_list setsid set_thread_area set_tid_address setuid setuid32 sysinfo \
    tgkill times tkill ugetrlimit uname vfork wait4 waitid waitpid";

/// Signals, timers, waiting.
const EVENTS: &str = "alarm clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 futex futex_time64 futex_waitv getitimer gettimeofday nanosleep pause poll ppoll \
    ppoll_time64 pselect6 pselect6_time64 rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo select _newselect setitimer sigaltstack \
    signalfd signalfd4 sigprocmask sigreturn time timer_create timer_delete timer_getoverrun timer_gettime \
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64";

/// Messages between processes, and the network.
const MESSAGES: &str = "accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr \
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget \
    msgrcv msgsnd pipe pipe2 recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop \
    semtimedop_time64 send sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall \
    socketpair";

/// Asynchronous reading and writing of the older kind. The newer one reaches around this list.
const ASYNC: &str =
    "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit";

/// What one machine has of its own.
const ARM: &str =
    "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";
const X86: &str = "modify_ldt";

/// The filter of an instance.
pub(super) fn filter(spec: &InstanceSpec) -> Result<LinuxSeccomp, OciSpecError> {
    let mut calls = Vec::new();
    for list in [FILES, MEMORY, PROCESSES, EVENTS, MESSAGES, ASYNC] {
        calls.push(allow(list, None)?);
    }
    for Prefix { mask, value } in ioctls::allowed() {
        calls.push(allow("ioctl", Some(masked(1, mask, value)?))?);
    }
    let (architectures, own) = machine();
    if !own.is_empty() {
        calls.push(allow(own, None)?);
    }
    calls.push(allow(
        "clone",
        // None of them.
        Some(masked(clone_flags(), NEW_NAMESPACES, 0)?),
    )?);
    // Its flags are in memory, where a filter cannot look; C libraries fall back to `clone`.
    calls.push(refuse("clone3", ENOSYS)?);
    let elsewhere = compare(0, AF_VSOCK, LinuxSeccompOperator::ScmpCmpNe)?;
    calls.push(allow("socket", Some(elsewhere))?);
    for value in PERSONALITIES {
        let equal = compare(0, value, LinuxSeccompOperator::ScmpCmpEq)?;
        calls.push(allow("personality", Some(equal))?);
    }
    if spec.capabilities.contains(&Capability::SysChroot) {
        calls.push(allow("chroot", None)?);
    }
    if spec.capabilities.contains(&Capability::SysNice) {
        calls.push(allow("mbind set_mempolicy", None)?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures)
        .syscalls(calls)
        .build()
}

/// The machine's own way of numbering calls and those of its smaller relatives, and the calls only it has.
fn machine() -> (Vec<Arch>, &'static str) {
    if cfg!(target_arch = "x86_64") {
        let known = vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
        (known, X86)
    } else if cfg!(target_arch = "aarch64") {
        (vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm], ARM)
    } else if cfg!(target_arch = "arm") {
        (vec![Arch::ScmpArchArm], ARM)
    } else {
        (vec![Arch::ScmpArchNative], "")
    }
}

/// Which argument of clone(2) has its flags.
const fn clone_flags() -> usize {
    if cfg!(target_arch = "s390x") { 1 } else { 0 }
}

fn allow(names: &str, argument: Option<LinuxSeccompArg>) -> Result<LinuxSyscall, OciSpecError> {
    let call = LinuxSyscallBuilder::default()
        .names(words(names))
        .action(LinuxSeccompAction::ScmpActAllow);
    match argument {
        Some(argument) => call.args(vec![argument]).build(),
        None => call.build(),
    }
}

fn refuse(names: &str, error: u32) -> Result<LinuxSyscall, OciSpecError> {
    LinuxSyscallBuilder::default()
        .names(words(names))
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(error)
        .build()
}

fn words(names: &str) -> Vec<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

fn compare(
    index: usize,
    value: u64,
    op: LinuxSeccompOperator,
) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(op)
        .build()
}

/// The bits in `mask` are those of `value`.
fn masked(index: usize, mask: u64, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(mask)
        .value_two(value)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names() -> BTreeSet<&'static str> {
        [FILES, MEMORY, PROCESSES, EVENTS, MESSAGES, ASYNC, ARM, X86]
            .into_iter()
            .flat_map(str::split_whitespace)
            .collect()
    }

    #[test]
    fn no_call_that_changes_the_node_is_on_the_list() {
        let names = names();
        for dangerous in "acct add_key bpf chroot clock_settime delete_module finit_module fsopen init_module \
            io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr \
            move_mount open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_vm_readv \
            process_vm_writev ptrace quotactl reboot request_key setdomainname sethostname setns settimeofday \
            stime swapoff swapon syslog umount umount2 unshare userfaultfd uselib vhangup clone clone3 socket \
            personality ioctl file_setattr"
            .split_whitespace()
        {
            assert!(!names.contains(dangerous), "{dangerous}");
        }
        for needed in [
            "execve",
            "mmap",
            "futex",
            "rseq",
            "openat",
            "connect",
            "epoll_wait",
        ] {
            assert!(names.contains(needed), "{needed}");
        }
    }
}
