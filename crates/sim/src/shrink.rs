//! Shortens a schedule that breaks a promise, as long as it still breaks the same one.

use crate::promises::Promise;
use crate::schedule::{Run, Schedule};

/// Schedules tried at most.
const TRIES_MAX: u32 = 3000;

/// The shortest schedule found that breaks `promise` as `schedule` does, and what comes of it.
#[must_use]
pub fn shrink(schedule: &Schedule, promise: Promise) -> (Schedule, Run) {
    let mut best = schedule.clone();
    let mut tries = 0;
    let mut size = best.commands.len() / 2;
    while size > 0 {
        let mut at = 0;
        let mut progress = false;
        // What fails before the end needs no mending, and what must settle needs all of it.
        let settles =
            [Promise::ThePairSettles, Promise::ALightModuleComesUp, Promise::OneConfiguration];
        let mending = if settles.contains(&promise) { best.mending } else { 0 };
        while at + mending < best.commands.len() && tries < TRIES_MAX {
            let mut shorter = best.clone();
            let until = (at + size).min(shorter.commands.len() - mending);
            shorter.commands.drain(at..until);
            tries += 1;
            if breaks(&shorter, promise) {
                best = shorter;
                progress = true;
            } else {
                at += size;
            }
        }
        if !progress {
            size /= 2;
        }
    }
    round_times(&mut best, promise);
    let run = best.run();
    (best, run)
}

/// Times are easier to read when they are round.
fn round_times(best: &mut Schedule, promise: Promise) {
    for at in 0..best.commands.len() {
        for step in [1000, 100, 10] {
            let Some(rounder) = rounded(&best.commands[at], step) else { continue };
            let mut other = best.clone();
            other.commands[at] = rounder;
            if breaks(&other, promise) {
                *best = other;
                break;
            }
        }
    }
}

fn rounded(command: &str, step: u64) -> Option<String> {
    let (head, time) = command.rsplit_once(' ')?;
    let millis: u64 = time.strip_suffix("ms")?.parse().ok()?;
    let rounded = (millis + step / 2) / step * step;
    (rounded != millis).then(|| format!("{head} {rounded}ms"))
}

fn breaks(schedule: &Schedule, promise: Promise) -> bool {
    let run = schedule.run();
    !run.wrong && run.violation.is_some_and(|violation| violation.promise == promise)
}
