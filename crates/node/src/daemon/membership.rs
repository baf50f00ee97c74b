//! Nodes that come and go: every node gets the new `cluster.toml`, or none does.
//!
//! Each node looks first whether its modules still make sense with it. One that cannot be reached,
//! or that refuses, ends the whole, and those that had agreed get the former text again. A daemon
//! takes a new text into use by starting anew in its own process; what it runs goes on. So it must
//! find the files of what it runs as they were: otherwise it refuses. Every node does all this in
//! its main loop, also the one that is asked for the change.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use cluster::configuration::Version;
use model::config::{self, ClusterConfig, ModuleConfig};
use model::{ModuleName, NodeName, Role};
use wire::control::{Exit, Reply, Verb};

use crate::belonging;
use crate::clock;
use crate::cluster_text::{self, ClusterText};
use crate::configuration;
use crate::configuration::store::Store;
use crate::connection::Callee;
use crate::daemon::Daemon;
use crate::daemon::ask::Peer;
use crate::daemon::configuring::{DECIDING, WRITING};
use crate::daemon::event::{Event, Line};
use crate::daemon::module::Module;
use crate::daemon::replicators::replication_addresses;
use crate::daemon::requests::{ended, wait_local};
use crate::durable;
use crate::files;
use crate::keys::Keys;
use crate::layout::Layout;

/// How often, and with what pauses, a node is asked that is starting anew.
const UNDO_ATTEMPTS: u32 = 50;
const UNDO_PAUSE: Duration = Duration::from_millis(100);

/// A cluster as one of its nodes has it.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    pub(super) layout: Layout,
    pub(super) own: NodeName,
    pub(super) cluster: ClusterConfig,
    pub(super) keys: Keys,
}

impl Membership {
    /// The other node that has an address.
    pub(super) fn at(&self, address: IpAddr) -> Option<&NodeName> {
        let mut others = self.cluster.nodes.iter().filter(|node| node.name != self.own);
        let found = others.find(|node| node.addresses.values().any(|known| *known == address));
        found.map(|node| &node.name)
    }

    /// The file as it is, if it is what this daemon runs with.
    pub(super) fn present(&self) -> Result<ClusterText, String> {
        let path = self.layout.cluster_file();
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        let present = cluster_text::read(&text)?;
        if present.cluster == self.cluster {
            return Ok(present);
        }
        let own = &self.own;
        let mend = match self.applied()? {
            Some(_) => "`evenkeel apply` it",
            None => "restart its daemon with it",
        };
        Err(format!("cluster.toml of {own} was changed; {mend}, or undo that"))
    }

    /// Whether this node's modules make sense with a text.
    pub(super) fn check(&self, wanted: &ClusterText) -> Result<Vec<ModuleConfig>, String> {
        if let Some(newest) = self.applied()? {
            let with = configuration::with_cluster_text(&newest, &self.own, &wanted.text);
            let read = files::parse(&self.layout, &with.files);
            return read.map(|read| read.modules).map_err(|mistakes| mistakes.to_string());
        }
        let modules = files::load_modules(&self.layout, &wanted.cluster);
        modules.map_err(|mistakes| mistakes.to_string())
    }

    /// Gives every node a new text, but for one that goes; or none. The daemon of this one, whose
    /// events these are, has yet to be started anew.
    pub(super) fn change(
        &self,
        (before, after): (&ClusterText, &ClusterText),
        gone: Option<&NodeName>,
        events: &Sender<Event>,
    ) -> Result<(), String> {
        let _one = DECIDING.lock().unwrap_or_else(PoisonError::into_inner);
        let others = before.cluster.nodes.iter().map(|node| &node.name);
        let others = others.filter(|name| **name != self.own && Some(*name) != gone);
        let mut told = Vec::new();
        let tell = || {
            for node in others {
                done(self.give(node, before, after))?;
                told.push(node);
            }
            if gone == Some(&self.own) {
                return Ok(());
            }
            done(ask_oneself(events, adoption(before, after)))
        };
        let Err(mut why) = tell() else { return Ok(()) };
        for node in told {
            if let Err(also) = self.undo(node, before, after) {
                why +=
                    &format!("; and {node}, which had agreed, keeps the new cluster.toml: {also}");
            }
        }
        Err(why)
    }

