//! The two hidden commands that the lab runs this binary with: pid 1 of a host, and the way into
//! one. Both must be reached before anything starts a second thread. The work is done by `lab`.

use std::ffi::OsString;
use std::process::ExitCode;

/// `evenkeel lab-init ...`: pid 1 of a lab's host; reads the command line itself.
pub fn init() -> ExitCode {
    lab::init::run()
}

/// `evenkeel lab-enter ARGS`: runs a command inside a host; `args` are those after `lab-enter`.
pub fn enter(args: Vec<OsString>) -> ExitCode {
    lab::enter::run(args)
}
