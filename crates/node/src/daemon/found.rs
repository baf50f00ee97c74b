//! The state of a module for those who want to go on from it elsewhere, such as in a simulation.
//! Nothing of the node changes by that.

use std::sync::mpsc::Sender;

use model::{ModuleName, NodeName};
use serde_json::json;
use wire::control::{Exit, Reply, Verb};

use crate::clock;
use crate::daemon::Daemon;
use crate::daemon::event::Line;
use crate::daemon::requests::{Part, gather_apart};

impl Daemon {
    /// Answers with the state of a module here, or has its other node answer.
    pub(super) fn found(&self, module: ModuleName, node: Option<NodeName>, lines: Sender<Line>) {
        let reply = match (self.nodes_for(&module, node.clone()), node) {
            (Err(reply), _) => *reply,
            (Ok(_), Some(node)) if node != self.name => {
                let peer = self.peer(&node);
                let verb = Verb::Found { module, node: Some(node.clone()) };
                let parts = vec![(node, Part::Remote(Box::new(peer), verb))];
                return gather_apart(parts, lines);
            }
            (Ok(_), _) => {
                let found = self.node.found(clock::now(), &module);
                let text = found.and_then(|found| serde_json::to_string(&found).ok());
                let sentence = format!("{module} as {} has it", self.name);
                Reply { data: json!({ "found": text }), ..Reply::new(Exit::Done, sentence) }
            }
        };
        // An asker that has gone needs no answer.
        let _ = lines.send(Line::Reply(reply));
    }
}
