//! Tasks of this repository, run as `cargo xtask TASK`: the only task runner there is.
//!
//! Nothing here is part of the product. What a developer runs and what CI runs is the same code.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod bench;
mod ci;
mod fusectl;
mod fuzz;
mod guard;
mod lanes;
mod mutants;
mod quiet;
mod run;
mod setup;
mod soak;
mod suites;
mod tidy;
mod watchdog;

const USAGE: &str = "\
Tasks of the Evenkeel repository

  cargo xtask ci                       set up, then run everything that CI runs (as root)
  cargo xtask setup                    install what the tests need, where it is missing
  cargo xtask tests                    run every test, as CI does (as root)
  cargo xtask tidy                     check the rules of STYLE.md that a program can check
  cargo xtask soak NAME [--rounds N]   repeat a test and keep count in tests/soak/NAME.json
  cargo xtask soak suites [--again]    run the suites of tests/soak/suites on a mount (as root)
  cargo xtask soak fuzz [--seconds N] [TARGET...]
                                       run every fuzz target or some, and keep count likewise
  cargo xtask soak memory [--files N]  measure memory with very many files (as root)
  cargo xtask sim [--seeds N] [--first F]
                                       run random schedules over the cluster's core
  cargo xtask sim --seed S             tell one of them
  cargo xtask sim --farms [--seeds N]  the same for farms
  cargo xtask sim --cuts               every step of a joining cut by every fault
  cargo xtask model [--case NAME] [--depth N] [--less N]
                                       look at every order of events of the smallest cluster
  cargo xtask model --mutant NAME...   does that find what a broken rule leads to?
  cargo xtask mutants [NAME...]        break the cluster's rules one at a time: is it noticed?
  cargo xtask soak quiet [--farm] [--minutes N]
                                       no false failover under load, with a timeout of 500 ms; no
                                       false loss in a farm, with 200 ms
  cargo xtask soak watchdog [CASE]     a node in a guest whose watchdog resets it, or does not
  cargo xtask fuzz-merge               add what fuzzing found to the committed corpus
  cargo xtask bench replication [--rounds N] [--only WORKLOAD,...] [--tls] [--json]
                                       measure replication beside its limits (as root)
  cargo xtask bench resync [--files N] measure the return of a node beside rsync (as root)
  cargo xtask bench farm [--rounds N] [--only PART,...]
                                       measure a farm beside HAProxy and keepalived (as root)
  cargo xtask bench apply                measure which thread limits a mirror (as root)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let outcome = match words.as_slice() {
        ["ci"] => ci::ci(&root),
        ["setup"] => setup::setup(),
        ["tests"] => lanes::tests(&root),
        ["tidy"] => tidy::tidy(&root),
        ["soak", "suites"] => suites::suites(&root, false),
        ["soak", "suites", "--again"] => suites::suites(&root, true),
        ["soak", "fuzz", "--seconds", seconds, targets @ ..] => match seconds.parse() {
            Ok(seconds) => fuzz::soak(&root, targets, Some(seconds)),
            Err(_) => Err(format!("`{seconds}` is not a number of seconds")),
        },
        ["soak", "fuzz", targets @ ..] => fuzz::soak(&root, targets, None),
        ["soak", "memory", options @ ..] => bench::memory(&root, options),
        ["sim", options @ ..] => simulate(&root, options),
        ["model", "--mutant", names @ ..] => mutants::model(&root, names),
        ["model", options @ ..] => model(&root, options),
        ["mutants", words @ ..] => mutants::mutants(&root, words),
        ["soak", "quiet", options @ ..] => quiet::quiet(&root, options),
        ["soak", "watchdog"] => watchdog::watchdog(&root, None),
        ["soak", "watchdog", case] => watchdog::watchdog(&root, Some(case)),
        ["fuzz-merge"] => fuzz::merge(&root),
        ["soak", name] => soak::soak(&root, name, None),
        ["soak", name, "--rounds", rounds] => match rounds.parse() {
            Ok(rounds) => soak::soak(&root, name, Some(rounds)),
            Err(_) => Err(format!("`{rounds}` is not a number of rounds")),
        },
        ["bench", "replication", options @ ..] => bench::replication(&root, options),
        ["bench", "farm", options @ ..] => bench::farm(&root, options),
        ["bench", "apply"] => bench::apply(&root),
        ["bench", "resync", options @ ..] => bench::resync(&root, options),
        // Started by the benchmarks themselves, on a host of their lab.
        ["bench-burst", workload, place] => bench::burst(workload, place),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Random schedules over the cluster's core; without optimization they take ten times as long.
fn simulate(root: &Path, options: &[&str]) -> Result<(), String> {
    let mut arguments = vec!["run", "--quiet", "--release", "--package", "sim", "--"];
    arguments.extend(options);
    run::run(root, &[], "cargo", &arguments)
}

/// The model check, in no more than four GiB of memory.
fn model(root: &Path, options: &[&str]) -> Result<(), String> {
    run::run(root, &[], "cargo", &["build", "--quiet", "--release", "--package", "sim"])?;
    let target = env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let script = "ulimit -v 4194304 && exec \"$0\" --model \"$@\"";
    let program = format!("{target}/release/sim");
    let mut arguments = vec!["-c", script, &program];
    arguments.extend(options);
    run::run(root, &[], "sh", &arguments)
}

/// The root of the repository, wherever the task was started.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
