//! `sim --model`: runs the model check and says what came of it: `cargo xtask model` calls it.
//!
//! The last line is `depth N states N transitions N violations N time N s`, where the depth is that
//! of the shallowest case. A violation is told with all that the nodes explain on the way to it.

use std::num::NonZero;
use std::process::ExitCode;
use std::time::Instant;

use sim::exhaust::{Case, Outcome, cases, search, tell};

/// States of one case, so that memory stays below two GiB.
const STATES_MAX: u64 = 40_000_000;
/// What there is to choose.
const OPTIONS: &str = "--case NAME, --depth N, --less N, --threads N, --first";

struct Options {
    case: Option<String>,
    /// As deep as this, whatever the case says.
    depth: Option<u8>,
    /// So much less deep than the case says.
    less: u8,
    threads: usize,
    /// Stop at the first violation.
    first: bool,
}

pub fn model(words: &[String]) -> ExitCode {
    let options = match parse(words) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(2);
        }
    };
    let mut cases = cases();
    cases.retain(|case| options.case.as_ref().is_none_or(|name| name == case.name));
    if cases.is_empty() {
        eprintln!("there is no such case");
        return ExitCode::from(2);
    }
    if run(&options, &cases) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(words: &[String]) -> Result<Options, String> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut options = Options { case: None, depth: None, less: 0, threads, first: false };
    let mut left = words.iter();
    while let Some(word) = left.next() {
        if word == "--first" {
            options.first = true;
            continue;
        }
        let value = left.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number =
            || value.parse::<u8>().map_err(|_| format!("{word}: `{value}` is not a number"));
        match word.as_str() {
            "--case" => options.case = Some(value.clone()),
            "--depth" => options.depth = Some(number()?),
            "--less" => options.less = number()?,
            "--threads" => options.threads = usize::from(number()?),
            other => return Err(format!("{other}: there are {OPTIONS}")),
        }
    }
    Ok(options)
}

/// Searches all cases; the number of violations.
fn run(options: &Options, cases: &[Case]) -> usize {
    let began = Instant::now();
    let (mut depth, mut states, mut transitions, mut violations) = (u8::MAX, 0, 0, 0);
    for case in cases {
        let wanted = options.depth.unwrap_or(case.depth.saturating_sub(options.less));
        let case_began = Instant::now();
        let outcome = search(case, wanted, options.threads, STATES_MAX);
        say(case, &outcome, case_began.elapsed().as_secs_f64());
        depth = depth.min(outcome.depth);
        states += outcome.states;
        transitions += outcome.transitions;
        violations += outcome.found.len();
        if options.first && violations > 0 {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "depth {depth} states {states} transitions {transitions} violations {violations} \
         time {seconds:.0} s"
    );
    violations
}

fn say(case: &Case, outcome: &Outcome, seconds: f64) {
    for found in &outcome.found {
        let depth = found.steps.len();
        let sentence = found.promise.sentence();
        println!("case {}, {depth} steps: {sentence}: {}", case.name, found.what);
        for line in tell(case, &found.steps) {
            println!("  {line}");
        }
    }
    println!(
        "{:>12}: depth {:>2} states {:>9} transitions {:>9} time {seconds:.1} s",
        case.name, outcome.depth, outcome.states, outcome.transitions
    );
}
