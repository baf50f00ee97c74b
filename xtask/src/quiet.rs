//! `cargo xtask soak quiet`: a pair with a short timeout, or a farm with its default one, on a
//! machine under load, for as long as it is told. Each run is kept in `tests/soak/quiet.json`, also
//! one that found something. With `--load elsewhere` the load has to come from something else, as
//! from `soak sim` in many processes, so that both need one hour only.

use std::path::Path;

use serde_json::Value;

use crate::{run, soak};

/// What the line begins with that the test prints its figures in.
const MARK: &str = "SOAK ";
/// How long a release must have been quiet.
const MINUTES: u64 = 60;
const OPTIONS: &str = "[--farm] [--load nodes|elsewhere] [--minutes N], N a number";
const PAIR: &str = "under_load_nobody_is_taken_for_lost";
const FARM: &str = "under_load_no_node_of_a_farm_is_taken_for_lost";

/// Runs the test and keeps what it found.
///
/// # Errors
/// Somebody was taken for lost, or the test could not run.
pub fn quiet(root: &Path, options: &[&str]) -> Result<(), String> {
    let (farm, options) = match options {
        ["--farm", rest @ ..] => (true, rest),
        all => (false, all),
    };
    let (load, options) = match options {
        ["--load", from @ ("nodes" | "elsewhere"), rest @ ..] => (*from, rest),
        all => ("nodes", all),
    };
    let minutes = match options {
        [] => MINUTES.to_string(),
        ["--minutes", text] if text.parse().is_ok_and(|minutes: u64| minutes > 0) => {
            (*text).to_owned()
        }
        _ => return Err(format!("`{}`: {OPTIONS}", options.join(" "))),
    };
    let test = if farm { FARM } else { PAIR };
    let mut words = vec!["test", "-p", "evenkeel", "--test", "quiet", "--", "--exact", test];
    words.extend(["--ignored", "--nocapture"]);
    let place = soak::Place::of(root)?;
    let mut found: Option<Value> = None;
    let environment = [("EVENKEEL_MINUTES", minutes.as_str()), ("EVENKEEL_LOAD", load)];
    let outcome = run::lines(root, &environment, "cargo", &words, &mut |line| {
        let figures = line.strip_prefix(MARK).and_then(|text| serde_json::from_str(text).ok());
        found = figures.or(found.take());
    });
    let Some(mut entry) = found else {
        return outcome.and(Err("the test told no figures".to_owned()));
    };
    entry["commit"] = place.commit.into();
    entry["machine"] = place.machine.into();
    entry["passed"] = outcome.is_ok().into();
    let path = root.join("tests/soak/quiet.json");
    soak::change(&path, |entries| entries.push(entry))?;
    outcome
}
