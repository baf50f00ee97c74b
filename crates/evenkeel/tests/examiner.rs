//! The crash examiner at work: random writers on the mount, one fault of each kind at a random
//! moment, and the judgement of what is left by what had returned. A seed says which fault, when,
//! and which operations. How each judgement is made is in `lab::examiner`.
//!
//! `EVENKEEL_SEEDS=100` runs more seeds, from `EVENKEEL_FIRST` on; `EVENKEEL_SEED=17` runs one.

#![allow(clippy::print_stdout, reason = "the soak reads the figures")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod examiner_support;
mod support;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::examiner_support::{Mode, Round, kind};
use self::support::Cluster;
use self::support::applications::ledger;

/// Seeds in one run of each mode; more of them are a soak.
const SEEDS: u64 = 5;

#[test]
fn what_has_returned_survives_every_fault_in_write_mode() {
    run(Mode::Write);
}

#[test]
fn what_was_synced_survives_every_fault_in_fsync_mode() {
    run(Mode::Fsync);
}

#[test]
fn a_tampered_replica_is_noticed() {
    let cluster = Cluster::protected(ledger(""));
    let round = Round::start(&cluster, 0, Mode::Write);
    round.let_work();
    round.stop_writers();
    assert_eq!(round.findings(cluster.primary()), [""; 0]);
    assert_eq!(round.unequal(), [""; 0]);
    let secondary = support::other(cluster.primary());
    let what = round.tamper(secondary);
    let findings = round.findings(secondary);
    assert!(!findings.is_empty(), "{what} of the secondary's copy went unnoticed by the model");
    let unequal = round.unequal();
    assert!(!unequal.is_empty(), "{what} of the secondary's copy went unnoticed by the comparison");
}

/// Runs the seeds that are asked for, each on the cluster as the one before has left it, or on a
/// new one after a failure.
fn run(mode: Mode) {
    let (first, count) = match number("EVENKEEL_SEED") {
        Some(seed) => (seed, 1),
        None => {
            let first = number("EVENKEEL_FIRST").unwrap_or(mode.first_seed(SEEDS));
            (first, number("EVENKEEL_SEEDS").unwrap_or(SEEDS))
        }
    };
    // Every other pass is made with encrypted links.
    let application = || match first / SEEDS % 2 {
        0 => ledger(mode.configuration()),
        _ => ledger(mode.configuration()).with_keys(),
    };
    let build = || Cluster::protected(application());
    let mut cluster = None;
    let mut failed = Vec::new();
    for seed in first..first + count {
        // A cluster that a failure ends tells all about itself.
        let round = catch_unwind(AssertUnwindSafe(|| {
            let whole = cluster.take().unwrap_or_else(build);
            Round::start(&whole, seed, mode).run();
            cluster = Some(whole);
        }));
        if round.is_err() {
            println!("SOAK {{\"kind\": \"{}\", \"failed\": 1}}", kind(seed, mode));
            failed.push(seed);
        }
    }
    if let Some(cluster) = cluster {
        cluster.stop_and_compare();
    }
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}
