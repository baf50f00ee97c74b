//! The states of a module's two nodes: asked of their daemons, or taken from the end of recordings.

use std::path::{Path, PathBuf};

use cluster::found::Found;
use cluster::replay::Replay;
use model::{ModuleName, NodeName, Time};
use node::recordings;
use sim::live::{Live, hears};
use wire::control::{Exit, Reply, Verb};
use wire::recording::Reader;

use crate::command::Context;

/// Both nodes of a module, in the order of its configuration.
pub(super) struct States {
    pub(super) module: ModuleName,
    pub(super) nodes: [Live; 2],
}

/// The states, or what is to be told to the user instead.
pub(super) fn take(
    context: &Context,
    module: Option<&ModuleName>,
    paths: &[PathBuf],
) -> Result<States, Box<Reply>> {
    let mut nodes = Vec::new();
    for path in paths {
        nodes.push((recorded(path, module)?, false));
    }
    match nodes.len() {
        0 => {
            let here = asked(context, &module_of(context, module)?, None)?;
            let peer = here.status.peer.node.clone();
            let there =
                asked(context, &here.module.config.name, Some(peer)).map_err(|mut reply| {
                    reply.next = vec!["or give its recording: --recording PATH".to_owned()];
                    reply
                })?;
            nodes.extend([(here, true), (there, true)]);
        }
        1 => {
            let recorded = &nodes[0].0;
            let peer = recorded.status.peer.node.clone();
            let found = asked(context, &recorded.module.config.name, Some(peer))?;
            nodes.push((found, true));
        }
        _ => {}
    }
    let [one, two] = <[(Found, bool); 2]>::try_from(nodes)
        .map_err(|_| usage("a module has two nodes: give at most two recordings".to_owned()))?;
    if one.0.node == two.0.node || one.0.module.config.name != two.0.module.config.name {
        let what = "the two states are not those of the two nodes of one module".to_owned();
        return Err(usage(what));
    }
    Ok(ordered(one, two))
}

fn ordered(one: (Found, bool), two: (Found, bool)) -> States {
    let module = one.0.module.config.name.clone();
    let first = one.0.module.config.nodes.first() == Some(&one.0.node);
    let [one, two] = if first { [one, two] } else { [two, one] };
    // A node that did not answer itself runs if the other one hears it.
    let apart = !one.1 && !two.1 && !hears(&one.0) && !hears(&two.0);
    let (one_up, two_up) = (one.1 || hears(&two.0) || apart, two.1 || hears(&one.0) || apart);
    let nodes = [Live { found: one.0, up: one_up }, Live { found: two.0, up: two_up }];
    States { module, nodes }
}

/// The module that is meant.
fn module_of(context: &Context, module: Option<&ModuleName>) -> Result<ModuleName, Box<Reply>> {
    if let Some(module) = module {
        return Ok(module.clone());
    }
    let reply = context.ask(Verb::Status);
    if reply.outcome != Exit::Done {
        return Err(Box::new(reply));
    }
    let modules = reply.data["modules"].as_object();
    let names: Vec<&str> = modules.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    only(&names)
}

fn only(names: &[&str]) -> Result<ModuleName, Box<Reply>> {
    match names {
        [name] => ModuleName::new(name).map_err(|error| usage(error.to_string())),
        names => Err(usage(format!("say which module, by --module: {}", names.join(", ")))),
    }
}

fn asked(
    context: &Context,
    module: &ModuleName,
    node: Option<NodeName>,
) -> Result<Found, Box<Reply>> {
    let reply = context.ask(Verb::Found { module: module.clone(), node });
    if reply.outcome != Exit::Done {
        return Err(Box::new(reply));
    }
    let text = reply.data["found"].as_str().unwrap_or_default();
    serde_json::from_str(text).map_err(|error| {
        let what = format!("the state of {module} is not understood: {error}");
        Box::new(Reply::new(Exit::Failed, what))
    })
}

/// The state at the end of a recording.
fn recorded(path: &Path, module: Option<&ModuleName>) -> Result<Found, Box<Reply>> {
    let wrong = |why: String| usage(format!("{}: {why}", path.display()));
    let mut replay = Replay::default();
    let mut at = Time::ZERO;
    for segment in recordings::segments(path).map_err(|error| wrong(error.to_string()))? {
        let bytes = recordings::read(&segment).map_err(|error| wrong(error.to_string()))?;
        let Ok(mut reader) = Reader::new(&bytes) else { continue };
        // What is torn off is as if it had not happened.
        while let Ok(Some(read)) = reader.read() {
            at = read.at;
            let taken = read
                .entry
                .map_err(drop)
                .and_then(|entry| replay.take(at, entry).map(drop).map_err(drop));
            if taken.is_err() {
                replay.lose();
            }
        }
    }
    let node = replay.node().ok_or_else(|| {
        wrong("this program cannot replay it to its end; `evenkeel replay` says why".to_owned())
    })?;
    let status = node.status(at);
    let names: Vec<&str> = status.modules.keys().map(ModuleName::as_str).collect();
    let module = match module {
        Some(module) => module.clone(),
        None => only(&names)?,
    };
    node.found(at, &module).ok_or_else(|| {
        wrong(format!("there is no module `{module}`; there is {}", names.join(", ")))
    })
}

fn usage(what: String) -> Box<Reply> {
    Box::new(Reply::new(Exit::Usage, what))
}
