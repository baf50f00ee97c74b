//! Test suites of others on a replicated directory, with the peer attached: what they find is what
//! they find natively, and both copies are equal afterwards.
//!
//! The suites are the scripts of `tests/soak/suites`. CI runs the first of them; in a soak, which
//! sets `EVENKEEL_ROUNDS`, all are run. `EVENKEEL_SUITE=fsx` runs one.

#![allow(clippy::print_stdout, reason = "the soak reads the figures")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use self::support::applications::ledger;
use self::support::{Cluster, SYNC_PATIENCE};

/// What CI runs: it needs nothing that a machine with this repository lacks.
const FIRST: &str = "git";
/// Longest time for a suite in one place, in seconds.
const SECONDS_MAX: &str = "1800";

/// A suite: its name and its script.
struct Suite {
    name: String,
    script: PathBuf,
}

fn repository() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

fn suites() -> Vec<Suite> {
    let all = fs::read_dir(repository().join("tests/soak/suites")).unwrap();
    let mut all: Vec<Suite> = all
        .map(|entry| entry.unwrap().path())
        .map(|script| Suite {
            name: script.file_stem().unwrap().to_str().unwrap().to_owned(),
            script,
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let wanted = match (env::var("EVENKEEL_SUITE"), env::var("EVENKEEL_ROUNDS")) {
        (Ok(name), _) => Some(name),
        (Err(_), Ok(_)) => None,
        (Err(_), Err(_)) => Some(FIRST.to_owned()),
    };
    all.retain(|suite| wanted.as_ref().is_none_or(|wanted| *wanted == suite.name));
    assert!(!all.is_empty(), "there is no suite {wanted:?}");
    all
}

/// Runs a suite in a directory of a node; the cases that it says have failed, and its last line.
fn play(cluster: &Cluster, node: &str, suite: &Suite, at: &str) -> (BTreeSet<String>, String) {
    let script = format!(
        "mkdir -p {at}/{name}/work && cd {at}/{name}/work && ELSEWHERE=/tmp REPOSITORY={} \
         PATH=\"$PATH:{}\" exec timeout {SECONDS_MAX} bash -eu {}",
        repository().display(),
        // Where cargo installs programs.
        Path::new(&env::var("HOME").unwrap_or_default()).join(".cargo/bin").display(),
        suite.script.display(),
        name = suite.name,
    );
    let output = cluster.host(node).run(["sh", "-c", &script]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    let name = &suite.name;
    assert!(output.status.success(), "{name} in {at}: {}: {said} {complaints}", output.status);
    let failed = said.lines().filter_map(|line| line.strip_prefix("FAILED ")).map(str::to_owned);
    (failed.collect(), said.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn suites_find_what_they_find_natively_and_both_copies_are_equal() {
    for suite in suites() {
        let cluster = Cluster::protected(ledger(""));
        let primary = cluster.primary();
        // The same disk, beside what is replicated.
        let (expected, native) = play(&cluster, primary, &suite, "/srv/native");
        assert!(expected.is_empty(), "{} fails natively: {expected:?}", suite.name);
        let (failed, last) = play(&cluster, primary, &suite, "/srv/ledger/suites");
        let name = &suite.name;
        println!("{name}: natively `{native}`, replicated `{last}`");
        cluster.wait_for(primary, "protected", SYNC_PATIENCE);
        println!(
            "SOAK {{\"kind\": \"{name}\", \"rounds\": 1, \"failed_only_here\": {}}}",
            failed.len()
        );
        assert!(failed.is_empty(), "{name}: these fail on the replicated directory: {failed:?}");
        cluster.stop_and_compare();
    }
}
