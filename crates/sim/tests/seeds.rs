//! The simulator itself: it repeats itself exactly, it runs clean, and it notices a planted bug.
#![allow(clippy::panic, reason = "tests may fail loudly")]

use aos_sim::{Mutation, run};

#[test]
fn the_same_seed_is_the_same_run() {
    let (one, other) = (run(7, None, true), run(7, None, true));
    assert!(one.trace.len() > 100, "a month has more than that");
    assert_eq!(one.trace, other.trace);
    // Without a trace it is the same run too.
    assert_eq!(run(7, None, false).coverage.text(), one.coverage.text());
}

#[test]
fn some_seeds_keep_every_promise() {
    for seed in 1..=12 {
        if let Some(broken) = run(seed, None, false).broken {
            panic!("seed {seed}: {broken}");
        }
    }
}

#[test]
fn a_planted_bug_is_noticed() {
    let found = (1..=50).any(|seed| {
        run(seed, Some(Mutation::StoreAfterSwitch), false)
            .broken
            .is_some()
    });
    assert!(found, "a Node that stores its list too late must be found");
}
