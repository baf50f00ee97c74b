//! Runs schedules by seed on all processors and says what broke: `cargo xtask sim` calls it.
//!
//! As a soak it is told by `EVENKEEL_SEEDS` and `EVENKEEL_FIRST` what to run, and says its figures
//! so that they are added up. The last line is `seeds N events N violations N rate N/s`. A seed
//! that breaks a promise is told in full, shortened to what matters, as a story for
//! `tests/scenarios`. The mutation check, which only asks whether something breaks, has the stories
//! told here too, and nothing shortened.

mod cutting;
mod farms;
mod searching;

use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use sim::schedule::{Run, Schedule};
use sim::shrink::shrink;

/// Violations after which a run stops, if it is not told: each takes some time to shorten.
const VIOLATIONS_MAX: u64 = 5;
/// What there is to choose.
const OPTIONS: &str = "--seeds N, --first N, --stop-at N, --plain, or --seed N, --stories FOLDER, \
     --model ..., --farms ..., --cuts alone";
/// Seeds handed out at a time.
const BATCH: u64 = 16;

struct Options {
    first: u64,
    seeds: u64,
    /// Tell everything that happens in the first seed.
    tell: bool,
    /// Violations after which the run stops.
    stop_at: u64,
    /// Leave violations as they were found.
    plain: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [option, folder] = words.as_slice()
        && option == "--stories"
    {
        return stories(Path::new(folder));
    }
    if let [option, rest @ ..] = words.as_slice()
        && option == "--model"
    {
        return searching::model(rest);
    }
    if let [option, rest @ ..] = words.as_slice()
        && option == "--farms"
    {
        return farms::run(rest);
    }
    if let [option, rest @ ..] = words.as_slice()
        && option == "--cuts"
    {
        return cutting::run(rest);
    }
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
    let told = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = told("EVENKEEL_FIRST").unwrap_or(0);
    let seeds = told("EVENKEEL_SEEDS").unwrap_or(1000);
    let mut options = Options { first, seeds, tell: false, stop_at: VIOLATIONS_MAX, plain: false };
    let mut left = words.iter();
    while let Some(word) = left.next() {
        if word == "--plain" {
            options.plain = true;
            continue;
        }
        let value = left.next().ok_or_else(|| format!("{word} needs a number"))?;
        let value = value.parse().map_err(|_| format!("{word}: `{value}` is not a number"))?;
        match word.as_str() {
            "--seeds" => options.seeds = value,
            "--first" => options.first = value,
            "--seed" => options = Options { first: value, tell: true, ..options },
            "--stop-at" => options.stop_at = value,
            other => return Err(format!("{other}: there are {OPTIONS}")),
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
            scope.spawn(|| work(&next, end, (&violations, options.stop_at), sender));
        }
        drop(sender);
        for (schedule, run) in results {
            seeds += 1;
            events += run.events;
            acknowledged += run.acknowledged;
            if run.violation.is_some() {
                explain(&schedule, &run, options.plain);
            }
        }
    });
    let violations = violations.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    println!("acknowledged writes {acknowledged}");
    println!(
        "SOAK {{\"kind\": \"schedules\", \"rounds\": 1, \"seeds\": {seeds}, \
         \"events\": {events}, \"violations\": {violations}, \"seconds\": {seconds:.0}}}",
        seconds = began.elapsed().as_secs_f64(),
    );
    let rate = seeds as f64 / seconds;
    println!("seeds {seeds} events {events} violations {violations} rate {rate:.0}/s");
    violations
}

fn work(
    next: &AtomicU64,
    end: u64,
    (violations, stop_at): (&AtomicU64, u64),
    results: Sender<(Schedule, Run)>,
) {
    loop {
        let from = next.fetch_add(BATCH, Ordering::Relaxed);
        for seed in from..(from + BATCH).min(end) {
            if violations.load(Ordering::Relaxed) >= stop_at {
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
fn explain(schedule: &Schedule, run: &Run, plain: bool) {
    let Some(violation) = &run.violation else { return };
    println!("seed {}: {violation}", schedule.seed);
    if plain {
        return;
    }
    let (shorter, run) = shrink(schedule, violation.promise);
    println!("shortened from {} to {} commands:", schedule.commands.len(), shorter.commands.len());
    for line in &run.log {
        println!("  {line}");
    }
}

/// Tells the stories of a folder, and names the first one that is not as it is written down.
fn stories(folder: &Path) -> ExitCode {
    match told_otherwise(folder) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some((name, how))) => {
            println!("story {name}: {how}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot read the stories of {}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}

/// The first story that is not as it is written down, and how it goes instead.
fn told_otherwise(folder: &Path) -> std::io::Result<Option<(String, String)>> {
    let files: std::io::Result<Vec<_>> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut files = files?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "txt"));
    files.sort();
    if files.is_empty() {
        return Err(std::io::Error::other("there are none"));
    }
    for path in files {
        let written = std::fs::read_to_string(&path)?;
        let how = match sim::story::tell(&written) {
            Ok(told) if told == written => continue,
            Ok(told) => {
                let other = told.lines().zip(written.lines()).find(|(told, line)| told != line);
                other.map_or("it ends otherwise", |(told, _)| told).to_owned()
            }
            Err(wrong) => wrong.lines().last().unwrap_or_default().to_owned(),
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(Some((name, how)));
    }
    Ok(None)
}
