//! `cargo xtask soak NAME`: a test repeated until it has shown what only many rounds show.
//!
//! Each pass of the test is counted in `tests/soak/NAME.json` under its commit and machine as soon
//! as it ends, so that a soak can be stopped and taken up again at any time. For each kind of round
//! the test prints a line `SOAK {"kind": ..., "rounds": ..., ...}`, whose numbers are added up.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::run;

/// What the lines begin with that a test prints its figures in.
const MARK: &str = "SOAK ";
/// Rounds of each kind in one pass. Two, so that the node that took over is the next to fail.
const ROUNDS_OF_PASS: u64 = 2;

/// A test worth repeating. To add one, add a line to [`SOAKS`].
struct Soak {
    name: &'static str,
    /// Rounds of each kind that a commit should have before it is released.
    rounds: u64,
    /// One pass: arguments of cargo. `EVENKEEL_ROUNDS` is [`ROUNDS_OF_PASS`] meanwhile.
    cargo: &'static [&'static str],
    /// Seeds of one pass, if a seed says what a round does. They are `EVENKEEL_SEEDS` from
    /// `EVENKEEL_FIRST` on, and none is given twice, on whatever commit and machine.
    seeds: Option<u64>,
}

const FAILOVER: [&str; 7] = ["test", "-p", "evenkeel", "--test", "postgresql", "--", "--nocapture"];

const EXAMINER: [&str; 8] =
    ["test", "-p", "evenkeel", "--test", "examiner", "--", "--nocapture", "_mode"];

const BRAIN: [&str; 7] = ["test", "-p", "evenkeel", "--test", "brain_random", "--", "--nocapture"];

const REPLICATED: [&str; 7] = ["test", "-p", "evenkeel", "--test", "suites", "--", "--nocapture"];

const FARM: [&str; 7] = ["test", "-p", "net", "--test", "farm_random", "--", "--nocapture"];

const FARM_NODES: [&str; 7] =
    ["test", "-p", "evenkeel", "--test", "farm_random_nodes", "--", "--nocapture"];

const SCHEDULES: [&str; 6] = ["run", "--quiet", "--profile", "soak", "--package", "sim"];

const SOAKS: &[Soak] = &[
    // A million schedules for a release, in passes that each take some minutes.
    Soak { name: "sim", rounds: 50, cargo: &SCHEDULES, seeds: Some(20_000) },
    Soak { name: "failover", rounds: 20, cargo: &FAILOVER, seeds: None },
    // The suites of others, which are the same each time, with the peer attached.
    Soak { name: "replicated", rounds: 1, cargo: &REPLICATED, seeds: None },
    // Each seed is a sequence of faults of all kinds.
    Soak { name: "brain", rounds: 100, cargo: &BRAIN, seeds: Some(1) },
    // 50 changes in a pass: a thousand for a release.
    Soak { name: "farm", rounds: 20, cargo: &FARM, seeds: Some(5) },
    // The same of whole nodes, with all faults there are: ten changes in a pass.
    Soak { name: "farm-nodes", rounds: 100, cargo: &FARM_NODES, seeds: Some(1) },
    // One seed for each of 20 faults in a pass, in two modes: 560 rounds for a release.
    Soak { name: "examiner", rounds: 14, cargo: &EXAMINER, seeds: Some(20) },
];

/// Runs passes until the commit has enough rounds of each kind on this machine, or until there are
/// `rounds` more of each.
///
/// # Errors
/// A pass failed; it has been counted, with the rounds before its failure.
pub fn soak(root: &Path, name: &str, rounds: Option<u64>) -> Result<(), String> {
    let Some(soak) = SOAKS.iter().find(|soak| soak.name == name) else {
        let known: Vec<&str> = SOAKS.iter().map(|soak| soak.name).collect();
        return Err(format!("there is no soak `{name}`; there are: {}", known.join(", ")));
    };
    let here = Place::of(root)?;
    let path = counts(root, name);
    let so_far = read(&path)?.iter().find(|entry| here.is(entry)).map_or(0, least_rounds);
    let to_run = rounds.unwrap_or(soak.rounds.saturating_sub(so_far));
    println!("soak {name}: {so_far} rounds of each kind so far, {to_run} to run");
    let each = if soak.seeds.is_some() { 1 } else { ROUNDS_OF_PASS };
    for pass in 0..to_run.div_ceil(each) {
        println!("\n== rounds from {} of {to_run}", pass * each + 1);
        let mut figures = Vec::new();
        // Taken before they are run, so that soaks beside each other run others.
        let first = change(&path, |entries| {
            let first = next_seed(entries);
            if let Some(seeds) = soak.seeds {
                here.entry(entries)["next_seed"] = (first + seeds).into();
            }
            first
        })?;
        let environment = environment(soak, first);
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let outcome = run::lines(root, &environment, "cargo", soak.cargo, &mut |line| {
            figures.extend(parse(line));
        });
        change(&path, |entries| here.add(entries, &figures, outcome.is_ok()))?;
        outcome?;
    }
    Ok(())
}

/// Sum of one figure of one kind, for the commit and machine at hand.
///
/// # Errors
/// The counts cannot be read.
pub fn so_far(root: &Path, name: &str, kind: &str, figure: &str) -> Result<u64, String> {
    let here = Place::of(root)?;
    let entries = read(&counts(root, name))?;
    let entry = entries.iter().find(|entry| here.is(entry));
    Ok(entry.map_or(0, |entry| count(&entry["kinds"][kind], figure)))
}

