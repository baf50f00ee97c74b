//! A configuration is applied to all nodes, or to none, from the node that was asked.
//!
//! The nodes are asked in the order of `cluster.toml`, so that of two who apply at once the one
//! that comes first to the first node goes on. The decision is this node's own commit.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::TryLockError;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use cluster::configuration::{Origin, Proposal, Version};
use model::config::{self, CLUSTER_FILE, Change, Files};
use model::{ModuleName, NodeName};
use serde_json::{Value, json};
use wire::control::{Applying, ConfigurationSource, Configuring as Ask, Exit, Reply, Verb};

use crate::clock;
use crate::configuration::{draft, wall_ms};
use crate::daemon::configuring::answer;
use crate::daemon::configuring::{Context, DECIDING, lock};
use crate::daemon::event::{Event, Line};
use crate::files;

/// How often, and with what pauses, a node that has agreed is told the decision; one that does not
/// hear it asks by itself.
const COMMIT_ATTEMPTS: u32 = 10;
const COMMIT_PAUSE: Duration = Duration::from_millis(200);

/// What is to be applied, and what that changes.
struct Plan {
    proposal: Proposal,
    changes: Vec<Change>,
    notes: Vec<String>,
    /// Nothing was applied yet, and a node found other files at its start.
    brings_together: bool,
}

/// What the nodes say of a proposal.
#[derive(Default)]
struct Answers {
    agreed: Vec<NodeName>,
    refusals: BTreeMap<NodeName, String>,
    unreachable: bool,
    /// Modules that would have to be stopped, and the nodes on which they run.
    running: BTreeMap<ModuleName, Vec<NodeName>>,
}

/// Applies a configuration, or says what would become of that.
pub(super) fn apply(context: &Context, how: &Applying, lines: &Sender<Line>) -> Line {
    let _one = match DECIDING.try_lock() {
        Ok(one) => one,
        Err(TryLockError::Poisoned(one)) => one.into_inner(),
        Err(TryLockError::WouldBlock) => {
            let why = format!("another configuration is just being applied by {}", context.own());
            return Line::Reply(Reply::new(Exit::Refused, why));
        }
    };
    let plan = match plan(context, how) {
        Ok(plan) => plan,
        Err(reply) => return Line::Reply(*reply),
    };
    if plan.changes.is_empty() && !how.overwrite && !plan.brings_together {
        let number = plan.proposal.follows.number;
        let what =
            format!("nothing is to be applied: the files are those of configuration {number}");
        return Line::Reply(Reply { data: plan.data(None), ..Reply::new(Exit::Done, what) });
    }
    let answers = ask(context, &plan.proposal, how.dry_run, lines);
    if how.dry_run {
        return Line::Reply(plan.foretold(&answers));
    }
    if !answers.refusals.is_empty() {
        for node in &answers.agreed {
            let ask = Ask::Abandon { id: plan.proposal.id.clone() };
            // One that does not hear it asks by itself.
            let _ = tell(context, node, ask);
        }
        return Line::Reply(plan.refused(&answers));
    }
    decide(context, &plan, &answers, lines)
}

fn plan(context: &Context, how: &Applying) -> Result<Plan, Box<Reply>> {
    let failed = |error: io::Error| Box::new(Reply::new(Exit::Failed, error.to_string()));
    let usage = |why: String| Box::new(Reply::new(Exit::Usage, why));
    let layout = &context.membership.layout;
    let newest = context.store().newest().map_err(failed)?;
    let newest = newest.ok_or_else(|| {
        usage("start the daemon anew first: it could not read all files at its start".to_owned())
    })?;
    check_without(context, &how.without).map_err(usage)?;
    let (origin, files, mut notes) = source(context, &newest, how.source)?;
    let differing = differing(context, &newest);
    let brings_together = !differing.is_empty();
    notes.extend(differing.iter().map(|node| format!("{node} found other files at its start")));
    files.check().map_err(usage)?;
    files::parse(layout, &files).map_err(|error| usage(error.to_string()))?;
    let changes = config::changes(&newest.files, &files);
    config::possible(&changes).map_err(|why| Box::new(Reply::new(Exit::Refused, why)))?;
    let heard = lock(&context.configuring.seen).peers.values().map(|stand| stand.number).max();
    let highest = heard.filter(|_| how.overwrite).unwrap_or(0);
    let version = Version {
        number: newest.number.max(highest) + 1,
        at_ms: wall_ms(),
        from: context.own().clone(),
        origin,
        files,
    };
    let proposal = Proposal {
        id: format!("{:032x}", clock::random()),
        version,
        base: newest.files.digests(),
        follows: newest.stand(),
        without: how.without.clone(),
        overwrite: how.overwrite,
    };
    Ok(Plan { proposal, changes, notes, brings_together })
}

