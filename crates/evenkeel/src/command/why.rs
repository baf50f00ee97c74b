//! `evenkeel why`: the reasons for a module's state, with evidence and what to do.

use std::process::ExitCode;

use clap::Args;
use model::ModuleName;
use serde_json::json;
use wire::control::{Exit, Reply, Verb};

use crate::command::Context;
use crate::render;

/// Which module to explain.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Module.
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
}

pub(crate) fn run(context: &Context, args: &WhyArgs) -> ExitCode {
    let name = args.module.as_str();
    let mut reply = context.ask(Verb::Status);
    if reply.outcome == Exit::Done {
        reply = match reply.data["modules"].get(name) {
            None => Reply::new(Exit::Usage, format!("there is no module `{name}` on this node")),
            Some(module) => {
                let text = render::why(&reply.data, name);
                let data = json!({
                    "module": name,
                    "headline": module["headline"],
                    "reasons": module["reasons"],
                    "checks": module["checks"],
                    "network_reasons": reply.data["network_reasons"],
                });
                Reply { data, ..Reply::new(Exit::Done, text) }
            }
        };
    }
    context.finish(&reply, |reply| reply.sentence.clone())
}
