//! The keeper alone, for this crate's tests: `sm-keeper keeper --socket PATH --state-dir DIR`.

fn main() -> std::process::ExitCode {
    aos_runtime::keeper::run(std::env::args_os().skip(2))
}