/// The nodes that found other files at their start than this one, where none were applied since.
fn differing(context: &Context, newest: &Version) -> Vec<NodeName> {
    let own = newest.stand();
    if own.number > 0 {
        return Vec::new();
    }
    let seen = lock(&context.configuring.seen);
    // One that has a configuration already is followed by itself.
    let differs = seen.peers.iter().filter(|(_, stand)| stand.number == 0 && **stand != own);
    differs.map(|(node, _)| node.clone()).collect()
}

fn check_without(context: &Context, without: &[NodeName]) -> Result<(), String> {
    for node in without {
        if node == context.own() {
            return Err(format!("{node} is this node itself"));
        }
        if context.membership.cluster.node(node).is_none() {
            return Err(format!("the cluster has no node {node}"));
        }
    }
    Ok(())
}

/// The files that shall be applied.
fn source(
    context: &Context,
    newest: &Version,
    source: ConfigurationSource,
) -> Result<(Origin, Files, Vec<String>), Box<Reply>> {
    let layout = &context.membership.layout;
    let usage = |why: String| Box::new(Reply::new(Exit::Usage, why));
    let number = match source {
        ConfigurationSource::Files => {
            let files = draft::read(layout).map_err(usage)?;
            return Ok((Origin::Applied, files, Vec::new()));
        }
        ConfigurationSource::Number(number) => number,
        ConfigurationSource::Previous => newest.number.checked_sub(1).ok_or_else(|| {
            usage("no configuration was applied yet, so there is none before it".to_owned())
        })?,
    };
    let failed = |error: io::Error| Box::new(Reply::new(Exit::Failed, error.to_string()));
    let version = context.store().get(number).map_err(failed)?;
    let version = version.ok_or_else(|| {
        let mut reply = usage(format!("configuration {number} is not remembered"));
        reply.next = vec!["evenkeel config history".to_owned()];
        reply
    })?;
    let (mut files, mut notes) = (version.files, Vec::new());
    let nodes = |files: &Files| {
        let read = files::parse(layout, files).map(|read| read.cluster.nodes);
        read.map(|nodes| nodes.into_iter().map(|node| node.name).collect::<Vec<_>>()).ok()
    };
    if nodes(&files) != nodes(&newest.files)
        && let Some(present) = newest.files.0.get(CLUSTER_FILE)
    {
        files.0.insert(CLUSTER_FILE.to_owned(), present.clone());
        notes.push(format!("cluster.toml stays, for it names other nodes than that of {number}"));
    }
    Ok((Origin::Rollback(number), files, notes))
}

/// Asks every node whether it agrees. Those that agree are bound by it, unless it is for show.
fn ask(context: &Context, proposal: &Proposal, dry_run: bool, lines: &Sender<Line>) -> Answers {
    let mut answers = Answers::default();
    let nodes = context.membership.cluster.nodes.iter().map(|node| &node.name);
    for node in nodes.filter(|node| !proposal.without.contains(node)) {
        let _ = lines.send(Line::Progress(format!("{node} is asked")));
        let proposal = Box::new(proposal.clone());
        let reply = tell(context, node, Ask::Prepare { proposal, dry_run });
        if reply.outcome == Exit::Done {
            answers.agreed.push(node.clone());
            continue;
        }
        answers.unreachable |= reply.outcome == Exit::Unreachable;
        answers.refusals.insert(node.clone(), reply.sentence);
        let running = serde_json::from_value::<BTreeSet<ModuleName>>(reply.data["running"].clone());
        for module in running.unwrap_or_default() {
            answers.running.entry(module).or_default().push(node.clone());
        }
        // The others' refusals are worth knowing too; but whoever is bound must be released.
        if !dry_run {
            break;
        }
    }
    answers
}

fn tell(context: &Context, node: &NodeName, ask: Ask) -> Reply {
    if node != context.own() {
        let verb = Verb::Configuration { ask };
        return context.membership.peer(node).request(verb, &channel().0);
    }
    match ask {
        Ask::Prepare { proposal, dry_run } => answer::prepare(context, &proposal, dry_run),
        Ask::Abandon { id } => answer::abandon(context, &id),
        Ask::Apply { .. }
        | Ask::History
        | Ask::Show { .. }
        | Ask::Commit { .. }
        | Ask::Testify { .. }
        | Ask::Fetch { .. } => Reply::new(Exit::Failed, "no node asks itself that"),
    }
}

