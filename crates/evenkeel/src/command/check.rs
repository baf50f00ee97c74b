//! `evenkeel check`: reads the configuration files and says all that is wrong with them.

use std::process::ExitCode;

use serde_json::json;
use wire::control::{Exit, Reply};

use crate::command::Context;

pub(crate) fn run(context: &Context) -> ExitCode {
    let reply = match node::load_configuration(&context.layout()) {
        Ok(configuration) => {
            let modules: Vec<_> =
                configuration.modules.iter().map(|module| module.name.as_str()).collect();
            let sentence = format!(
                "the configuration is good: cluster {}, {} nodes, modules: {}",
                configuration.cluster.cluster,
                configuration.cluster.nodes.len(),
                if modules.is_empty() { "none".to_owned() } else { modules.join(", ") },
            );
            Reply { data: json!({ "modules": modules }), ..Reply::new(Exit::Done, sentence) }
        }
        Err(error) => Reply::new(Exit::Usage, error.to_string()),
    };
    context.finish(&reply, |reply| format!("✔ {}", reply.sentence))
}
