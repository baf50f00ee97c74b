//! What the command line asks: answered from the state, or turned into the core's commands.
//!
//! A request that concerns other nodes is passed on to their daemons, by a thread that gathers
//! the replies; nothing here waits.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use cluster::Input;
use cluster::input::{Command, JobId};
use cluster::status::{ModuleStatus, NodeStatus};
use model::config::ModuleConfig;
use model::{Headline, ModuleName, NodeName, Role, Time};
use serde_json::{Value, json};
use wire::control::{Exit, Reply, Verb, WaitFor};

use crate::clock;
use crate::daemon::ask::Peer;
use crate::daemon::effects::check_openers;
use crate::daemon::event::{Event, Line};
use crate::daemon::waiting::{Waiting, never_comes};
use crate::daemon::{Daemon, JOB_MAX, Pending, networks};

impl Daemon {
    /// Takes a request; its reply may come much later.
    pub(super) fn request(&mut self, verb: Verb, lines: Sender<Line>) {
        let reply = match verb {
            Verb::Status => self.status_reply(),
            Verb::Events { module, limit } => self.events_reply(module.as_ref(), limit),
            Verb::Start { module, node } => {
                return self.command(module, node, Command::Start, lines);
            }
            Verb::Stop { module, node } => {
                let command = if node.is_some() { Command::Stop } else { Command::StopAll };
                return self.command(module, node, command, lines);
            }
            Verb::StopAll { module } => {
                return self.command(module, Some(self.name.clone()), Command::StopAll, lines);
            }
            Verb::Switchover { module, to } => return self.switchover(module, to, lines),
            Verb::ResyncRate { module, node, bytes_per_second } => {
                return self.resync_rate(module, node, bytes_per_second, lines);
            }
            Verb::Verify { module, node, repair } => {
                return self.verify(module, node, repair, lines);
            }
            Verb::Leave { node } => return self.leave(node, lines),
            Verb::RotateKey => return self.rotate_key(lines),
            Verb::AdoptClusterKey { text } => self.adopt_cluster_key(&text),
            Verb::AdoptCluster { text, was } => {
                let _ = lines.send(self.adopt_cluster(&text, was));
                return;
            }
            Verb::Configuration { ask } => return self.configure(ask, lines),
            Verb::Found { module, node } => return self.found(module, node, lines),
            Verb::Page { page } => return self.page(page, lines),
            Verb::ForcePrimary { module, node } => {
                return self.command(module, Some(node), Command::ForcePrimary, lines);
            }
            Verb::Discard { module, node } => {
                return self.command(module, Some(node), Command::Discard, lines);
            }
            Verb::Pause { module, node, seconds } => {
                let command = Command::Pause(Duration::from_secs(seconds));
                return self.command(module, node, command, lines);
            }
            Verb::Resume { module, node } => {
                return self.command(module, node, Command::Resume, lines);
            }
            Verb::Maintenance { node, module, seconds } => {
                return self.maintenance(node, module, seconds, lines);
            }
            Verb::Wait { module, state, timeout_ms } => {
                let until = clock::now() + Duration::from_millis(timeout_ms);
                return self.wait(module, state, until, lines);
            }
        };
        let _ = lines.send(Line::Reply(reply));
    }

    fn wait(&mut self, module: ModuleName, state: WaitFor, until: Time, lines: Sender<Line>) {
        let refusal = match self.module_config(&module) {
            Err(reply) => Some(*reply),
            Ok(config) => {
                never_comes(config, &self.name, state).map(|why| Reply::new(Exit::Usage, why))
            }
        };
        match refusal {
            Some(reply) => drop(lines.send(Line::Reply(reply))),
            None => self.waiting.push(Waiting::new(module, state, until, lines)),
        }
    }

    /// Has a command carried out on one node, or on all nodes of the module.
    fn command(
        &mut self,
        module: ModuleName,
        node: Option<NodeName>,
        command: Command,
        lines: Sender<Line>,
    ) {
        let nodes = match self.nodes_for(&module, node) {
            Ok(nodes) => nodes,
            Err(reply) => {
                let _ = lines.send(Line::Reply(*reply));
                return;
            }
        };
        if nodes == [self.name.clone()] {
            return self.local_job(module, command, lines);
        }
        let mut parts = Vec::new();
        for node in nodes {
            if node == self.name {
                let (local, received) = channel();
                self.local_job(module.clone(), command, local);
                parts.push((node, Part::Local(received)));
            } else {
                let verb = verb_for(&module, &node, command);
                parts.push((node.clone(), Part::Remote(Box::new(self.peer(&node)), verb)));
            }
        }
        gather_apart(parts, lines);
    }

