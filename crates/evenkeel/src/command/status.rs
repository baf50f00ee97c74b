//! `evenkeel status`.

use std::process::ExitCode;

use clap::Args;
use model::ModuleName;
use wire::control::{Exit, Reply, Verb};

use crate::command::Context;
use crate::render;

/// What to show.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only this module, in detail.
    #[arg(value_parser = ModuleName::new)]
    module: Option<ModuleName>,
    /// All modules in detail.
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(context: &Context, args: &StatusArgs) -> ExitCode {
    let mut reply = context.ask(Verb::Status);
    if let (Exit::Done, Some(module)) = (reply.outcome, &args.module)
        && reply.data["modules"].get(module.as_str()).is_none()
    {
        reply = Reply::new(Exit::Usage, format!("there is no module `{module}` on this node"));
    }
    context.finish(&reply, |reply| match &args.module {
        Some(module) => render::module(&reply.data, module.as_str()),
        None => render::overview(&reply.data, args.verbose),
    })
}
