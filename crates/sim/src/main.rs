//! The program `aos-sim`; `cargo xtask sim` builds and runs it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program talks to its terminal"
)]

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aos_sim::{Broken, Coverage, Mutation, run};

/// From so many runs on, something that never happened is a failure.
const ENOUGH: u64 = 2000;

struct Options {
    seeds: u64,
    seed: Option<u64>,
    first: u64,
    threads: usize,
    mutation: Option<Mutation>,
    mutations: bool,
    /// Only say what the deliberate bugs are called.
    names: bool,
    sample: usize,
    limit: u64,
    /// Stop after so long, whatever is left.
    seconds: Option<u64>,
}

fn main() -> ExitCode {
    match options() {
        Ok(options) => go(&options),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seeds: 1000,
        seed: None,
        first: 1,
        threads: thread::available_parallelism()
            .map_or(2, usize::from)
            .min(2),
        mutation: None,
        mutations: false,
        names: false,
        sample: usize::MAX,
        limit: 2000,
        seconds: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
        let number = |text: String| {
            text.parse::<u64>()
                .map_err(|error| format!("`{text}` is no number: {error}"))
        };
        match name.as_str() {
            "--seeds" => options.seeds = number(value()?)?,
            "--seed" => options.seed = Some(number(value()?)?),
            "--first" => options.first = number(value()?)?,
            "--threads" => options.threads = number(value()?)? as usize,
            "--limit" => options.limit = number(value()?)?,
            "--seconds" => options.seconds = Some(number(value()?)?),
            "--sample" => options.sample = number(value()?)? as usize,
            "--mutations" => options.mutations = true,
            "--names" => options.names = true,
            "--mutation" => {
                let name = value()?;
                let found = Mutation::ALL.iter().find(|(_, one)| *one == name);
                let (mutation, _) = found.ok_or(format!("there is no mutation `{name}`"))?;
                options.mutation = Some(*mutation);
            }
            other => return Err(format!("unknown argument `{other}`")),
        }
    }
    Ok(options)
}

fn go(options: &Options) -> ExitCode {
    if options.names {
        for (_, name) in Mutation::ALL {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = options.seed {
        return replay(seed, options.mutation);
    }
    if options.mutations {
        return mutations(options);
    }
    let begin = Instant::now();
    let until = options.until();
    let search = search(options, options.mutation, options.seeds, until);
    println!("{}", search.coverage.text());
    println!(
        "{} seeds from {} in {:.1} s on {} threads",
        search.coverage.runs,
        options.first,
        begin.elapsed().as_secs_f64(),
        options.threads
    );
    if let Some((seed, broken)) = search.broken {
        println!("seed {seed}: {broken}");
        println!("see it happen: cargo xtask sim --seed {seed}");
        return ExitCode::FAILURE;
    }
    let zeros = search.coverage.zeros();
    if search.coverage.runs >= ENOUGH && !zeros.is_empty() {
        println!("never met in {} runs:", search.coverage.runs);
        for zero in zeros {
            println!("  {zero}");
        }
        return ExitCode::FAILURE;
    }
    println!("every promise held");
    ExitCode::SUCCESS
}

fn replay(seed: u64, mutation: Option<Mutation>) -> ExitCode {
    let outcome = run(seed, mutation, true);
    for line in &outcome.trace {
        println!("{line}");
    }
    match outcome.broken {
        Some(broken) => {
            println!("seed {seed}: {broken}");
            ExitCode::FAILURE
        }
        None => {
            println!("seed {seed}: every promise held");
            ExitCode::SUCCESS
        }
    }
}

struct Search {
    coverage: Coverage,
    broken: Option<(u64, Broken)>,
}

impl Options {
    fn until(&self) -> Option<Instant> {
        self.seconds
            .map(|seconds| Instant::now() + Duration::from_secs(seconds))
    }
}

/// Runs seeds until one fails, all are done, or the time is over.
fn search(
    options: &Options,
    mutation: Option<Mutation>,
    seeds: u64,
    until: Option<Instant>,
) -> Search {
    let over = || until.is_some_and(|until| Instant::now() >= until);
    let next = AtomicU64::new(options.first);
    let end = options.first + seeds;
    let stop = AtomicBool::new(false);
    let result = Mutex::new(Search {
        coverage: Coverage::default(),
        broken: None,
    });
    thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                let mut coverage = Coverage::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || over() {
                        break;
                    }
                    let outcome = run(seed, mutation, false);
                    coverage.add(&outcome.coverage);
                    if let Some(broken) = outcome.broken {
                        stop.store(true, Ordering::Relaxed);
                        let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
                        if result
                            .broken
                            .as_ref()
                            .is_none_or(|(other, _)| seed < *other)
                        {
                            result.broken = Some((seed, broken));
                        }
                    }
                }
                let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
                result.coverage.add(&coverage);
            });
        }
    });
    result.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn mutations(options: &Options) -> ExitCode {
    let begin = Instant::now();
    let until = options.until();
    let mut missed = Vec::new();
    // A sample is another one each time, as the first seed is.
    let shift = options.first as usize;
    let chosen = (0..Mutation::ALL.len().min(options.sample))
        .map(|n| Mutation::ALL[(n + shift) % Mutation::ALL.len()]);
    for (mutation, name) in chosen {
        let search = search(options, Some(mutation), options.limit, until);
        match search.broken {
            Some((seed, broken)) => println!(
                "{name:<32} found after {:>4} seeds (seed {seed}): {broken}",
                search.coverage.runs
            ),
            None if search.coverage.runs < options.limit => {
                println!(
                    "{name:<32} not found in {} seeds, then the time was over",
                    search.coverage.runs
                );
                break;
            }
            None => {
                println!("{name:<32} NOT FOUND in {} seeds", search.coverage.runs);
                missed.push(name);
            }
        }
    }
    println!("in {:.1} s", begin.elapsed().as_secs_f64());
    if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("not found: {}", missed.join(", "));
        ExitCode::FAILURE
    }
}
