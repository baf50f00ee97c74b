//! `sim --cuts`: cuts every step of every case by every fault, on all processors, and says what
//! broke: `cargo xtask sim --cuts` calls it.
//!
//! The last line is `steps N cuts N violations N`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sim::cuts::{CASES, Cuts};

/// How much is told of what broke.
const TOLD_MAX: usize = 3;

pub fn run(words: &[String]) -> ExitCode {
    if !words.is_empty() {
        eprintln!("--cuts stands alone");
        return ExitCode::from(2);
    }
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let cuts = case.cut(1);
                    println!("{:>40}: steps {:>4} cuts {:>5}", case.name, cuts.steps, cuts.cut);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(cuts);
                }
            });
        }
    });
    let done: Vec<Cuts> = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let broken: Vec<&String> = done.iter().flat_map(|cuts| &cuts.broken).collect();
    for told in broken.iter().take(TOLD_MAX) {
        println!("{told}");
    }
    for told in broken.iter().skip(TOLD_MAX) {
        println!("{}", told.lines().next().unwrap_or_default());
    }
    let steps: u64 = done.iter().map(|cuts| cuts.steps).sum();
    let cut: u64 = done.iter().map(|cuts| cuts.cut).sum();
    println!("steps {steps} cuts {cut} violations {}", broken.len());
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
