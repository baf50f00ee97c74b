//! `cargo xtask ci`: every check of a change, in the order of their speed.
//!
//! All steps run even after one has failed, so that one run shows all that is wrong. The tests come
//! last, so that the end of the output is theirs. A test that hangs is ended and shown, and what
//! tests leave behind does not hold this up.

use std::path::Path;

use crate::{guard, run, setup, tidy};

struct Step {
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const STEPS: &[Step] = &[
    Step { arguments: &["fmt", "--all", "--check"], environment: &[] },
    Step {
        arguments: &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        environment: &[],
    },
    Step {
        arguments: &["doc", "--workspace", "--no-deps", "--document-private-items"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
    // The binary under its final name, which nodes of the lab run.
    Step { arguments: &["build", "--package", "evenkeel"], environment: &[] },
    // In a process of its own, so that what hangs in it can be ended.
    Step { arguments: &["xtask", "tests"], environment: &[] },
];

/// Sets up and runs every check.
///
/// # Errors
/// The names of the steps that failed.
pub fn ci(root: &Path) -> Result<(), String> {
    let mut failures: Vec<String> = Vec::new();
    let mut note = |outcome: Result<(), String>| {
        if let Err(message) = outcome {
            eprintln!("{message}");
            failures.push(message);
        }
    };
    announce("setup");
    note(setup::setup());
    announce("tidy");
    note(tidy::tidy(root));
    for step in STEPS {
        announce(&run::shown("cargo", step.arguments));
        note(guard::run(root, step.environment, "cargo", step.arguments));
    }
    if failures.is_empty() {
        return Ok(());
    }
    let firsts: Vec<&str> = failures.iter().filter_map(|text| text.lines().last()).collect();
    Err(format!("\n{} of the steps failed:\n  {}", failures.len(), firsts.join("\n  ")))
}

fn announce(step: &str) {
    eprintln!("\n== {step}");
}
