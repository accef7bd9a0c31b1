//! A service that keeps something: it counts seconds in its storage and in its state.
//!
//! `/storage/count` is private to the instance and is cleared with it. `/state.dat` is its state: it survives updates of
//! the service and can follow a Subject to another Unit. Both hold the number as text. After every start it goes on from
//! where it was.

mod stop;

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    thread,
    time::Duration,
};

const STORAGE: &str = "/storage/count";
const STATE: &str = "/state.dat";

fn main() -> io::Result<()> {
    stop::on_sigterm();
    let version = env::var("APP_VERSION").unwrap_or_else(|_| "?".to_owned());
    let mut count = read(STORAGE).max(read(STATE));
    println!("counter {version} goes on from {count}");
    loop {
        count += 1;
        replace(STORAGE, count)?;
        // The state is one mounted file, so it is written in place.
        fs::write(STATE, format!("{count}\n"))?;
        if count.is_multiple_of(60) {
            println!("counted to {count}");
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn read(path: &str) -> u64 {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Writes so that a sudden end leaves either the old number or the new one.
fn replace(path: &str, count: u64) -> io::Result<()> {
    let next = format!("{path}.next");
    let mut file = File::create(&next)?;
    writeln!(file, "{count}")?;
    file.sync_data()?;
    fs::rename(next, path)
}
