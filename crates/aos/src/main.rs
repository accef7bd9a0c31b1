//! The `aos` program.
fn main() {}
