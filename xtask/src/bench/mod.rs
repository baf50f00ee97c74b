//! `cargo xtask bench replication`: what replication costs beside what it could cost at best.
//!
//! Everything that is compared takes turns in short bursts, over several rounds, so that a noisy
//! machine is noisy for all alike. Lines `metric value unit` come first, tables last. How to read
//! them is in `docs/benchmarks.md`.

mod apply;
mod burst;
mod database;
mod farm;
mod figures;
mod link;
mod memory;
mod pair;
mod resync;
mod site;
mod targets;

use std::path::Path;

use serde_json::{Value, json};

pub(crate) use self::apply::apply;
pub(crate) use self::burst::burst;
pub(crate) use self::farm::farm;
use self::figures::{Figures, series, unit};
pub(crate) use self::memory::memory;
pub(crate) use self::resync::resync;
use self::site::{Contender, Ground, Site};
use crate::run;

/// Rounds unless told otherwise.
const ROUNDS: u32 = 9;
/// What takes long takes part in every third round only.
const LONG_EVERY: u32 = 3;

/// A workload of the own program.
struct Workload {
    name: &'static str,
    grounds: &'static [Ground],
    long: bool,
}

const BOTH: &[Ground] = &[Ground::Disk, Ground::Memory];

const WORKLOADS: [Workload; 7] = [
    Workload { name: "write-4k", grounds: BOTH, long: false },
    Workload { name: "write-sync-4k", grounds: BOTH, long: false },
    Workload { name: "write-1m", grounds: BOTH, long: false },
    Workload { name: "read-cached-4k", grounds: BOTH, long: false },
    Workload { name: "read-cold", grounds: BOTH, long: false },
    Workload { name: "files", grounds: BOTH, long: false },
    Workload { name: "untar", grounds: BOTH, long: true },
];

/// What the command line asks for.
#[derive(Debug, PartialEq)]
struct Options {
    rounds: u32,
    only: Option<String>,
    tls: bool,
    json: bool,
}

/// Measures replication. `words` are the options.
///
/// # Errors
/// An option is not known, the release binary is missing, or something fails while it is measured.
pub(crate) fn replication(root: &Path, words: &[&str]) -> Result<(), String> {
    let options = parse(words)?;
    // As of now, for the tree may be changed while this runs.
    let about = format!("{}, {}", machine(root)?, commit(root)?);
    let site = Site::build(root, options.tls)?;
    if options.wants("pgbench") {
        database::prepare(&site)?;
    }
    let mut figures = Figures::default();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        measure(&site, &options, round, &mut figures)?;
    }
    if options.json {
        println!("{}", as_json(&figures, &about));
    } else {
        print_lines(&figures);
        print_tables(&figures, &about);
    }
    Ok(())
}

impl Options {
    fn wants(&self, workload: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.split(',').any(|name| name == workload))
    }
}

fn parse(words: &[&str]) -> Result<Options, String> {
    let mut options = Options { rounds: ROUNDS, only: None, tls: false, json: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match (*word, words.as_slice().first()) {
            ("--json", _) => options.json = true,
            ("--tls", _) => options.tls = true,
            ("--rounds", Some(rounds)) => {
                let parsed = rounds.parse().ok().filter(|rounds| *rounds > 0);
                options.rounds = parsed.ok_or(format!("`{rounds}` is not a number of rounds"))?;
                words.next();
            }
            ("--only", Some(names)) => {
                let known: Vec<&str> =
                    WORKLOADS.iter().map(|workload| workload.name).chain(["pgbench"]).collect();
                if let Some(name) = names.split(',').find(|name| !known.contains(name)) {
                    let known = known.join(", ");
                    return Err(format!("there is no workload `{name}`; there are: {known}"));
                }
                options.only = Some((*names).to_owned());
                words.next();
            }
            (word, _) => return Err(format!("`{word}` is no option, or lacks its value")),
        }
    }
    Ok(options)
}

