//! `evenkeel checks`: what the checks of applications say on this node.

use std::process::ExitCode;

use clap::Args;
use model::ModuleName;
use serde_json::{Map, Value, json};
use wire::control::{Exit, Reply, Verb};

use crate::command::Context;
use crate::render;

/// Which checks to show.
#[derive(Debug, Args)]
pub(crate) struct ChecksArgs {
    /// Only those of this module.
    #[arg(value_parser = ModuleName::new)]
    module: Option<ModuleName>,
}

pub(crate) fn run(context: &Context, args: &ChecksArgs) -> ExitCode {
    let mut reply = context.ask(Verb::Status);
    if reply.outcome == Exit::Done {
        reply = answer(&reply.data, args.module.as_ref());
    }
    context.finish(&reply, |reply| reply.sentence.clone())
}

fn answer(status: &Value, only: Option<&ModuleName>) -> Reply {
    let empty = Map::new();
    let modules = status["modules"].as_object().unwrap_or(&empty);
    let wanted = |name: &str| only.is_none_or(|only| only.as_str() == name);
    let found: Map<String, Value> = modules
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, module)| (name.clone(), module["checks"].clone()))
        .collect();
    if let Some(only) = only.filter(|_| found.is_empty()) {
        return Reply::new(Exit::Usage, format!("there is no module `{only}` on this node"));
    }
    let texts: Vec<String> =
        found.keys().map(|name| format!("{name}\n{}", render::checks(status, name))).collect();
    let text = match texts.is_empty() {
        true => "no module is configured".to_owned(),
        false => texts.concat().trim_end().to_owned(),
    };
    let data = json!({ "node": status["node"], "now": status["now"], "checks": found });
    Reply { data, ..Reply::new(Exit::Done, text) }
}
