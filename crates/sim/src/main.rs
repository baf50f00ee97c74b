//! Runs schedules by seed on all processors and says what broke: `cargo xtask sim` calls it.
//!
//! The last line is `seeds N events N violations N rate N/s`. A seed that breaks a promise is told
//! in full, shortened to what matters, as a story for `tests/scenarios`.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use sim::schedule::{Run, Schedule};
use sim::shrink::shrink;

/// Violations after which a run stops: each takes some time to shorten.
const VIOLATIONS_MAX: u64 = 5;
/// Seeds handed out at a time.
const BATCH: u64 = 16;

struct Options {
    first: u64,
    seeds: u64,
    /// Tell everything that happens in the first seed.
    tell: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options = match parse(&words) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(2);
        }
    };
    if options.tell {
        return tell(options.first);
    }
    let violations = run(&options);
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options { first: 0, seeds: 1000, tell: false };
    let mut left = words.iter();
    while let Some(word) = left.next() {
        let value = left.next().ok_or_else(|| format!("{word} needs a number"))?;
        let value = value.parse().map_err(|_| format!("{word}: `{value}` is not a number"))?;
        match word.as_str() {
            "--seeds" => options.seeds = value,
            "--first" => options.first = value,
            "--seed" => options = Options { first: value, seeds: 1, tell: true },
            other => return Err(format!("{other}: there are --seeds N, --first N and --seed N")),
        }
    }
    Ok(options)
}

fn tell(seed: u64) -> ExitCode {
    let schedule = Schedule::of(seed);
    let run = schedule.run();
    println!("{}", run.log.join("\n"));
    match run.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            eprintln!("{violation}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all seeds and says what came of them; the number of violations.
fn run(options: &Options) -> u64 {
    let began = Instant::now();
    let next = AtomicU64::new(options.first);
    let end = options.first + options.seeds;
    let violations = AtomicU64::new(0);
    let (sender, results) = channel();
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (mut seeds, mut events, mut acknowledged) = (0, 0, 0);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let sender = sender.clone();
            scope.spawn(|| work(&next, end, &violations, sender));
        }
        drop(sender);
        for (schedule, run) in results {
            seeds += 1;
            events += run.events;
            acknowledged += run.acknowledged;
            if run.violation.is_some() {
                explain(&schedule, &run);
            }
        }
    });
    let violations = violations.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    println!("acknowledged writes {acknowledged}");
    let rate = seeds as f64 / seconds;
    println!("seeds {seeds} events {events} violations {violations} rate {rate:.0}/s");
    violations
}

fn work(next: &AtomicU64, end: u64, violations: &AtomicU64, results: Sender<(Schedule, Run)>) {
    loop {
        let from = next.fetch_add(BATCH, Ordering::Relaxed);
        for seed in from..(from + BATCH).min(end) {
            if violations.load(Ordering::Relaxed) >= VIOLATIONS_MAX {
                return;
            }
            let schedule = Schedule::of(seed);
            let run = schedule.run();
            if run.violation.is_some() {
                violations.fetch_add(1, Ordering::Relaxed);
            }
            if results.send((schedule, run)).is_err() {
                return;
            }
        }
        if from >= end {
            return;
        }
    }
}

/// Tells a violation as the shortest story found.
fn explain(schedule: &Schedule, run: &Run) {
    let Some(violation) = &run.violation else { return };
    println!("seed {}: {violation}", schedule.seed);
    let (shorter, run) = shrink(schedule, violation.promise);
    println!("shortened from {} to {} commands:", schedule.commands.len(), shorter.commands.len());
    for line in &run.log {
        println!("  {line}");
    }
}
