//! `sim --farms`: runs plans of farms by seed on all processors and says what broke:
//! `cargo xtask sim --farms` calls it.
//!
//! The last line is `seeds N events N violations N rate N/s`. A seed that breaks a promise is told
//! in full, shortened to what matters.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim::farm::{FarmViolation, Plan, shrink};

/// Violations after which a run stops: each takes some time to shorten.
const VIOLATIONS_MAX: u64 = 5;
/// What there is to choose.
const OPTIONS: &str = "--seeds N, --first N, or --seed N alone";

pub fn run(words: &[String]) -> ExitCode {
    let (mut first, mut seeds, mut tells) = (0, 1000, false);
    for pair in words.chunks(2) {
        let number = pair.get(1).and_then(|text| text.parse().ok());
        match (pair[0].as_str(), number) {
            ("--seeds", Some(number)) => seeds = number,
            ("--first", Some(number)) => first = number,
            ("--seed", Some(number)) => (first, seeds, tells) = (number, 1, true),
            (other, _) => {
                eprintln!("{other}: there are {OPTIONS}");
                return ExitCode::from(2);
            }
        }
    }
    if tells {
        let run = Plan::of(first).run();
        println!("{}", run.log.join("\n"));
    }
    let violations = all(first, first + seeds);
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all(first: u64, end: u64) -> u64 {
    let began = Instant::now();
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let (events, violations) = (AtomicU64::new(0), AtomicU64::new(0));
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || violations.load(Ordering::Relaxed) >= VIOLATIONS_MAX {
                        return;
                    }
                    let plan = Plan::of(seed);
                    let run = plan.run();
                    done.fetch_add(1, Ordering::Relaxed);
                    events.fetch_add(run.events, Ordering::Relaxed);
                    if let Some(violation) = run.violation {
                        violations.fetch_add(1, Ordering::Relaxed);
                        explain(&plan, &violation);
                    }
                }
            });
        }
    });
    let seeds = done.load(Ordering::Relaxed);
    let (events, violations) = (events.into_inner(), violations.into_inner());
    let rate = seeds as f64 / began.elapsed().as_secs_f64();
    println!("seeds {seeds} events {events} violations {violations} rate {rate:.0}/s");
    violations
}

/// Tells a violation as the shortest plan found, at once, so that two do not mix.
fn explain(plan: &Plan, violation: &FarmViolation) {
    let shorter = shrink(plan, violation.promise);
    let (before, after) = (plan.faults.len(), shorter.faults.len());
    let head = format!(
        "seed {}: {:?} {:?}: {violation}\nshortened from {before} to {after} faults:\n",
        plan.seed, plan.delivery, plan.weights
    );
    println!("{head}{}", shorter.run().log.join("\n"));
}