    /// A node is worked on, or is not any more: that concerns every module that it carries.
    fn maintenance(
        &mut self,
        node: NodeName,
        module: Option<ModuleName>,
        seconds: Option<u64>,
        lines: Sender<Line>,
    ) {
        if let Some(module) = module {
            return self.command(module, Some(node), maintain(seconds), lines);
        }
        if self.cluster.node(&node).is_none() {
            let known = names(self.cluster.nodes.iter().map(|node| node.name.as_str()));
            let what = format!("there is no node `{node}`; there is {known}");
            let _ = lines.send(Line::Reply(Reply::new(Exit::Usage, what)));
            return;
        }
        if node != self.name {
            let verb = Verb::Maintenance { node: node.clone(), module: None, seconds };
            let part = Part::Remote(Box::new(self.peer(&node)), verb);
            return gather_apart(vec![(node, part)], lines);
        }
        let carried: Vec<ModuleName> = self.node.status(clock::now()).modules.into_keys().collect();
        if carried.is_empty() {
            let what = format!("{node} carries no module");
            let _ = lines.send(Line::Reply(Reply::new(Exit::Done, what)));
            return;
        }
        let mut parts = Vec::new();
        for module in carried {
            let (local, received) = channel();
            self.local_job(module.clone(), maintain(seconds), local);
            parts.push((module, Part::Local(received)));
        }
        gather_apart(parts, lines);
    }

    fn switchover(&mut self, module: ModuleName, to: Option<NodeName>, lines: Sender<Line>) {
        let primary = self.primary_of(&module);
        let problem = match (&primary, &to) {
            _ if let Err(reply) = self.nodes_for(&module, to.clone()) => Some(*reply),
            (None, _) => {
                let mut reply =
                    Reply::new(Exit::Refused, format!("no node is primary of {module}"));
                reply.next = vec![format!("evenkeel why {module}")];
                Some(reply)
            }
            (Some(primary), Some(to)) if primary == to => {
                Some(Reply::new(Exit::Done, format!("{to} is primary of {module} already")))
            }
            (Some(_), _) => None,
        };
        match (problem, primary) {
            (None, Some(primary)) => {
                self.command(module, Some(primary), Command::Switchover, lines);
            }
            (problem, _) => {
                if let Some(reply) = problem {
                    let _ = lines.send(Line::Reply(reply));
                }
            }
        }
    }

    /// Caps resyncs at their source, which is the node that serves.
    fn resync_rate(
        &mut self,
        module: ModuleName,
        node: Option<NodeName>,
        bytes_per_second: Option<u64>,
        lines: Sender<Line>,
    ) {
        let reply = match (self.nodes_for(&module, node.clone()), node) {
            (Err(reply), _) => *reply,
            (Ok(_), node) => match node.or_else(|| self.primary_of(&module)) {
                None => Reply::new(Exit::Refused, format!("no node serves {module}")),
                Some(node) if node == self.name => self.set_rate(&module, bytes_per_second),
                Some(node) => {
                    let peer = self.peer(&node);
                    let verb =
                        Verb::ResyncRate { module, node: Some(node.clone()), bytes_per_second };
                    let parts = vec![(node, Part::Remote(Box::new(peer), verb))];
                    return gather_apart(parts, lines);
                }
            },
        };
        let _ = lines.send(Line::Reply(reply));
    }

    fn set_rate(&mut self, name: &ModuleName, rate: Option<u64>) -> Reply {
        let Some(module) = self.modules.get_mut(name) else { return ended() };
        module.resync_rate = rate;
        let told = module.replicator.as_ref().map(|replicator| replicator.resync_rate(rate));
        if let Some(Err(error)) = told {
            return Reply::new(Exit::Failed, format!("the replicator cannot be told: {error}"));
        }
        let cap = rate
            .map_or("unlimited".to_owned(), |rate| format!("at most {} kB/s", rate.div_ceil(1000)));
        Reply::new(Exit::Done, format!("resyncs of {name} from {} are {cap}", self.name))
    }

    fn local_job(&mut self, module: ModuleName, command: Command, lines: Sender<Line>) {
        let plain = self.modules.get(&module).filter(|module| module.replicator.is_none());
        if let Some(refusal) = self.reserved(&module, command) {
            let _ = lines.send(Line::Reply(refusal));
            return;
        }
        if let (Command::Start, Some(plain)) = (command, plain)
            && let Err(why) = check_openers(plain)
        {
            let _ = lines.send(Line::Reply(Reply::new(Exit::Refused, why)));
            return;
        }
        self.next_job += 1;
        let job = JobId(self.next_job);
        let pending = Pending { module: module.clone(), since: clock::now(), lines };
        self.jobs.insert(job, pending);
        self.input(Input::Operator { job, module, command });
    }

