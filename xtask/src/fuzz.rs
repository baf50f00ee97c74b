//! `cargo xtask soak fuzz`: every fuzz target for a given time, its seconds and executions counted.
//!
//! The targets are built with the coverage instrumentation of the installed compiler, so neither
//! another toolchain nor `cargo fuzz` is needed. What is found goes to `target/fuzz`; what fails
//! stays there and is named. New inputs enter the committed corpus by `cargo xtask fuzz-merge`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::run;
use crate::soak;

/// The targets, named as in `fuzz/src/checks.rs`.
const TARGETS: &[&str] = &["stream", "greeting", "local", "request", "config", "log", "pulse"];
/// How long each target should have run before a commit is released, in seconds.
const SECONDS: u64 = 3600;
/// A slice: after each, its figures are written down, so that a stop loses no more.
const SLICE_SECONDS: u64 = 60;
/// Longest input, in bytes: what is longer differs only in the length of its data.
const INPUT_BYTES_MAX: &str = "-max_len=4096";
/// Longest input that is committed, in bytes: the corpus shall stay small.
const COMMITTED_BYTES_MAX: u64 = 256;
/// What makes the compiler count which code an input reaches.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Runs every target, or the `wanted` ones if any are named, until it has had its time on this
/// commit and machine, or for `seconds` more.
///
/// # Errors
/// There is no such target, or one failed: which, and with what input; the time until then is
/// counted.
pub fn soak(root: &Path, wanted: &[&str], seconds: Option<u64>) -> Result<(), String> {
    if let Some(unknown) = wanted.iter().find(|name| !TARGETS.contains(name)) {
        return Err(format!("no fuzz target `{unknown}`; there are: {}", TARGETS.join(", ")));
    }
    let built = build(root)?;
    for name in TARGETS.iter().filter(|name| wanted.is_empty() || wanted.contains(name)) {
        let so_far = soak::so_far(root, "fuzz", name, "seconds")?;
        let mut left = seconds.unwrap_or(SECONDS.saturating_sub(so_far));
        println!("fuzz {name}: {so_far} s so far, {left} s to run");
        while left > 0 {
            let slice = left.min(SLICE_SECONDS);
            left -= slice;
            let started = Instant::now();
            let (executions, outcome) = fuzz(root, &built, name, slice)?;
            let spent = started.elapsed().as_secs();
            let failed = u64::from(outcome.is_err());
            let figures = json!({
                "kind": name, "seconds": spent, "executions": executions, "failures": failed,
            });
            let figures: Vec<Map<String, Value>> =
                figures.as_object().cloned().into_iter().collect();
            soak::count_pass(root, "fuzz", &figures, outcome.is_ok())?;
            outcome?;
        }
    }
    Ok(())
}

/// Adds to the committed corpus what was found and reaches code that nothing there reaches.
///
/// # Errors
/// A target cannot be built or run.
pub fn merge(root: &Path) -> Result<(), String> {
    let built = build(root)?;
    for name in TARGETS {
        let (found, committed) = (found(root, name)?, root.join("fuzz/corpus").join(name));
        let small = root.join("target/fuzz/small").join(name);
        keep_small(&found, &small)?;
        let program = shown(&built.join(name));
        run::run(
            root,
            &[],
            &program,
            // Without counters: code reached anew counts, code reached more often does not.
            &[
                "-set_cover_merge=1",
                "-use_counters=0",
                INPUT_BYTES_MAX,
                &shown(&committed),
                &shown(&small),
            ],
        )?;
    }
    Ok(())
}

/// Builds the targets; answers the folder that they are in.
fn build(root: &Path) -> Result<PathBuf, String> {
    let version = run::output(root, "rustc", &["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("`rustc -vV` names no host")?;
    let target = root.join("target/fuzz");
    // With `--target`, what runs during the build is not instrumented.
    let arguments = ["build", "--release", "--bins", "--target", host, "--target-dir"];
    let mut arguments = arguments.to_vec();
    let folder = shown(&target);
    arguments.push(&folder);
    run::run(&root.join("fuzz"), &[("RUSTFLAGS", COVERAGE)], "cargo", &arguments)?;
    Ok(target.join(host).join("release"))
}

/// Runs a target for some seconds; answers the executions, and whether nothing failed.
fn fuzz(
    root: &Path,
    built: &Path,
    name: &str,
    seconds: u64,
) -> Result<(u64, Result<(), String>), String> {
    let committed = root.join("fuzz/corpus").join(name);
    let (found, crashes) = (found(root, name)?, root.join("target/fuzz/crashes"));
    fs::create_dir_all(&crashes)
        .map_err(|error| format!("cannot make {}: {error}", crashes.display()))?;
    let (program, found, committed) = (shown(&built.join(name)), shown(&found), shown(&committed));
    let time = format!("-max_total_time={seconds}");
    let artifacts = format!("-artifact_prefix={}/{name}-", crashes.display());
    // The fuzzer speaks on its standard error.
    let mut arguments = vec!["-c", "exec \"$0\" \"$@\" 2>&1", &program, &time, &artifacts];
    arguments.extend([INPUT_BYTES_MAX, "-print_final_stats=1", "-verbosity=0"]);
    arguments.extend([found.as_str(), committed.as_str()]);
    let mut executions = 0;
    let outcome = run::lines(root, &[], "sh", &arguments, &mut |line| {
        let figure = line.strip_prefix("stat::number_of_executed_units:");
        executions = figure.and_then(|figure| figure.trim().parse().ok()).unwrap_or(executions);
    });
    let outcome = outcome
        .map_err(|_| format!("fuzz target {name} failed; its input is in {}", crashes.display()));
    Ok((executions, outcome))
}

/// The folder of inputs found on this machine.
fn found(root: &Path, name: &str) -> Result<PathBuf, String> {
    let folder = root.join("target/fuzz/found").join(name);
    fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    Ok(folder)
}

/// Copies the inputs that are small enough to be committed into a folder of their own.
fn keep_small(from: &Path, to: &Path) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("cannot copy {}: {error}", from.display());
    if to.exists() {
        fs::remove_dir_all(to).map_err(wrong)?;
    }
    fs::create_dir_all(to).map_err(wrong)?;
    for entry in fs::read_dir(from).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if entry.metadata().map_err(wrong)?.len() <= COMMITTED_BYTES_MAX {
            fs::copy(entry.path(), to.join(entry.file_name())).map_err(wrong)?;
        }
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
