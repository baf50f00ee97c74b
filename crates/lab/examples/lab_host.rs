//! The binary that the lab's own tests boot their hosts with: init and enter, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|word| word.to_str()) {
        Some("lab-init") => lab::init::run(),
        Some("lab-enter") => lab::enter::run(args.collect()),
        _ => ExitCode::from(2),
    }
}
