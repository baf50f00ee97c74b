//! Evenkeel's one binary: which command runs what.
//!
//! Each command has a file of its own in `command`; nothing else is decided here.

mod arguments;
mod client;
mod command;
mod render;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::command::mount;

fn main() -> ExitCode {
    // The lab's helpers come first: they must run before anything starts a thread, and they pass
    // the arguments of other programs on untouched.
    let mut words = std::env::args_os();
    let called = words.next().map(PathBuf::from);
    if called.as_deref().and_then(Path::file_name).is_some_and(|name| name == mount::HELPER) {
        return mount::helper(words);
    }
    match words.next() {
        Some(word) if word == "lab-init" => return command::lab_init::init(),
        Some(word) if word == "lab-enter" => {
            return command::lab_init::enter(words.collect::<Vec<OsString>>());
        }
        Some(word) if word == lab::examiner::COMMAND => {
            return lab::examiner::run(&words.collect::<Vec<OsString>>());
        }
        Some(_) | None => {}
    }
    let arguments = Arguments::parse();
    let context = command::Context { root: arguments.root, json: arguments.json };
    match arguments.command {
        Command::Demo(args) => command::demo::run(args, arguments.json),
        Command::Status(args) => command::status::run(&context, &args),
        Command::Why(args) => command::why::run(&context, &args),
        Command::Checks(args) => command::checks::run(&context, &args),
        Command::Events(args) => command::events::run(&context, args),
        Command::Replay(args) => command::replay::run(&context, args),
        Command::Simulate(args) => command::simulate::run(&context, &args),
        Command::Start(args) => command::act::start(&context, args),
        Command::Stop(args) => command::act::stop(&context, args),
        Command::Switchover(args) => command::act::switchover(&context, args),
        Command::ForcePrimary(args) => command::act::force_primary(&context, args),
        Command::Heal(args) => command::heal::run(&context, &args),
        Command::Pause(args) => command::act::pause(&context, args),
        Command::Resume(args) => command::act::resume(&context, args),
        Command::Maintenance(args) => command::act::maintenance(&context, args),
        Command::Verify(args) => command::act::verify(&context, args),
        Command::ResyncRate(args) => command::act::resync_rate(&context, args),
        Command::Wait(args) => command::act::wait(&context, args),
        Command::Init(args) => command::membership::init(&context, args),
        Command::Token(args) => command::membership::token(&context, args),
        Command::Join(args) => command::membership::join(&context, args),
        Command::Leave(args) => command::membership::leave(&context, args),
        Command::RotateKey => command::membership::rotate_key(&context),
        Command::Check => command::check::run(&context),
        Command::Plan(args) => command::configuration::plan(&context, args),
        Command::Apply(args) => command::configuration::apply(&context, args),
        Command::Rollback(args) => command::configuration::rollback(&context, args),
        Command::Config(command) => command::configuration::config(&context, command),
        Command::Mount(args) => mount::run(args),
        Command::Lab(lab) => command::lab::run(lab),
        Command::Daemon(args) => command::process::daemon(&context, args),
        Command::Witness(args) => command::process::witness(&context, args),
        Command::Keeper(args) => command::process::keeper(&context, args),
        Command::Replicator(args) => command::process::replicator(args),
        Command::Ledger(args) => command::demo::ledger(args),
        Command::Web(args) => command::web::run(&args),
    }
}
