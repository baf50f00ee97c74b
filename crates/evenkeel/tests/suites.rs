//! Test suites of others on a replicated directory, with the peer attached: what they find is what
//! they find natively, and both copies are equal afterwards.
//!
//! The suites are the scripts of `tests/soak/suites`. CI runs one of them; in a soak, which sets
//! `EVENKEEL_ROUNDS`, all are run. `EVENKEEL_SUITE=fsx` runs one.

#![allow(clippy::print_stdout, reason = "the soak reads the figures")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::support::applications::ledger;
use self::support::{Cluster, SYNC_PATIENCE};

/// What CI runs: it takes seconds, and its program is a package.
const FIRST: &str = "fio";
/// Where a node finds this repository, as the machine's own folders may be hidden from it.
const REPOSITORY: &str = "/srv/repository";
/// Cases that may fail natively: pjdfstest has some that compare times of change which may lie
/// within one tick of the kernel's clock.
const NATIVELY_MAX: usize = 3;
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
    let name = &suite.name;
    let host = cluster.host(node);
    host.write_file("/srv/suite.sh", fs::read(&suite.script).unwrap()).unwrap();
    // Where cargo installs programs.
    let programs = Path::new(&env::var("HOME").unwrap_or_default()).join(".cargo/bin");
    let script = format!(
        "mkdir -p {at}/{name}/work && cd {at}/{name}/work && ELSEWHERE=/tmp \
         REPOSITORY={REPOSITORY} PATH=\"$PATH:{}\" exec timeout {SECONDS_MAX} bash -eu \
         /srv/suite.sh",
        programs.display(),
    );
    let output = host.run(["sh", "-c", &script]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} in {at}: {}: {said} {complaints}", output.status);
    let failed = said.lines().filter_map(|line| line.strip_prefix("FAILED ")).map(str::to_owned);
    (failed.collect(), said.lines().last().unwrap_or_default().to_owned())
}

/// Puts a copy of this repository onto a node.
fn give_repository(cluster: &Cluster, node: &str) {
    let between = Path::new(env!("CARGO_TARGET_TMPDIR")).join("repository");
    let _ = fs::remove_dir_all(&between);
    let run = |program: &str, words: &[&std::ffi::OsStr]| {
        let done = Command::new(program).args(words).status().unwrap();
        assert!(done.success(), "{program} {words:?}");
    };
    let (here, quiet, bare) = (repository(), "--quiet".as_ref(), "--bare".as_ref());
    run("git", &["clone".as_ref(), quiet, bare, here.as_ref(), between.as_ref()]);
    let there = cluster.host(node).path(REPOSITORY).unwrap();
    run("cp", &["-r".as_ref(), between.as_ref(), there.as_ref()]);
    fs::remove_dir_all(&between).unwrap();
}

#[test]
fn suites_find_what_they_find_natively_and_both_copies_are_equal() {
    for suite in suites() {
        let cluster = Cluster::protected(ledger(""));
        let primary = cluster.primary();
        if suite.name == "git" {
            give_repository(&cluster, primary);
        }
        // The same disk, beside what is replicated.
        let (expected, native) = play(&cluster, primary, &suite, "/srv/native");
        assert!(expected.len() <= NATIVELY_MAX, "{} fails natively: {expected:?}", suite.name);
        let (failed, last) = play(&cluster, primary, &suite, "/srv/ledger/suites");
        let name = &suite.name;
        println!("{name}: natively `{native}`, replicated `{last}`");
        cluster.wait_for(primary, "protected", SYNC_PATIENCE);
        let failed: BTreeSet<&String> = failed.difference(&expected).collect();
        println!(
            "SOAK {{\"kind\": \"{name}\", \"rounds\": 1, \"failed_only_here\": {}, \
             \"failed_natively\": {}}}",
            failed.len(),
            expected.len()
        );
        assert!(failed.is_empty(), "{name}: these fail on the replicated directory: {failed:?}");
        cluster.stop_and_compare();
    }
}
