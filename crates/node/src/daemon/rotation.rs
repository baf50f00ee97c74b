//! The cluster's key is changed while everything goes on.
//!
//! ```text
//! 1. every node accepts the new key too      old, new
//! 2. every node seals with the new key       new, old
//! 3. nobody accepts the old key any more     new
//! ```
//! Each step begins when all nodes have done the one before, so at any time everybody understands
//! everybody. A step that fails leaves what all understand. So that no two changes meet, the first
//! node of the cluster's file does it, whichever node is asked.

use std::fs;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use wire::control::{Exit, Reply, Verb};

use crate::daemon::Daemon;
use crate::daemon::event::{Event, Line};
use crate::daemon::membership::{Membership, ask_oneself};
use crate::daemon::requests::{Part, gather_apart};
use crate::durable;
use crate::keys::Keys;
use crate::seal::{self, ClusterKey};

/// Held while a change goes on.
static CHANGING: Mutex<()> = Mutex::new(());

impl Daemon {
    /// Changes the cluster's key, or has that done.
    pub(super) fn rotate_key(&self, lines: Sender<Line>) {
        if !self.keys().exist() {
            let why = "this cluster has no keys".to_owned();
            let _ = lines.send(Line::Reply(Reply::new(Exit::Refused, why)));
            return;
        }
        let first = self.cluster.nodes.first().map(|node| node.name.clone());
        match first.filter(|first| *first != self.name) {
            Some(first) => {
                let part = Part::Remote(Box::new(self.peer(&first)), Verb::RotateKey);
                gather_apart(vec![(first, part)], lines);
            }
            None => {
                let (membership, events) = (self.membership(), self.sender.clone());
                let changing = move || {
                    let failed = |why| Reply::new(Exit::Failed, why);
                    let reply = rotate(&membership, &events, &lines).unwrap_or_else(failed);
                    let _ = lines.send(Line::Reply(reply));
                };
                // Without a thread nobody answers, which the asker sees as the end of its
                // connection.
                let _ = std::thread::Builder::new().name("rotate".to_owned()).spawn(changing);
            }
        }
    }

    /// The first node of the cluster has this one use these keys.
    pub(super) fn adopt_cluster_key(&self, text: &str) -> Reply {
        let own = &self.name;
        let adopted = ClusterKey::parse(text).and_then(|_| write(&self.keys(), text));
        match adopted {
            Ok(()) => {
                self.heartbeats.refresh_key();
                Reply::new(Exit::Done, format!("{own} has the keys"))
            }
            Err(error) => Reply::new(Exit::Failed, format!("{own} cannot take the keys: {error}")),
        }
    }
}

fn rotate(
    membership: &Membership,
    events: &Sender<Event>,
    lines: &Sender<Line>,
) -> Result<Reply, String> {
    let _one = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = membership.keys.cluster_key_file();
    let old = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let new = seal::new_key().map_err(|error| error.to_string())?;
    // What earlier attempts have left behind that no node can be sealing with is not kept.
    let old: String = old.lines().take(2).map(|key| format!("{key}\n")).collect();
    let steps = [
        ("accepts the new key", format!("{old}{new}")),
        ("seals with the new key", format!("{new}{old}")),
        ("accepts the old key no more", new),
    ];
    for (what, text) in &steps {
        let _ = lines.send(Line::Progress(format!("every node {what}")));
        for node in &membership.cluster.nodes {
            let verb = Verb::AdoptClusterKey { text: text.clone() };
            let given = if node.name == membership.own {
                ask_oneself(events, verb)
            } else {
                membership.peer(&node.name).request(verb, &channel().0)
            };
            judge(given).map_err(|why| {
                format!("{why}; the nodes go on with keys that all understand; try again")
            })?;
        }
    }
    Ok(Reply::new(Exit::Done, "the cluster has a new key for heartbeats".to_owned()))
}

fn judge(reply: Reply) -> Result<(), String> {
    if reply.outcome == Exit::Done { Ok(()) } else { Err(reply.sentence) }
}

/// Replaces the keys of a node; one that has none does not begin to have some by this, as it could
/// not show who it is.
fn write(keys: &Keys, text: &str) -> io::Result<()> {
    let path = keys.cluster_key_file();
    if !path.try_exists()? {
        return Err(io::Error::other(format!("there is no {} to be replaced", path.display())));
    }
    durable::write_secret(&path, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::Site;

    #[test]
    fn keys_are_replaced_where_there_are_some_and_nowhere_else() {
        let site = Site::new("rotation");
        let keys = site.keys("node1");
        let new = seal::new_key().unwrap();
        write(&keys, &new).unwrap();
        let file = keys.cluster_key_file();
        assert_eq!(fs::read_to_string(&file).unwrap(), new);
        let directory = file.parent().unwrap();
        fs::remove_dir_all(directory).unwrap();
        write(&keys, &new).unwrap_err();
        assert!(!directory.exists());
    }
}