    /// Answers jobs that take too long, unless a resync explains it; what they asked for goes on.
    pub(super) fn give_up_jobs(&mut self, now: Time) {
        let modules = &self.modules;
        let late = self.jobs.extract_if(.., |_, job| {
            let resync = modules.get(&job.module).is_some_and(|module| module.progress.running);
            !resync && now.since(job.since) > JOB_MAX
        });
        for (_, job) in late {
            let what =
                format!("{} has not got there within {JOB_MAX:?}; it goes on trying", job.module);
            let mut reply = Reply::new(Exit::Timeout, what);
            reply.next = vec![format!("evenkeel why {}", job.module)];
            let _ = job.lines.send(Line::Reply(reply));
        }
    }

    pub(super) fn peer(&self, node: &NodeName) -> Peer {
        self.membership().peer(node)
    }

    pub(super) fn nodes_for(
        &self,
        module: &ModuleName,
        node: Option<NodeName>,
    ) -> Result<Vec<NodeName>, Box<Reply>> {
        let config = self.module_config(module)?;
        match node {
            None => Ok(config.nodes.clone()),
            Some(node) if config.nodes.contains(&node) => Ok(vec![node]),
            Some(node) => {
                let known = names(config.nodes.iter().map(NodeName::as_str));
                let what = format!("module {module} has no node `{node}`; it has {known}");
                Err(Box::new(Reply::new(Exit::Usage, what)))
            }
        }
    }

    fn module_config(&self, module: &ModuleName) -> Result<&ModuleConfig, Box<Reply>> {
        self.modules.get(module).map(|module| &module.config).ok_or_else(|| {
            let known = names(self.modules.keys().map(ModuleName::as_str));
            let what = format!("there is no module `{module}`; there is {known}");
            Box::new(Reply::new(Exit::Usage, what))
        })
    }

    pub(super) fn primary_of(&self, module: &ModuleName) -> Option<NodeName> {
        let status = self.node.status(clock::now());
        let status = status.modules.get(module)?;
        let serving = |role| matches!(role, Role::Prim | Role::Alone);
        if serving(status.role) {
            return Some(self.name.clone());
        }
        let peer = status.peer.as_ref()?;
        peer.last.as_ref().filter(|last| serving(last.role)).map(|_| peer.node.clone())
    }

    fn events_reply(&self, module: Option<&ModuleName>, limit: usize) -> Reply {
        let events = self.journal.newest(module, limit);
        let data = json!({ "events": events });
        Reply { data, ..Reply::new(Exit::Done, format!("{} events", events.len())) }
    }

    fn status_reply(&self) -> Reply {
        let now = clock::now();
        let status = self.node.status(now);
        let sentence = self.sentence(&status);
        let mut data = serde_json::to_value(&status).unwrap_or(Value::Null);
        // What is not run on this node is not shown on it.
        let shown = self.modules.iter().filter(|(name, _)| status.modules.contains_key(*name));
        for (name, module) in shown {
            let extra = json!({
                "progress": module.progress,
                "resync_rate": module.resync_rate,
                "protection": self.keys().protection(module.config.replication.encrypt),
                "nodes": module.config.nodes,
                "addresses_configured": module.config.vips,
                "replicate": module.config.replicate,
            });
            data["modules"][name.as_str()]["detail"] = extra;
        }
        data["now"] = json!(now);
        data["cluster"] = json!(self.cluster.cluster);
        data["configuration"] = self.configuration_status(now);
        let heard = self.heartbeats.heard();
        data["networks"] = networks::shown(&self.cluster, &self.name, &heard, now);
        data["network_reasons"] = json!(self.house.networks.reasons(&self.cluster, &self.name));
        data["turned_away"] = json!(self.heartbeats.turned_away());
        data["certificate"] = self.renewal.status();
        data["turned_away"]["callers"] = json!(self.door.refused());
        data["witness"] = self.witness_status(now);
        data["watchdog"] = self.watchdog.status(now);
        data["heartbeats"] = json!(self.heartbeats.urgency().map(|urgency| urgency.to_string()));
        Reply { data, ..Reply::new(Exit::Done, sentence) }
    }

