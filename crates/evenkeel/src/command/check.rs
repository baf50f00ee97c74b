//! `evenkeel check`: reads the configuration files and says all that is wrong with them, or with
//! the directories that they name.

use std::process::ExitCode;

use serde_json::json;
use wire::control::{Exit, Reply};

use crate::command::{Context, machine};

pub(crate) fn run(context: &Context) -> ExitCode {
    let layout = context.layout();
    let loaded = node::load_configuration(&layout).map_err(|error| error.to_string());
    let usable = loaded.and_then(|configuration| {
        let found = machine::check_directories(&layout, None);
        found.map(|()| configuration).map_err(|found| found.to_string())
    });
    let reply = match usable {
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
        Err(error) => Reply::new(Exit::Usage, error),
    };
    context.finish(&reply, |reply| format!("✔ {}", reply.sentence))
}
