//! `cargo xtask bench farm`: what a farm's data path costs beside no balancer and beside HAProxy,
//! and how long clients wait when keepalived moves an address.
//!
//! Scripts in `bench/farm` and `bench/peers` do the measuring, with nginx, wrk, HAProxy and
//! keepalived of the machine; here they are run, and their lines made a table. Whether a farm is
//! right is for the tests.

use std::path::Path;

use serde_json::Value;

use super::{commit, machine};
use crate::run;

/// Rounds unless told otherwise.
const ROUNDS: &str = "5";
/// Share of one processor that each machine gets where machines are to be the limit, in percent.
const CAP: &str = "8";
const PARTS: [&str; 4] = ["requests", "capped", "failover", "keepalived"];
/// Figures of the demo that are shown.
const FIGURES: [&str; 6] =
    ["outage_kill_ms", "broken_others", "broken_drain", "lost_drain", "broken_join", "lost_join"];
/// Whom the demo kills, and what figures are called then.
const VICTIMS: [(&str, &str); 2] = [("other", ""), ("leader", "leader.")];

/// Something that was asked for: the figure, in words, the most or the least it should be.
struct Target {
    metric: &'static str,
    what: &'static str,
    bound: Bound,
}

enum Bound {
    Most(f64),
    Least(f64),
    /// Nothing was asked for; it explains another.
    None,
}

const TARGETS: [Target; 19] = [
    target("cpu_farm_stateless_to_one", "CPU of servers, stateless : one server", Bound::Most(1.3)),
    target("cpu_farm_aware_to_one", "CPU of servers, aware : one server", Bound::Most(1.5)),
    target("cpu_farm_aware_to_haproxy_http", "CPU of servers, aware : HAProxy", Bound::Most(0.35)),
    target("cpu_farm_aware_to_three", "the same, aware : three bare servers", Bound::None),
    target("cpu_farm_aware_charged_to_three", "with all that is added charged to it", Bound::None),
    target("capped.cpu_farm_stateless_to_one", "capped: stateless : one server", Bound::Most(1.3)),
    target("capped.cpu_farm_aware_to_one", "capped: aware : one server", Bound::Most(1.5)),
    target("capped.cpu_farm_aware_to_haproxy_http", "capped: aware : HAProxy", Bound::Most(0.35)),
    target(
        "capped.rate_farm_aware_to_haproxy_http",
        "capped: requests/s : HAProxy",
        Bound::Least(3.5),
    ),
    target("capped.rate_farm_multicast_to_haproxy_http", "the same, multicast", Bound::None),
    target("outage_kill_ms", "a node killed: ms for its share of clients", Bound::Most(300.0)),
    target("broken_others", "a node killed: connections of others broken", Bound::Most(0.0)),
    target("leader.outage_kill_ms", "the leader killed: the same", Bound::Most(400.0)),
    target("leader.broken_others", "the leader killed: others broken", Bound::Most(0.0)),
    target("broken_drain", "drain: connections broken", Bound::Most(0.0)),
    target("lost_drain", "drain: new connections lost", Bound::Most(0.0)),
    target("broken_join", "two joins: connections broken", Bound::Most(0.0)),
    target("lost_join", "two joins: new connections lost", Bound::Most(0.0)),
    target("keepalived_link_cut_advert_1", "keepalived's outage, defaults, in ms", Bound::None),
];

const fn target(metric: &'static str, what: &'static str, bound: Bound) -> Target {
    Target { metric, what, bound }
}

/// Measures and prints.
///
/// # Errors
/// An option is not known, a program is missing, or something fails while it is measured.
pub(crate) fn farm(root: &Path, words: &[&str]) -> Result<(), String> {
    let (mut rounds, mut parts) = (ROUNDS, PARTS.to_vec());
    let mut words = words.chunks_exact(2);
    for pair in words.by_ref() {
        match pair {
            ["--rounds", number] if number.parse::<u32>().is_ok_and(|n| n > 0) => rounds = number,
            ["--only", names] => parts = names.split(',').collect(),
            _ => return Err(format!("`{}` is no option", pair.join(" "))),
        }
    }
    let unknown = parts.iter().find(|part| !PARTS.contains(part));
    if let Some(what) = unknown.or(words.remainder().first()) {
        return Err(format!("`{what}` is unknown; the parts are {}", PARTS.join(", ")));
    }
    // As of now, for the tree may be changed while this runs.
    let about = format!("{}, {}", machine(root)?, commit(root)?);
    let mut figures = Vec::new();
    for part in parts {
        eprintln!("{part}");
        figures.extend(measure(root, part, rounds)?);
    }
    println!("\n{about}\n\n| What | measured | wanted | |\n|---|---|---|---|");
    for target in &TARGETS {
        if let Some((_, value)) = figures.iter().find(|(metric, _)| metric == target.metric) {
            println!("{}", row(target, *value));
        }
    }
    Ok(())
}