    /// Gives a node its former text again. It is just starting anew, so it is asked more than once.
    fn undo(
        &self,
        node: &NodeName,
        before: &ClusterText,
        after: &ClusterText,
    ) -> Result<(), String> {
        let mut reply = self.give(node, after, before);
        for _ in 1..UNDO_ATTEMPTS {
            if reply.outcome != Exit::Unreachable {
                break;
            }
            std::thread::sleep(UNDO_PAUSE);
            reply = self.give(node, after, before);
        }
        done(reply)
    }

    fn give(&self, node: &NodeName, before: &ClusterText, after: &ClusterText) -> Reply {
        self.peer(node).request(adoption(before, after), &channel().0)
    }

    /// Another node's daemon.
    pub(super) fn peer(&self, node: &NodeName) -> Peer {
        let addresses = replication_addresses(&self.cluster, node);
        let (name, keys) = (node.clone(), self.keys.clone());
        let callee = Callee { name, addresses, keys, encrypt: true };
        Peer::new(&self.cluster.cluster, &self.own, callee)
    }

    /// The configuration in use, if one was applied.
    fn applied(&self) -> Result<Option<Version>, String> {
        let newest = Store::of(&self.layout).newest().map_err(|error| error.to_string())?;
        Ok(newest.filter(|newest| newest.number > 0))
    }

    /// Makes a text this node's own, in place of exactly that one. Where configurations are applied
    /// it is one more of them: a node that does not hear of it here catches up.
    fn adopt(&self, before: &ClusterText, after: &ClusterText) -> Result<(), String> {
        let busy = || format!("a configuration is just being applied to {}", self.own);
        // Not waited for: whoever has it may be waiting for the main loop, which this is.
        let _one = WRITING.try_lock().map_err(|_| busy())?;
        if self.present()?.text != before.text {
            return Err(format!("cluster.toml of {} was changed meanwhile", self.own));
        }
        if Store::of(&self.layout).pending().map_err(|error| error.to_string())?.is_some() {
            return Err(busy());
        }
        if let Some(newest) = self.applied()? {
            let version = configuration::with_cluster_text(&newest, &self.own, &after.text);
            let taken = configuration::take(&self.layout, &version, false);
            return taken.map_err(|error| error.to_string());
        }
        let written = durable::write_text(&self.layout.cluster_file(), &after.text);
        written.map_err(|error| error.to_string())
    }

    /// Removes a node from the cluster, this one or another.
    fn remove(&self, node: &NodeName, events: &Sender<Event>) -> Result<Line, String> {
        let before = self.present()?;
        if before.cluster.node(node).is_none() {
            return Err(format!("the cluster has no node {node}"));
        }
        if before.cluster.nodes.len() == 1 {
            let directory = self.layout.configuration_directory();
            return Err(format!(
                "{node} is the only node: to end the cluster, stop its daemon and remove {}",
                directory.display()
            ));
        }
        let after = cluster_text::without_node(&before, node)?;
        if *node != self.own {
            self.check(&after)?;
        }
        self.change((&before, &after), Some(node), events)?;
        if *node == self.own {
            belonging::forget(&self.layout).map_err(|error| error.to_string())?;
            let what =
                format!("{node} has left the cluster, and its keys are gone; its daemon ends");
            return Ok(Line::Last(Reply::new(Exit::Done, what), Box::new(Event::Terminate)));
        }
        let mut reply =
            Reply::new(Exit::Done, format!("{node} does not belong to the cluster now"));
        reply.next = vec!["evenkeel rotate-key, as that node knows the present one".to_owned()];
        Ok(Line::Last(reply, Box::new(Event::Again)))
    }
}

