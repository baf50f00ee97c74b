//! The state of a module on one node, asked of its daemon.

use cluster::found::Found;
use model::{ModuleName, NodeName};
use wire::control::{Exit, Reply, Verb};

use crate::command::Context;

/// Asks this node's daemon, which asks that of another node if one is named.
///
/// # Errors
/// What is to be told to the user instead.
pub(crate) fn asked(
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

/// The peer of a mirror.
///
/// # Errors
/// What is to be told to the user, if the module has none.
pub(crate) fn peer_of(found: &Found) -> Result<NodeName, Box<Reply>> {
    found.status.peer.as_ref().map(|peer| peer.node.clone()).ok_or_else(|| {
        let what = format!("{} is no mirror: it has no peer", found.module.config.name);
        Box::new(Reply::new(Exit::Usage, what))
    })
}
