use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use aos_time::{Clock, SystemClock};
use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, umask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::{
    event::{Timespec, epoll},
    fs::{FlockOperation, flock},
    process as rprocess,
};

use super::{
    Answer, ExitRecord, Kept, LogPolicy, Message, Order, Request, StartOrder, VERSION,
    frame::{self, MAX_MESSAGE, MAX_ORDER},
    journal::Journal,
    launch,
    output::{self, Log, STREAMS},
    process,
};
use crate::ExitCause;

/// Callers at the same time.
const MAX_CLIENTS: usize = 8;
/// Ended children whose number did not mean anything yet when they were reaped.
const MAX_STRAYS: usize = 64;
/// Longest time an order may ask for.
const MAX_DEADLINE: Duration = Duration::from_secs(600);

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const CLIENT: u64 = 1 << 60;
const PROCESS: u64 = 2 << 60;
const OUTPUT: u64 = 3 << 60;
const KIND: u64 = 7 << 60;

/// Where a keeper works.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The socket it listens on.
    pub socket: PathBuf,
    /// The folder of its journal, its lock and the containers' logs.
    pub state_dir: PathBuf,
    /// Without containers and callers it ends after this long; whoever needs one starts it.
    pub idle: Duration,
}

impl ServeOptions {
    /// Long enough for an SM to be exchanged.
    pub const IDLE: Duration = Duration::from_secs(60);
}

/// Why a keeper cannot start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another one is there.
    #[error("another keeper already works in {state_dir}")]
    Taken {
        /// The folder of both.
        state_dir: PathBuf,
    },
    /// Setting up failed.
    #[error("the keeper cannot {what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

trait What<T> {
    fn what(self, what: &'static str) -> Result<T, ServeError>;
}

impl<T, E: Into<io::Error>> What<T> for Result<T, E> {
    fn what(self, what: &'static str) -> Result<T, ServeError> {
        self.map_err(|source| ServeError::System {
            what,
            source: source.into(),
        })
    }
}

/// Runs a keeper until it is told to stop. Call it in a process with one thread; `ready` is called once it listens.
pub fn serve(options: &ServeOptions, ready: impl FnOnce()) -> Result<(), ServeError> {
    umask(Mode::from_bits_truncate(0o077));
    let logs = options.state_dir.join("logs");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&logs)
        .what("make its state folder")?;
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(options.state_dir.join("keeper.lock"))
        .what("open its lock file")?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(ServeError::Taken {
                state_dir: options.state_dir.clone(),
            });
        }
        Err(error) => return Err(error).what("lock its state folder"),
    }
    prctl::set_child_subreaper(true).what("become the parent of orphans")?;
    let mut keeper = Keeper::new(options, logs)?;
    ready();
    keeper.run()?;
    let _ = fs::remove_file(&options.socket);
    drop(lock);
    Ok(())
}

struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: VecDeque<u8>,
    greeted: bool,
}

struct Instance {
    kept: Kept,
    handle: OwnedFd,
    pipes: [Option<File>; 2],
    log: Log,
}

struct Starting {
    /// Held from before the container begins: a FIFO forgets what is in it when nobody has it open, and a short-lived
    /// container may be gone before the OCI runtime returns.
    _output: Vec<File>,
    child: Child,
    order: StartOrder,
    client: u64,
    re: u64,
    deadline: Instant,
    killed: bool,
}

struct Keeper {
    epoll: OwnedFd,
    signals: SignalFd,
    listener: UnixListener,
    logs: PathBuf,
    journal: Journal,
    next: u64,
    clients: BTreeMap<u64, Client>,
    starting: BTreeMap<u32, Starting>,
    instances: BTreeMap<u64, Instance>,
    strays: VecDeque<(u32, ExitCause)>,
    buffer: Box<[u8]>,
    /// Since when there is nothing to keep and nobody to answer.
    idle: Option<Instant>,
    most_idle: Duration,
    stop: bool,
}