/// Everybody has agreed.
fn decide(context: &Context, plan: &Plan, answers: &Answers, lines: &Sender<Line>) -> Line {
    let (own, id) = (context.own(), &plan.proposal.id);
    let stand = plan.proposal.version.stand();
    match answer::carry_out(context, id, &stand) {
        Ok(true) => {}
        Ok(false) => {
            let why = format!("{own} has not agreed to it any more: nothing was changed");
            return Line::Reply(Reply::new(Exit::Failed, why));
        }
        Err(error) => {
            let mut reply = Reply::new(Exit::Failed, format!("{own}: {error}"));
            reply.next = vec!["evenkeel config history shows what is in use".to_owned()];
            return Line::Last(reply, Box::new(Event::Again));
        }
    }
    let _ = lines.send(Line::Progress(format!("configuration {} is decided", stand.number)));
    let mut late = Vec::new();
    for node in answers.agreed.iter().filter(|node| *node != own) {
        let ask = Ask::Commit { id: id.clone(), stand };
        let mut reply = tell(context, node, ask.clone());
        for _ in 1..COMMIT_ATTEMPTS {
            if reply.outcome != Exit::Unreachable {
                break;
            }
            std::thread::sleep(COMMIT_PAUSE);
            reply = tell(context, node, ask.clone());
        }
        if reply.outcome != Exit::Done {
            late.push(format!("{node} takes it as soon as it can: {}", reply.sentence));
        }
    }
    let away = plan.proposal.without.iter().map(|node| format!("{node} takes it when it is back"));
    late.extend(away);
    let mut sentence = format!("configuration {} is in use", stand.number);
    for more in &late {
        sentence += &format!("; {more}");
    }
    let done = Reply { data: plan.data(Some(answers)), ..Reply::new(Exit::Done, sentence) };
    Line::Last(done, Box::new(Event::Again))
}

impl Plan {
    fn data(&self, answers: Option<&Answers>) -> Value {
        let Proposal { version, follows, .. } = &self.proposal;
        let nodes: BTreeMap<&NodeName, Value> = answers.map_or_else(BTreeMap::new, |answers| {
            let agreed = answers.agreed.iter().map(|node| (node, json!({ "agrees": true })));
            let refused = answers.refusals.iter();
            let refused = refused.map(|(node, why)| (node, json!({ "agrees": false, "why": why })));
            agreed.chain(refused).collect()
        });
        json!({
            "number": version.number,
            "follows": follows.number,
            "from": version.from,
            "origin": version.origin,
            "changes": self.changes,
            "notes": self.notes,
            "nodes": nodes,
            "without": self.proposal.without,
            "stop": config::to_stop(&self.changes),
            "running": answers.map(|answers| &answers.running),
        })
    }

    fn foretold(&self, answers: &Answers) -> Reply {
        let number = self.proposal.version.number;
        let mut reply = if answers.refusals.is_empty() {
            let count = self.changes.len();
            let changes = if count == 1 { "change" } else { "changes" };
            Reply::new(
                Exit::Done,
                format!("configuration {number} can be applied: {count} {changes}"),
            )
        } else {
            self.refused(answers)
        };
        reply.data = self.data(Some(answers));
        reply
    }

    fn refused(&self, answers: &Answers) -> Reply {
        let refusals: Vec<String> =
            answers.refusals.iter().map(|(node, why)| format!("{node} refuses: {why}")).collect();
        let sentence = format!("nothing is changed: {}", refusals.join("; "));
        let outcome = if answers.unreachable { Exit::Unreachable } else { Exit::Refused };
        let mut reply = Reply { data: self.data(Some(answers)), ..Reply::new(outcome, sentence) };
        if !answers.running.is_empty() {
            let stop = answers.running.keys().map(|module| format!("evenkeel stop {module}"));
            reply.next.extend(stop);
            reply
                .next
                .push("or evenkeel apply --restart-modules, which stops and starts them".into());
        }
        let edited = answers.refusals.values().any(|why| why.starts_with("edited on"));
        if edited {
            reply.next.push("evenkeel apply --overwrite, which sets those files aside".to_owned());
        }
        if answers.unreachable {
            let away = answers.refusals.keys().map(NodeName::as_str);
            let away: Vec<String> = away.map(|node| format!("--without {node}")).collect();
            reply.next.push(format!(
                "evenkeel apply {}: it takes the configuration when it is back",
                away.join(" ")
            ));
        }
        reply
    }
}
