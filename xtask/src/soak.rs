//! `cargo xtask soak NAME`: a test repeated until it has shown what only many rounds show.
//!
//! Each round is counted in `tests/soak/NAME.json` under its commit and machine as soon as it ends,
//! so that a soak can be stopped and taken up again at any time.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::run;

/// A test worth repeating. To add one, add a line to [`SOAKS`].
struct Soak {
    name: &'static str,
    /// Rounds that a commit should have before it is released.
    rounds: u64,
    /// One round: arguments of cargo. The environment variable `EVENKEEL_ROUNDS` is 1 meanwhile.
    cargo: &'static [&'static str],
}

const SOAKS: &[Soak] = &[Soak {
    name: "failover",
    rounds: 20,
    cargo: &["test", "-p", "evenkeel", "--test", "postgresql", "--", "--test-threads=1"],
}];

/// Runs rounds until the commit has enough on this machine, or `rounds` more of them.
///
/// # Errors
/// A round failed; it has been counted.
pub fn soak(root: &Path, name: &str, rounds: Option<u64>) -> Result<(), String> {
    let Some(soak) = SOAKS.iter().find(|soak| soak.name == name) else {
        let known: Vec<&str> = SOAKS.iter().map(|soak| soak.name).collect();
        return Err(format!("there is no soak `{name}`; there are: {}", known.join(", ")));
    };
    let here = Place { commit: commit(root)?, machine: machine(root)? };
    let path = root.join("tests/soak").join(format!("{name}.json"));
    let passed = read(&path)?.iter().find(|entry| here.is(entry)).map_or(0, |e| count(e, "passed"));
    let rounds = rounds.unwrap_or(soak.rounds.saturating_sub(passed));
    println!("soak {name}: {passed} rounds passed so far, {rounds} to run");
    for round in 1..=rounds {
        println!("\n== round {round} of {rounds}");
        let outcome = run::run(root, &[("EVENKEEL_ROUNDS", "1")], "cargo", soak.cargo);
        // Read anew each time, for another soak may have run meanwhile.
        let mut entries = read(&path)?;
        here.add(&mut entries, outcome.is_ok());
        write(&path, &entries)?;
        outcome?;
    }
    Ok(())
}

/// What counts are kept apart by.
struct Place {
    commit: String,
    machine: String,
}

impl Place {
    fn is(&self, entry: &Value) -> bool {
        entry["commit"] == self.commit.as_str() && entry["machine"] == self.machine.as_str()
    }

    fn add(&self, entries: &mut Vec<Value>, passed: bool) {
        let at = entries.iter().position(|entry| self.is(entry)).unwrap_or_else(|| {
            entries.push(json!({
                "commit": self.commit, "machine": self.machine, "passed": 0, "failed": 0,
            }));
            entries.len() - 1
        });
        let key = if passed { "passed" } else { "failed" };
        entries[at][key] = (count(&entries[at], key) + 1).into();
    }
}

fn count(entry: &Value, key: &str) -> u64 {
    entry[key].as_u64().unwrap_or(0)
}

/// The commit, marked when the tree differs from it.
fn commit(root: &Path) -> Result<String, String> {
    let commit = run::output(root, "git", &["rev-parse", "--short=12", "HEAD"])?;
    let status = run::output(root, "git", &["status", "--porcelain", "--", ".", ":!tests/soak"])?;
    let mark = if status.trim().is_empty() { "" } else { "+changes" };
    Ok(format!("{}{mark}", commit.trim()))
}

fn machine(root: &Path) -> Result<String, String> {
    let kernel = run::output(root, "uname", &["-nrm"])?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!("{}, {processors} processors", kernel.trim()))
}

fn read(path: &PathBuf) -> Result<Vec<Value>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| wrong(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(wrong(&error)),
    }
}

fn write(path: &Path, entries: &[Value]) -> Result<(), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", path.display());
    let text = serde_json::to_string_pretty(entries).map_err(|error| wrong(&error))?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| wrong(&error))?;
    }
    // A new file put in place at once: a soak that is stopped here keeps the old counts.
    let fresh = path.with_extension("json.new");
    fs::write(&fresh, format!("{text}\n"))
        .and_then(|()| fs::rename(&fresh, path))
        .map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_add_up_by_commit_and_machine() {
        let place = |commit: &str| Place { commit: commit.into(), machine: "m".into() };
        let mut entries = Vec::new();
        for (commit, passed) in [("a", true), ("b", true), ("a", false), ("a", true)] {
            place(commit).add(&mut entries, passed);
        }
        assert_eq!(
            entries,
            [
                json!({ "commit": "a", "machine": "m", "passed": 2, "failed": 1 }),
                json!({ "commit": "b", "machine": "m", "passed": 1, "failed": 0 }),
            ]
        );
    }
}
