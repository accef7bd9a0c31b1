//! Verify-and-store throughput beside its floors: the same hash over the same file, and `dd conv=fsync` of the same size.
//!
//! `store_throughput [FOLDER] [MEGABYTES]` prints one JSON object: megabytes a second, the slower of the two floors, the
//! ratio, and by how much the memory of the process grew.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a program that prints a measurement, or fails loudly"
)]

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use aos_image::BlobStore;
use sha2::{Digest as _, Sha256};

const CHUNK: usize = 128 * 1024;
/// Each is measured so many times, in turn, so that other load meets all of them; the best counts.
const TURNS: usize = 5;

/// Bytes that are not all alike, without a file to read them from.
struct Noise {
    block: Vec<u8>,
    left: u64,
}

impl Noise {
    fn new(size: u64) -> Self {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let block = (0..CHUNK)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 56) as u8
            })
            .collect();
        Self { block, left: size }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.block.len()).min(self.left as usize);
        buffer[..count].copy_from_slice(&self.block[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}

fn store(folder: &Path, size: u64) -> Duration {
    let store = BlobStore::open(folder.join("store")).unwrap();
    let start = Instant::now();
    let stored = store.insert(Noise::new(size), None).unwrap();
    let took = start.elapsed();
    store.remove(&stored.digest).unwrap();
    took
}

fn hash(file: &Path) -> Duration {
    let start = Instant::now();
    let (mut file, mut buffer) = (File::open(file).unwrap(), vec![0; CHUNK]);
    let mut hash = Sha256::new();
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    assert_ne!(hash.finalize()[..], [0; 32]);
    start.elapsed()
}

fn dd(from: &Path, to: &Path) -> Duration {
    let start = Instant::now();
    let ended = Command::new("dd")
        .args(["bs=1M", "conv=fsync", "status=none"])
        .arg(format!("if={}", from.display()))
        .arg(format!("of={}", to.display()))
        .status()
        .expect("dd is there");
    assert!(ended.success());
    let took = start.elapsed();
    fs::remove_file(to).unwrap();
    took
}

/// Kilobytes of memory that are the process's own.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let megabytes: u64 = arguments.next().map_or(256, |text| text.parse().unwrap());
    let size = megabytes * 1_000_000;
    let folder = tempfile::tempdir_in(folder).unwrap();
    let file = folder.path().join("file");
    // A small one first: what the code itself needs is then in memory.
    store(folder.path(), 1_000_000);
    let before = memory();
    let mut best = [Duration::MAX; 3];
    for turn in 0..TURNS {
        best[0] = best[0].min(store(folder.path(), size));
        if turn == 0 {
            let grown = memory().saturating_sub(before);
            assert!(
                grown < 8192,
                "memory grew by {grown} kB with the size of the file"
            );
            let mut made = File::create(&file).unwrap();
            std::io::copy(&mut Noise::new(size), &mut made).unwrap();
            made.flush().unwrap();
            made.sync_all().unwrap();
        }
        best[1] = best[1].min(hash(&file));
        best[2] = best[2].min(dd(&file, &folder.path().join("copy")));
    }
    let rate = |took: Duration| size as f64 / 1e6 / took.as_secs_f64();
    let [value, hash, dd] = best.map(rate);
    let floor = hash.min(dd);
    println!(
        "{}",
        serde_json::json!({
            "name": "store.throughput",
            "value": value,
            "unit": "MB/s",
            "floor": floor,
            "ratio": value / floor,
            "hash": hash,
            "dd": dd,
        })
    );
}
