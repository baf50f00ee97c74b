//! `evenkeel events`: what happened, newest last.

use std::process::ExitCode;

use clap::Args;
use model::ModuleName;
use wire::control::Verb;

use crate::command::Context;
use crate::render;

/// Which events to show.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only of this module.
    #[arg(value_parser = ModuleName::new)]
    module: Option<ModuleName>,
    /// At most so many.
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: usize,
}

pub(crate) fn run(context: &Context, args: EventsArgs) -> ExitCode {
    let reply = context.ask(Verb::Events { module: args.module, limit: args.limit });
    context.finish(&reply, |reply| render::events(&reply.data))
}