/// Asks a node to replace exactly one text by another.
fn adoption(before: &ClusterText, after: &ClusterText) -> Verb {
    let was = config::cluster_digest(&before.cluster);
    Verb::AdoptCluster { text: after.text.clone(), was }
}

/// Asks this node as the others are asked, from another thread than its main loop's.
pub(super) fn ask_oneself(events: &Sender<Event>, verb: Verb) -> Reply {
    let (lines, received) = channel();
    if events.send(Event::Request { verb, lines }).is_err() {
        return ended();
    }
    wait_local(&received, &channel().0)
}

fn done(reply: Reply) -> Result<(), String> {
    if reply.outcome == Exit::Done { Ok(()) } else { Err(reply.sentence) }
}

impl Daemon {
    pub(super) fn membership(&self) -> Membership {
        Membership {
            layout: self.layout.clone(),
            own: self.name.clone(),
            cluster: self.cluster.clone(),
            keys: self.keys(),
        }
    }

    /// Another node's daemon gives this one a new text.
    pub(super) fn adopt_cluster(&self, text: &str, was: u64) -> Line {
        let own = &self.name;
        let adopted = cluster_text::read(text).and_then(|after| {
            let membership = self.membership();
            let before = membership.present()?;
            if config::cluster_digest(&before.cluster) != was {
                return Err("it has another cluster.toml than the node that changes it".to_owned());
            }
            self.check_running()?;
            let modules = membership.check(&after)?;
            self.node.keeps_farms(&modules)?;
            membership.adopt(&before, &after)
        });
        match adopted {
            Ok(()) => {
                let reply = Reply::new(Exit::Done, format!("{own} has the new cluster.toml"));
                Line::Last(reply, Box::new(Event::Again))
            }
            Err(why) => Line::Reply(Reply::new(Exit::Refused, format!("{own} refuses: {why}"))),
        }
    }

    /// Whether a daemon that starts anew would find what runs here as it is.
    fn check_running(&self) -> Result<(), String> {
        if self.configuring.stand().number > 0 {
            // What was applied is found as it was, whatever the files say.
            return Ok(());
        }
        let status = self.node.status(clock::now());
        let runs = |name: &ModuleName, module: &Module| {
            let role = status.modules.get(name).map(|module| module.role);
            module.replicator.is_some() || role.is_some_and(|role| role != Role::Stop)
        };
        let found = files::load_modules(&self.layout, &self.cluster);
        let found = found.map_err(|error| format!("its modules cannot be read: {error}"))?;
        for (name, module) in self.modules.iter().filter(|(name, module)| runs(name, module)) {
            match found.iter().find(|config| config.name == *name) {
                None => {
                    return Err(format!(
                        "module {name} runs there, and its file is missing in {}: put it back, or \
                         stop the module first",
                        self.layout.module_directory().display()
                    ));
                }
                Some(config) if *config != module.config => {
                    return Err(format!(
                        "module {name} runs there, and its file has been changed since: undo that, \
                         or stop the module and restart the daemon first"
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Removes a node; asks the others on a thread of its own.
    pub(super) fn leave(&self, node: Option<NodeName>, lines: std::sync::mpsc::Sender<Line>) {
        let node = node.unwrap_or_else(|| self.name.clone());
        if let Some(why) = self.is_needed(&node) {
            let _ = lines.send(Line::Reply(Reply::new(Exit::Refused, why)));
            return;
        }
        let (membership, events) = (self.membership(), self.sender.clone());
        let removing = move || {
            let refused = |why| Line::Reply(Reply::new(Exit::Refused, why));
            let _ = lines.send(membership.remove(&node, &events).unwrap_or_else(refused));
        };
        // Without a thread nobody answers, which the asker sees as the end of its connection.
        let _ = std::thread::Builder::new().name("leave".to_owned()).spawn(removing);
    }

    /// Why a node cannot go now.
    fn is_needed(&self, node: &NodeName) -> Option<String> {
        let status = self.node.status(clock::now());
        let name = status.running_on(node)?;
        Some(format!("module {name} runs on {node}: evenkeel stop {name} --node {node}"))
    }
}