impl Keeper {
    fn new(options: &ServeOptions, logs: PathBuf) -> Result<Self, ServeError> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.add(Signal::SIGTERM);
        // A terminal or a service manager that goes away must not take the keeper with it.
        mask.add(Signal::SIGHUP);
        mask.add(Signal::SIGINT);
        mask.add(Signal::SIGPIPE);
        mask.thread_block().what("block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .what("watch signals")?;
        let journal = Journal::open(&options.state_dir).what("open its journal of exits")?;
        if let Some(folder) = options.socket.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .what("make the folder of its socket")?;
        }
        // We hold the lock, so whoever made this socket is dead.
        match fs::remove_file(&options.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).what("remove the socket of a dead keeper");
            }
            _ => {}
        }
        let listener = UnixListener::bind(&options.socket).what("listen on its socket")?;
        fs::set_permissions(&options.socket, fs::Permissions::from_mode(0o600))
            .what("protect its socket")?;
        listener
            .set_nonblocking(true)
            .what("listen on its socket")?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).what("wait for events")?;
        let keeper = Self {
            epoll,
            signals,
            listener,
            logs,
            journal,
            next: 1,
            clients: BTreeMap::new(),
            starting: BTreeMap::new(),
            instances: BTreeMap::new(),
            strays: VecDeque::new(),
            // As much as a pipe holds.
            buffer: vec![0; 64 << 10].into_boxed_slice(),
            idle: None,
            most_idle: options.idle,
            stop: false,
        };
        keeper
            .watch(&keeper.listener, LISTENER, epoll::EventFlags::IN)
            .what("watch its socket")?;
        keeper
            .watch(&keeper.signals, SIGNALS, epoll::EventFlags::IN)
            .what("watch signals")?;
        Ok(keeper)
    }

    fn watch(&self, source: impl AsFd, token: u64, flags: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            source,
            epoll::EventData::new_u64(token),
            flags,
        )?)
    }

    fn token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn run(&mut self) -> Result<(), ServeError> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(32);
        while !self.stop {
            let timeout = self.until_deadline();
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).what("wait for events"),
            }
            for event in &events {
                let token = event.data.u64();
                let number = token & !KIND;
                match token & KIND {
                    CLIENT => self.client_ready(number),
                    PROCESS => self.adopted_ended(number),
                    OUTPUT => self.output_ready(number),
                    _ if token == LISTENER => self.accept(),
                    _ => self.signalled(),
                }
            }
            self.kill_late();
            self.end_idle();
        }
        Ok(())
    }

    /// Exits that nobody has heard of yet are in the journal: the next keeper tells them.
    fn end_idle(&mut self) {
        let busy =
            !(self.clients.is_empty() && self.starting.is_empty() && self.instances.is_empty());
        if busy {
            self.idle = None;
        } else if self.idle.get_or_insert_with(Instant::now).elapsed() >= self.most_idle {
            self.stop = true;
        }
    }

    fn until_deadline(&self) -> Option<Timespec> {
        let nearest = self
            .starting
            .values()
            .filter(|starting| !starting.killed)
            .map(|starting| starting.deadline)
            .chain(self.idle.map(|since| since + self.most_idle))
            .min()?;
        // Rounded up, so that a wait does not end just before its deadline and spin.
        let wait = nearest.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec::try_from(wait).ok()
    }

    fn kill_late(&mut self) {
        let now = Instant::now();
        for starting in self.starting.values_mut() {
            if !starting.killed && starting.deadline <= now {
                starting.killed = true;
                let _ = starting.child.kill();
            }
        }
    }

    // --- signals and children ---------------------------------------------------------------------------------------

    fn signalled(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32) {
                self.stop = true;
            }
        }
        self.reap();
    }

    fn reap(&mut self) {
        loop {
            let (pid, cause) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ExitCause::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, ExitCause::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return,
                Ok(_) => continue,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            };
            let Ok(pid) = u32::try_from(pid.as_raw()) else {
                continue;
            };
            if let Some(starting) = self.starting.remove(&pid) {
                self.runtime_returned(starting, cause);
            } else if let Some(number) = self.number_of_pid(pid) {
                self.ended(number, cause);
            } else {
                if self.strays.len() == MAX_STRAYS {
                    self.strays.pop_front();
                }
                self.strays.push_back((pid, cause));
            }
        }
    }

    fn number_of_pid(&self, pid: u32) -> Option<u64> {
        self.instances
            .iter()
            .find(|(_, instance)| instance.kept.pid == pid)
            .map(|(number, _)| *number)
    }

    fn number_of(&self, id: &str) -> Option<u64> {
        self.instances
            .iter()
            .find(|(_, instance)| instance.kept.id == id)
            .map(|(number, _)| *number)
    }

    /// The OCI runtime ended: the container runs, or it does not.
    fn runtime_returned(&mut self, starting: Starting, cause: ExitCause) {
        let answer = if starting.killed {
            Answer::TooLate
        } else if cause != ExitCause::Code(0) {
            Answer::Failed { cause }
        } else {
            match self.take_in(&starting.order) {
                Ok(kept) => Answer::Running {
                    kept,
                    already: false,
                },
                Err(error) => Answer::Refused {
                    why: format!("the container was started but cannot be watched: {error}"),
                },
            }
        };
        let pid = match &answer {
            Answer::Running { kept, .. } => Some(kept.pid),
            _ => None,
        };
        self.answer(starting.client, starting.re, answer);
        if let Some(number) = pid.and_then(|pid| self.number_of_pid(pid)) {
            self.end_if_gone(number);
        }
    }

    /// A container may end before we know that it is ours: we reaped it as a stranger, or the OCI runtime did.
    fn end_if_gone(&mut self, number: u64) {
        let Some(pid) = self
            .instances
            .get(&number)
            .map(|instance| instance.kept.pid)
        else {
            return;
        };
        let stray = self.strays.iter().position(|(stray, _)| *stray == pid);
        if let Some((_, cause)) = stray.and_then(|at| self.strays.remove(at)) {
            self.ended(number, cause);
        } else if process::facts(pid).is_none() {
            self.ended(number, ExitCause::Unknown);
        }
    }

    fn take_in(&mut self, order: &StartOrder) -> io::Result<Kept> {
        let pid = read_pid(&order.pid_file)?;
        let kept = Kept {
            id: order.id.clone(),
            pid,
            started: process::start_time(pid).unwrap_or(0),
            child: true,
        };
        // One that was reaped already has no handle any more; ours stands in until its end is recorded, in a moment.
        let handle = process::open(pid).or_else(|_| process::open(std::process::id()))?;
        self.keep(kept.clone(), handle, &order.bundle, order.log)?;
        Ok(kept)
    }

    fn keep(
        &mut self,
        kept: Kept,
        handle: OwnedFd,
        bundle: &Path,
        policy: LogPolicy,
    ) -> io::Result<()> {
        let number = self.token();
        let mut pipes = [None, None];
        for ((stream, name), pipe) in (0_u64..).zip(STREAMS).zip(&mut pipes) {
            let end = output::keeper_end(bundle, name)?;
            self.watch(&end, OUTPUT | (number << 1) | stream, epoll::EventFlags::IN)?;
            *pipe = Some(end);
        }
        if !kept.child {
            self.watch(&handle, PROCESS | number, epoll::EventFlags::IN)?;
        }
        let log = Log::new(&self.logs, &kept.id, policy);
        self.instances.insert(
            number,
            Instance {
                kept,
                handle,
                pipes,
                log,
            },
        );
        Ok(())
    }

    fn adopted_ended(&mut self, number: u64) {
        self.ended(number, ExitCause::Unknown);
    }

    fn ended(&mut self, number: u64, cause: ExitCause) {
        let Some(mut instance) = self.instances.remove(&number) else {
            return;
        };
        for (pipe, stream) in instance.pipes.iter().zip(STREAMS) {
            if let Some(pipe) = pipe {
                while let Ok(true) = instance.log.take(stream, pipe, &mut self.buffer) {}
            }
        }
        let exit = ExitRecord {
            seq: 0,
            id: instance.kept.id,
            pid: instance.kept.pid,
            cause,
            at: SystemClock.now(),
        };
        let told = match self.journal.record(exit.clone()) {
            Ok(exit) => exit,
            Err(error) => {
                complain(&format!("an exit cannot be stored: {error}"));
                // Still in memory under its number; a caller that is here must learn of it.
                match self.journal.of(&exit.id).last() {
                    Some(&seq) => ExitRecord { seq, ..exit },
                    None => exit,
                }
            }
        };
        let greeted: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| client.greeted)
            .map(|(number, _)| *number)
            .collect();
        for client in greeted {
            self.send(client, &Message::Exit(told.clone()));
        }
    }

    fn output_ready(&mut self, token: u64) {
        let (number, stream) = (token >> 1, usize::from(token & 1 == 1));
        let Some(instance) = self.instances.get_mut(&number) else {
            return;
        };
        if let (Some(Some(pipe)), Some(name)) = (instance.pipes.get(stream), STREAMS.get(stream))
            && let Err(error) = instance.log.take(name, pipe, &mut self.buffer)
        {
            complain(&format!("output of {} is lost: {error}", instance.kept.id));
            if let Some(pipe) = instance.pipes.get_mut(stream) {
                *pipe = None;
            }
        }
    }

    // --- callers ----------------------------------------------------------------------------------------------------

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            // Only our own user and root may give orders; the mode of the socket says the same.
            let own = rprocess::geteuid();
            let allowed = rustix::net::sockopt::socket_peercred(&stream)
                .is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
            if !allowed
                || self.clients.len() >= MAX_CLIENTS
                || stream.set_nonblocking(true).is_err()
            {
                continue;
            }
            let number = self.token();
            if self
                .watch(&stream, CLIENT | number, epoll::EventFlags::IN)
                .is_ok()
            {
                self.clients.insert(
                    number,
                    Client {
                        stream,
                        input: Vec::new(),
                        output: VecDeque::new(),
                        greeted: false,
                    },
                );
            }
        }
    }

    fn client_ready(&mut self, number: u64) {
        if !self.read_client(number) || !self.flush(number) {
            self.clients.remove(&number);
        }
    }

    /// Reads and carries out what has come; false if the caller has gone or is not one of us.
    fn read_client(&mut self, number: u64) -> bool {
        let mut requests = Vec::new();
        let mut open = true;
        {
            let Some(client) = self.clients.get_mut(&number) else {
                return false;
            };
            loop {
                match client.stream.read(&mut self.buffer) {
                    Ok(0) => {
                        open = false;
                        break;
                    }
                    Ok(count) => {
                        client
                            .input
                            .extend_from_slice(self.buffer.get(..count).unwrap_or_default());
                        loop {
                            match frame::take::<Request>(&mut client.input, MAX_ORDER) {
                                Ok(Some(request)) => requests.push(request),
                                Ok(None) => break,
                                Err(error) => {
                                    complain(&format!("a caller is dropped: {error}"));
                                    return false;
                                }
                            }
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => {
                        open = false;
                        break;
                    }
                }
            }
            if client.input.is_empty() {
                client.input.shrink_to(4 << 10);
            }
        }
        for request in requests {
            self.carry_out(number, request);
        }
        open
    }

    fn flush(&mut self, number: u64) -> bool {
        let Some(client) = self.clients.get_mut(&number) else {
            return false;
        };
        while !client.output.is_empty() {
            let (front, _) = client.output.as_slices();
            match client.stream.write(front) {
                Ok(0) => return false,
                Ok(count) => {
                    client.output.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if client.output.is_empty() {
            client.output.shrink_to(4 << 10);
        }
        let mut flags = epoll::EventFlags::IN;
        if !client.output.is_empty() {
            flags |= epoll::EventFlags::OUT;
        }
        epoll::modify(
            &self.epoll,
            &client.stream,
            epoll::EventData::new_u64(CLIENT | number),
            flags,
        )
        .is_ok()
    }

    fn send(&mut self, number: u64, message: &Message) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let mut bytes = Vec::new();
        let good = frame::push(&mut bytes, message).is_ok()
            && client.output.len() + bytes.len() <= MAX_MESSAGE;
        client.output.extend(bytes);
        if !good || !self.flush(number) {
            self.clients.remove(&number);
        }
    }

    fn answer(&mut self, client: u64, re: u64, answer: Answer) {
        self.send(client, &Message::Answer { re, answer });
    }

    // --- orders -----------------------------------------------------------------------------------------------------

    fn carry_out(&mut self, client: u64, request: Request) {
        let Request { re, order } = request;
        let answer = match order {
            Order::Hello { version: _ } => {
                self.answer(
                    client,
                    re,
                    Answer::Hello {
                        version: VERSION,
                        pid: std::process::id(),
                    },
                );
                if let Some(client) = self.clients.get_mut(&client) {
                    client.greeted = true;
                }
                let pending: Vec<ExitRecord> = self.journal.since(0).cloned().collect();
                for exit in pending {
                    self.send(client, &Message::Exit(exit));
                }
                return;
            }
            Order::Start(order) => match self.start(client, re, order) {
                Some(answer) => answer,
                None => return,
            },
            Order::Adopt {
                id,
                pid,
                started,
                bundle,
                log,
            } => self.adopt(id, pid, started, &bundle, log),
            Order::Signal { id, signal } => self.signal(&id, signal),
            Order::List => Answer::List {
                kept: self
                    .instances
                    .values()
                    .map(|instance| instance.kept.clone())
                    .collect(),
            },
            Order::Exits { since } => Answer::Exits {
                exits: self.journal.since(since).cloned().collect(),
            },
            Order::Ack { seqs } => done(self.journal.acknowledge(&seqs)),
            Order::Forget { id, logs } => {
                if check_id(&id).is_err() {
                    refused("the id is not a plain name")
                } else {
                    if logs && self.number_of(&id).is_none() {
                        output::remove_logs(&self.logs, &id);
                    }
                    let seqs = self.journal.of(&id);
                    done(self.journal.acknowledge(&seqs))
                }
            }
            Order::StopKeeper => {
                self.stop = true;
                Answer::Done
            }
        };
        self.answer(client, re, answer);
    }

    fn start(&mut self, client: u64, re: u64, order: StartOrder) -> Option<Answer> {
        if let Err(why) = check_id(&order.id) {
            return Some(refused(why));
        }
        if let Some(instance) = self
            .number_of(&order.id)
            .and_then(|number| self.instances.get(&number))
        {
            return Some(Answer::Running {
                kept: instance.kept.clone(),
                already: true,
            });
        }
        if self
            .starting
            .values()
            .any(|starting| starting.order.id == order.id)
        {
            return Some(refused("it is being started"));
        }
        let mut output = Vec::new();
        let child = STREAMS
            .iter()
            .map(|name| {
                let end = output::container_end(&order.bundle, name)?;
                output.push(output::keeper_end(&order.bundle, name)?);
                Ok(end)
            })
            .collect::<io::Result<Vec<_>>>()
            .and_then(|ends| {
                let _ = fs::remove_file(&order.pid_file);
                let mut ends = ends.into_iter();
                match (ends.next(), ends.next()) {
                    (Some(stdout), Some(stderr)) => {
                        launch::spawn(&order.argv, &order.hide, stdout, stderr)
                    }
                    _ => Err(io::ErrorKind::InvalidData.into()),
                }
            });
        match child {
            Err(error) => Some(Answer::Refused {
                why: format!(
                    "`{}` cannot be run: {error}",
                    order.argv.first().map_or("", String::as_str)
                ),
            }),
            Ok(child) => {
                let wait = Duration::from_millis(order.deadline_ms).min(MAX_DEADLINE);
                // An old stray of the same number has nothing to do with the new process.
                self.strays.retain(|(pid, _)| *pid != child.id());
                self.starting.insert(
                    child.id(),
                    Starting {
                        _output: output,
                        child,
                        order,
                        client,
                        re,
                        deadline: Instant::now() + wait,
                        killed: false,
                    },
                );
                None
            }
        }
    }

    fn adopt(
        &mut self,
        id: String,
        pid: u32,
        started: u64,
        bundle: &Path,
        log: LogPolicy,
    ) -> Answer {
        if let Err(why) = check_id(&id) {
            return refused(why);
        }
        if let Some(instance) = self
            .number_of(&id)
            .and_then(|number| self.instances.get(&number))
        {
            return if instance.kept.pid == pid {
                Answer::Running {
                    kept: instance.kept.clone(),
                    already: true,
                }
            } else {
                refused("another process of that id is kept")
            };
        }
        // First the handle, then the look: whoever has the handle knows whose facts they are.
        let Ok(handle) = process::open(pid) else {
            return Answer::Gone;
        };
        let Some(facts) = process::facts(pid)
            .filter(|facts| !facts.zombie && (started == 0 || facts.started == started))
        else {
            return Answer::Gone;
        };
        let kept = Kept {
            id,
            pid,
            started: facts.started,
            child: facts.parent == std::process::id(),
        };
        match self.keep(kept.clone(), handle, bundle, log) {
            Ok(()) => Answer::Running {
                kept,
                already: false,
            },
            Err(error) => Answer::Refused {
                why: format!("its output cannot be opened: {error}"),
            },
        }
    }

    fn signal(&self, id: &str, signal: i32) -> Answer {
        let Some(instance) = self
            .number_of(id)
            .and_then(|number| self.instances.get(&number))
        else {
            return Answer::Gone;
        };
        let Some(signal) = rprocess::Signal::from_named_raw(signal) else {
            return refused("there is no such signal");
        };
        match rprocess::pidfd_send_signal(&instance.handle, signal) {
            Ok(()) => Answer::Done,
            Err(rustix::io::Errno::SRCH) => Answer::Gone,
            Err(error) => Answer::Refused {
                why: format!("the signal cannot be sent: {error}"),
            },
        }
    }
}

fn refused(why: &str) -> Answer {
    Answer::Refused { why: why.into() }
}

fn done(result: io::Result<()>) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Refused {
            why: format!("the journal cannot be written: {error}"),
        },
    }
}

/// An id becomes a file name.
fn check_id(id: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !id.is_empty() && id.len() <= 128 && id.chars().all(plain) {
        Ok(())
    } else {
        Err("the id is not a plain name")
    }
}

fn read_pid(path: &Path) -> io::Result<u32> {
    let mut text = String::new();
    File::open(path)?.take(32).read_to_string(&mut text)?;
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} holds no process number", path.display()),
        )
    })
}

/// A line in the keeper's own log: its standard error.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{} {text}", SystemClock.now());
}