    fn sentence(&self, status: &NodeStatus) -> String {
        let worst = status.modules.iter().max_by_key(|(_, module)| module.headline);
        match worst {
            None => "no module is configured".to_owned(),
            Some((name, ModuleStatus { headline: Headline::Protected, .. })) => {
                let others = status.modules.len() - 1;
                let more = if others == 0 { String::new() } else { format!(" and {others} more") };
                format!("{name}{more} is protected: the loss of any one node is survived")
            }
            Some((name, ModuleStatus { headline: Headline::Runs, .. })) => {
                let is_light = |module: &&ModuleStatus| module.headline == Headline::Runs;
                let others = status.modules.values().filter(is_light).count() - 1;
                let more = if others == 0 { String::new() } else { format!(" and {others} more") };
                format!("all is well; {name}{more} runs on {} alone", status.node)
            }
            Some((name, module)) => {
                let why = module.reasons.first().map_or("", |reason| reason.sentence.as_str());
                format!("{name} is {}: {why}", module.headline.to_string().to_lowercase())
            }
        }
    }

    fn witness_status(&self, now: Time) -> Value {
        let Some(address) = self.cluster.witness else { return Value::Null };
        let ago = self.witness.last_answer.map(|at| now.since(at).as_millis());
        json!({ "address": address, "last_answer_ms": ago, "error": self.witness.error })
    }
}

/// A node's part of a request.
pub(super) enum Part {
    Local(std::sync::mpsc::Receiver<Line>),
    Remote(Box<Peer>, Verb),
}

fn verb_for(module: &ModuleName, node: &NodeName, command: Command) -> Verb {
    let (module, node) = (module.clone(), node.clone());
    match command {
        Command::Start => Verb::Start { module, node: Some(node) },
        Command::Stop => Verb::Stop { module, node: Some(node) },
        Command::StopAll => Verb::StopAll { module },
        Command::Switchover => Verb::Switchover { module, to: None },
        Command::ForcePrimary => Verb::ForcePrimary { module, node },
        Command::Discard => Verb::Discard { module, node },
        Command::Pause(length) => {
            Verb::Pause { module, node: Some(node), seconds: length.as_secs() }
        }
        Command::Resume => Verb::Resume { module, node: Some(node) },
        Command::Maintain(length) => {
            let seconds = Some(length.as_secs());
            Verb::Maintenance { node, module: Some(module), seconds }
        }
        Command::EndMaintenance => Verb::Maintenance { node, module: Some(module), seconds: None },
    }
}

fn maintain(seconds: Option<u64>) -> Command {
    match seconds {
        Some(seconds) => Command::Maintain(Duration::from_secs(seconds)),
        None => Command::EndMaintenance,
    }
}

/// Gathers the parts, each with its name, on a thread of its own.
pub(super) fn gather_apart<N>(parts: Vec<(N, Part)>, lines: Sender<Line>)
where
    N: std::fmt::Display + Send + 'static,
{
    let gathering = move || {
        let _ = lines.send(Line::Reply(gather(parts, &lines)));
    };
    // Without a thread nobody answers, which the asker sees as the end of its connection.
    let _ = std::thread::Builder::new().name("gather".to_owned()).spawn(gathering);
}

/// Waits for every node's part; the worst outcome is the outcome.
fn gather<N: std::fmt::Display>(parts: Vec<(N, Part)>, lines: &Sender<Line>) -> Reply {
    let alone = parts.len() == 1;
    let mut waits = Vec::new();
    for (node, part) in parts {
        let lines = lines.clone();
        let wait = std::thread::spawn(move || match part {
            Part::Local(received) => wait_local(&received, &lines),
            Part::Remote(peer, verb) => peer.request(verb, &lines),
        });
        waits.push((node, wait));
    }
    let mut whole: Option<Reply> = None;
    for (node, wait) in waits {
        let mut reply = wait.join().unwrap_or_else(|_| ended());
        if !alone {
            reply.sentence = format!("{node}: {}", reply.sentence);
        }
        whole = Some(match whole {
            None => reply,
            Some(mut before) => {
                before.sentence = format!("{}; {}", before.sentence, reply.sentence);
                before.outcome = before.outcome.max(reply.outcome);
                before.next.extend(reply.next);
                before
            }
        });
    }
    whole.unwrap_or_else(ended)
}

pub(super) fn wait_local(
    received: &std::sync::mpsc::Receiver<Line>,
    lines: &Sender<Line>,
) -> Reply {
    for line in received {
        match line {
            Line::Reply(reply) | Line::Last(reply, _) => return reply,
            Line::Progress(text) => {
                let _ = lines.send(Line::Progress(text));
            }
        }
    }
    ended()
}

pub(super) fn ended() -> Reply {
    Reply::new(Exit::Failed, "the daemon ended before the outcome was known")
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}

/// Ends the daemon when a signal asks for it.
pub(super) fn terminate_on_signal(events: Sender<Event>) -> std::io::Result<()> {
    let signals = [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT];
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            let _ = events.send(Event::Terminate);
        }
    })?;
    Ok(())
}