/// One round: everything once, what is compared right after each other.
fn measure(
    site: &Site,
    options: &Options,
    round: u32,
    figures: &mut Figures,
) -> Result<(), String> {
    let long = round.is_multiple_of(LONG_EVERY);
    figures.add_lines(&site.link()?, |series| format!("{series}.link"));
    for workload in WORKLOADS.iter().filter(|w| options.wants(w.name) && (long || !w.long)) {
        for ground in workload.grounds {
            for contender in turns(site, round) {
                if let Some(lines) = site.run(contender, *ground, workload.name)? {
                    figures.add_lines(&lines, |name| series(name, *ground, contender));
                }
            }
        }
    }
    if options.wants("pgbench") && long {
        for (name, clients, ground) in database::RUNS {
            for contender in turns(site, round) {
                if let Some(burst) = database::burst(site, contender, ground, clients)? {
                    figures.add(series(name, ground, contender), burst);
                }
            }
        }
    }
    Ok(())
}

/// The contenders, each round beginning with another one.
fn turns(site: &Site, round: u32) -> Vec<Contender> {
    let mut contenders = site.contenders().to_vec();
    let first = round as usize % contenders.len();
    contenders.rotate_left(first);
    contenders
}

fn print_lines(figures: &Figures) {
    for name in figures.names() {
        if let Some(summary) = figures.summary(name) {
            println!("{name}.median\t{:.2}\t{}", summary.median, unit(name));
            println!("{name}.p10\t{:.2}\t{}", summary.p10, unit(name));
        }
    }
}

fn print_tables(figures: &Figures, about: &str) {
    println!("\n{about}\n");
    print!("{:<28}", "median (p10), us or tps");
    Contender::ALL.iter().for_each(|contender| print!("{:>20}", contender.name()));
    println!();
    for row in rows(figures) {
        print!("{row:<28}");
        for contender in Contender::ALL {
            let cell = figures.summary(&format!("{row}.{}", contender.name()));
            let cell = cell.map(|summary| format!("{:.1} ({:.1})", summary.median, summary.p10));
            print!("{:>20}", cell.unwrap_or_default());
        }
        println!();
    }
    for name in figures.names().filter(|name| name.ends_with(".link")) {
        if let Some(summary) = figures.summary(name) {
            println!("{name:<28}{:>20}", format!("{:.1} ({:.1})", summary.median, summary.p10));
        }
    }
    println!("\n{}", targets::heading());
    targets::reached(figures).iter().for_each(|reached| println!("{}", reached.row()));
}

/// Workloads with their ground, each once.
fn rows(figures: &Figures) -> Vec<&str> {
    let names = figures.names().filter_map(|name| {
        let (row, last) = name.rsplit_once('.')?;
        (last != "link").then_some(row)
    });
    let mut rows: Vec<&str> = names.collect();
    rows.dedup();
    rows
}

fn as_json(figures: &Figures, about: &str) -> Value {
    let figure = |name: &str| {
        let summary = figures.summary(name)?;
        let bursts: Vec<f64> = figures.bursts(name).iter().map(|burst| burst.middle).collect();
        Some(json!({
            "name": name, "median": summary.median, "p10": summary.p10, "unit": unit(name),
            "bursts": bursts,
        }))
    };
    let all: Vec<Value> = figures.names().filter_map(figure).collect();
    let targets: Vec<Value> =
        targets::reached(figures).iter().map(targets::Reached::json).collect();
    json!({ "about": about, "figures": all, "targets": targets })
}

fn machine(root: &Path) -> Result<String, String> {
    let kernel = run::output(root, "uname", &["-rm"])?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!("Linux {}, {processors} processors", kernel.trim()))
}

fn commit(root: &Path) -> Result<String, String> {
    let commit = run::output(root, "git", &["describe", "--always", "--dirty"])?;
    Ok(format!("commit {}", commit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_wrong_ones_named() {
        let expected =
            Options { rounds: 3, only: Some("files,untar".to_owned()), tls: true, json: true };
        let words = ["--rounds", "3", "--json", "--tls", "--only", "files,untar"];
        assert_eq!(parse(&words), Ok(expected));
        for wrong in [&["--rounds"][..], &["--rounds", "0"], &["--only", "x"], &["x"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