/// Adds the figures of one pass to the counts of the commit and machine at hand.
///
/// # Errors
/// The counts cannot be read or written.
pub fn count_pass(
    root: &Path,
    name: &str,
    figures: &[Map<String, Value>],
    passed: bool,
) -> Result<(), String> {
    let here = Place::of(root)?;
    change(&counts(root, name), |entries| here.add(entries, figures, passed))
}

fn counts(root: &Path, name: &str) -> PathBuf {
    root.join("tests/soak").join(format!("{name}.json"))
}

/// The first seed that no pass was given, on whatever commit and machine.
fn next_seed(entries: &[Value]) -> u64 {
    entries.iter().map(|entry| count(entry, "next_seed")).max().unwrap_or(0)
}

/// What a pass is told by variables.
fn environment(soak: &Soak, first: u64) -> Vec<(&'static str, String)> {
    let mut variables = vec![("EVENKEEL_ROUNDS", ROUNDS_OF_PASS.to_string())];
    if let Some(seeds) = soak.seeds {
        variables.push(("EVENKEEL_SEEDS", seeds.to_string()));
        variables.push(("EVENKEEL_FIRST", first.to_string()));
    }
    variables
}

/// What counts are kept apart by.
pub(crate) struct Place {
    pub(crate) commit: String,
    pub(crate) machine: String,
}

impl Place {
    /// The commit that is checked out, and this machine.
    pub(crate) fn of(root: &Path) -> Result<Place, String> {
        Ok(Place { commit: commit(root)?, machine: machine(root)? })
    }

    pub(crate) fn is(&self, entry: &Value) -> bool {
        entry["commit"] == self.commit.as_str() && entry["machine"] == self.machine.as_str()
    }

    /// The entry of the commit and machine, which is made if there is none.
    fn entry<'a>(&self, entries: &'a mut Vec<Value>) -> &'a mut Value {
        let at = entries.iter().position(|entry| self.is(entry)).unwrap_or_else(|| {
            entries.push(json!({
                "commit": self.commit, "machine": self.machine, "passes": 0, "failed_passes": 0,
                "kinds": {},
            }));
            entries.len() - 1
        });
        &mut entries[at]
    }

    fn add(&self, entries: &mut Vec<Value>, figures: &[Map<String, Value>], passed: bool) {
        let entry = self.entry(entries);
        let key = if passed { "passes" } else { "failed_passes" };
        entry[key] = (count(entry, key) + 1).into();
        for figure in figures {
            let Some(kind) = figure.get("kind").and_then(Value::as_str) else { continue };
            let sums = &mut entry["kinds"][kind];
            for (key, value) in figure.iter().filter(|(_, value)| value.is_u64()) {
                sums[key] = (count(sums, key) + value.as_u64().unwrap_or(0)).into();
            }
        }
    }
}

/// The figures of a line, if it has any.
fn parse(line: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(line.strip_prefix(MARK)?) {
        Ok(Value::Object(figures)) => Some(figures),
        Ok(_) | Err(_) => None,
    }
}

/// How many rounds there are of the kind that has the fewest.
fn least_rounds(entry: &Value) -> u64 {
    let kinds = entry["kinds"].as_object().into_iter().flat_map(Map::values);
    kinds.map(|sums| count(sums, "rounds")).min().unwrap_or(0)
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

/// Changes counts, which no other soak does meanwhile.
///
/// # Errors
/// The counts cannot be read, locked or written.
pub(crate) fn change<R>(path: &Path, how: impl FnOnce(&mut Vec<Value>) -> R) -> Result<R, String> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let lock = |error| format!("cannot lock {}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(lock)?;
    // The file itself is replaced each time, so it is the folder that is locked.
    let guard = fs::File::open(folder).map_err(lock)?;
    guard.lock().map_err(lock)?;
    let mut entries = read(path)?;
    let result = how(&mut entries);
    write(path, &entries)?;
    Ok(result)
}

pub(crate) fn read(path: &Path) -> Result<Vec<Value>, String> {
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
    fn figures_add_up_by_commit_and_machine() {
        let place = |commit: &str| Place { commit: commit.into(), machine: "m".into() };
        let kill = parse("SOAK {\"kind\": \"kill\", \"rounds\": 1, \"lost\": 0}").unwrap();
        let cut = parse("SOAK {\"kind\": \"cut\", \"rounds\": 3, \"lost\": 0}").unwrap();
        let mut entries = Vec::new();
        place("a").add(&mut entries, &[kill.clone(), cut], true);
        place("b").add(&mut entries, &[], true);
        place("a").add(&mut entries, &[kill], false);
        assert_eq!(
            entries[0],
            json!({
                "commit": "a", "machine": "m", "passes": 1, "failed_passes": 1,
                "kinds": {
                    "kill": { "rounds": 2, "lost": 0 }, "cut": { "rounds": 3, "lost": 0 },
                },
            })
        );
        assert_eq!(entries.len(), 2);
        assert_eq!(least_rounds(&entries[0]), 2);
        assert_eq!(least_rounds(&entries[1]), 0);
    }

    #[test]
    fn no_seed_is_given_twice() {
        let soak = |seeds| Soak { name: "s", rounds: 1, cargo: &[], seeds };
        let entries = [json!({ "next_seed": 70 }), json!({ "next_seed": 40 }), json!({})];
        let first = ("EVENKEEL_FIRST", "70".to_owned());
        assert_eq!(environment(&soak(Some(10)), next_seed(&entries)).last(), Some(&first));
        assert_eq!(environment(&soak(None), 0).len(), 1);
    }

    #[test]
    fn other_lines_have_no_figures() {
        for line in ["", "test x ... ok", "SOAK", "SOAK nothing", "SOAK 1", " SOAK {}"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