/// The worst of each figure of the demo.
fn failover(root: &Path, rounds: &str) -> Result<Vec<(String, f64)>, String> {
    run::run(root, &[], "cargo", &["build", "--quiet", "--release", "--package", "evenkeel"])?;
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let program = format!("{target}/release/evenkeel");
    let mut worst: Vec<(String, f64)> = Vec::new();
    for _ in 0..rounds.parse().unwrap_or(1) {
        for (victim, prefix) in VICTIMS {
            for (figure, found) in demo(root, &program, victim)? {
                // What is not about the victim is one figure.
                let about = figure == "outage_kill_ms" || figure == "broken_others";
                let metric = format!("{}{figure}", if about { prefix } else { "" });
                println!("{metric}\t{found}\t");
                match worst.iter_mut().find(|(name, _)| *name == metric) {
                    Some((_, value)) => *value = value.max(found),
                    None => worst.push((metric, found)),
                }
            }
        }
    }
    Ok(worst)
}

/// Runs the demo once. One that broke a promise fails, and its figures say which.
fn demo(root: &Path, program: &str, victim: &str) -> Result<Vec<(&'static str, f64)>, String> {
    let words =
        ["--json", "demo", "farm", "--app", "nginx", "--kill", victim, "--name", "bench-farm"];
    let (said, outcome) = run::told(root, program, &words)?;
    let last = said.lines().last().unwrap_or_default();
    let Ok(report) = serde_json::from_str::<Value>(last) else {
        return Err(outcome.err().unwrap_or(format!("no report: {last}")));
    };
    if let Err(error) = outcome {
        eprintln!("{error}");
    }
    let found = |figure| report[figure].as_f64().ok_or(format!("no {figure}: {last}"));
    FIGURES.into_iter().map(|figure| Ok((figure, found(figure)?))).collect()
}

fn measure(root: &Path, part: &str, rounds: &str) -> Result<Vec<(String, f64)>, String> {
    if part == "failover" {
        return failover(root, rounds);
    }
    let mut values: Vec<(String, Vec<f64>)> = Vec::new();
    let prefix = if part == "capped" { "capped." } else { "" };
    let mut note = |line: &str| {
        let mut columns = line.split('\t');
        let metric = columns.next().unwrap_or_default();
        let Some(value) = columns.next().and_then(|text| text.parse().ok()) else { return };
        let metric = format!("{prefix}{metric}");
        match values.iter_mut().find(|(name, _)| *name == metric) {
            Some((_, all)) => all.push(value),
            None => values.push((metric, vec![value])),
        }
    };
    if part == "keepalived" {
        let environment = [("REPS", rounds)];
        run::lines(root, &environment, "bench/peers/keepalived.sh", &["1"], &mut note)?;
    } else {
        let build =
            ["build", "--quiet", "--release", "--package", "net", "--example", "farm_table"];
        run::run(root, &[], "cargo", &build)?;
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
        let program = format!("{target}/release/examples/farm_table");
        let cap = if part == "capped" { CAP } else { "0" };
        let environment = [("ROUNDS", rounds), ("CAP", cap)];
        run::lines(root, &environment, "bench/farm/requests.sh", &[&program], &mut note)?;
    }
    Ok(values.into_iter().map(|(metric, all)| (metric, median(all))).collect())
}

fn row(target: &Target, value: f64) -> String {
    let (wanted, outcome) = match target.bound {
        Bound::Most(most) => (format!("<= {most}"), verdict(value <= most)),
        Bound::Least(least) => (format!(">= {least}"), verdict(value >= least)),
        Bound::None => (String::new(), ""),
    };
    format!("| {} | {value:.2} | {wanted} | {outcome} |", target.what)
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_its_target_is_met() {
        let most = target("m", "cost", Bound::Most(1.5));
        assert_eq!(row(&most, 1.5), "| cost | 1.50 | <= 1.5 | met |");
        assert_eq!(row(&most, 1.51), "| cost | 1.51 | <= 1.5 | MISSED |");
        let least = target("m", "rate", Bound::Least(3.5));
        assert_eq!(row(&least, 3.4), "| rate | 3.40 | >= 3.5 | MISSED |");
        assert_eq!(row(&target("m", "why", Bound::None), 2.0), "| why | 2.00 |  |  |");
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
