//! The commands by which the cluster's configuration is changed: `plan`, `apply`, `rollback`, and
//! `config` for what was applied before. What they do is done by the daemon; here modules are
//! stopped and started around it, and its end is waited for.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use model::config::{Change, ChangeEffect};
use model::{ModuleName, NodeName};
use serde_json::Value;
use wire::control::{Applying, ConfigurationSource, Configuring as Ask, Exit, Reply, Verb};

use crate::command::{Context, print};
use crate::render;

/// How long all nodes may take to begin anew with a configuration before that is said.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// Between two looks at how far they are.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// What holds for every way to apply a configuration.
#[derive(Debug, Args)]
pub(crate) struct HowArgs {
    /// Set aside what was edited on other nodes and never applied; it is kept in the history.
    #[arg(long)]
    overwrite: bool,
    /// Go on without a node that is away; it takes the configuration when it is back.
    #[arg(long, value_name = "NODE", value_parser = NodeName::new)]
    without: Vec<NodeName>,
}

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Not the files, but the configuration of this number.
    #[arg(long, value_name = "N")]
    rollback: Option<u64>,
    #[command(flatten)]
    how: HowArgs,
}

/// How to apply the files.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Stop the modules that have to be stopped for it, and start them afterwards.
    #[arg(long)]
    restart_modules: bool,
    #[command(flatten)]
    how: HowArgs,
}

/// What to go back to.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// Number of a configuration; the one before the newest by default.
    number: Option<u64>,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// What was applied before.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// List the configurations that were applied, with what each has changed.
    History,
    /// Print the files of one.
    Show {
        /// Its number, or the name under which edited files were set aside.
        which: String,
        /// Only this file, such as modules/shop.toml.
        file: Option<String>,
    },
}

/// Modules that are stopped meanwhile, and the nodes on which they ran.
type Restarts = BTreeMap<ModuleName, Vec<NodeName>>;

impl HowArgs {
    fn applying(self, source: ConfigurationSource, dry_run: bool) -> Applying {
        let HowArgs { overwrite, without } = self;
        Applying { source, dry_run, overwrite, without }
    }
}

fn ask(context: &Context, ask: Ask) -> Reply {
    context.ask(Verb::Configuration { ask })
}

pub(crate) fn plan(context: &Context, args: PlanArgs) -> ExitCode {
    let source = args.rollback.map_or(ConfigurationSource::Files, ConfigurationSource::Number);
    let reply = ask(context, Ask::Apply { how: args.how.applying(source, true) });
    if !context.json && reply.data.is_object() {
        print(&render_plan(&reply.data));
    }
    context.finish(&reply, |reply| format!("✔ {}", reply.sentence))
}

pub(crate) fn apply(context: &Context, args: ApplyArgs) -> ExitCode {
    carry_out(context, ConfigurationSource::Files, args)
}

pub(crate) fn rollback(context: &Context, args: RollbackArgs) -> ExitCode {
    let source = args.number.map_or(ConfigurationSource::Previous, ConfigurationSource::Number);
    carry_out(context, source, args.apply)
}

fn carry_out(context: &Context, source: ConfigurationSource, args: ApplyArgs) -> ExitCode {
    let mut how = args.how.applying(source, true);
    let mut stopped = Restarts::new();
    if args.restart_modules {
        let foretold = ask(context, Ask::Apply { how: how.clone() });
        for (module, nodes) in to_restart(&foretold.data) {
            let reply = context.ask(Verb::Stop { module: module.clone(), node: None });
            stopped.insert(module, nodes);
            if reply.outcome != Exit::Done {
                start_again(context, &stopped);
                return context.finish(&reply, |reply| reply.sentence.clone());
            }
        }
    }
    how.dry_run = false;
    let mut reply = ask(context, Ask::Apply { how });
    if reply.outcome == Exit::Done && reply.data["nodes"].as_object().is_some_and(|n| !n.is_empty())
    {
        settle(context, &mut reply);
    }
    for failed in start_again(context, &stopped) {
        if reply.outcome == Exit::Done {
            reply.outcome = failed.outcome;
        }
        reply.sentence = format!("{}; {}", reply.sentence, failed.sentence);
        reply.next.extend(failed.next);
    }
    if !context.json && reply.outcome == Exit::Done {
        let shown = changes(&reply.data).iter().map(render_change).collect::<String>();
        eprint!("{shown}");
    }
    context.finish(&reply, |reply| format!("✔ {}", reply.sentence))
}

/// The modules that run and have to be stopped meanwhile. One that will not be there afterwards is
/// not stopped unasked.
fn to_restart(data: &Value) -> Restarts {
    let running = serde_json::from_value::<Restarts>(data["running"].clone());
    let mut running = running.unwrap_or_default();
    for change in changes(data).iter().filter(|change| change.effect == ChangeEffect::Stop) {
        running.retain(|module, _| !change.modules.contains(module));
    }
    running
}

/// Starts what was stopped, where it ran, and returns what failed.
fn start_again(context: &Context, stopped: &Restarts) -> Vec<Reply> {
    let mut failed = Vec::new();
    for (module, nodes) in stopped {
        let status = context.ask(Verb::Status);
        let all = status.data["modules"][module.as_str()]["detail"]["nodes"].as_array();
        // Both at once, for one may have to wait for the other.
        let both = all.is_some_and(|all| all.len() == nodes.len());
        let each: Vec<Option<NodeName>> =
            if both { vec![None] } else { nodes.iter().cloned().map(Some).collect() };
        for node in each {
            let reply = context.ask(Verb::Start { module: module.clone(), node });
            failed.extend(Some(reply).filter(|reply| reply.outcome != Exit::Done));
        }
    }
    failed
}

/// Waits until the daemons of all nodes that have agreed show the new configuration.
fn settle(context: &Context, reply: &mut Reply) {
    let number = reply.data["number"].as_u64().unwrap_or(0);
    let nodes = reply.data["nodes"].as_object().cloned().unwrap_or_default();
    let end = Instant::now() + SETTLE_MAX;
    let mut late: Vec<String> = nodes.keys().cloned().collect();
    while !late.is_empty() && Instant::now() < end {
        let status = context.ask(Verb::Status);
        let seen = &status.data["configuration"];
        if status.outcome == Exit::Done && seen["number"].as_u64() >= Some(number) {
            let own = status.data["node"].as_str().unwrap_or_default();
            late.retain(|node| *node != own && seen["peers"][node].as_u64() < Some(number));
        }
        if !late.is_empty() {
            thread::sleep(SETTLE_PAUSE);
        }
    }
    if !late.is_empty() {
        reply.outcome = Exit::Timeout;
        reply.sentence += &format!("; {} has not begun anew with it yet", late.join(", "));
        reply.next.push("evenkeel status".to_owned());
    }
}

pub(crate) fn config(context: &Context, command: ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::History => {
            let reply = ask(context, Ask::History);
            context.finish(&reply, |reply| render_history(&reply.data))
        }
        ConfigCommand::Show { which, file } => {
            let mut reply = ask(context, Ask::Show { which: which.clone() });
            if let (Some(file), Exit::Done) = (&file, reply.outcome) {
                match reply.data["files"].as_object_mut() {
                    Some(files) if files.contains_key(file) => files.retain(|path, _| path == file),
                    _ => {
                        let what = format!("configuration {which} has no file {file}");
                        reply = Reply::new(Exit::Usage, what);
                    }
                }
            }
            context.finish(&reply, |reply| render_files(&reply.data, file.is_some()))
        }
    }
}

fn changes(data: &Value) -> Vec<Change> {
    serde_json::from_value(data["changes"].clone()).unwrap_or_default()
}

fn render_plan(data: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let (follows, number) = (&data["follows"], &data["number"]);
    let mut out = format!("configuration {follows} → {number}, from {}\n", text(&data["from"]));
    out.extend(changes(data).iter().map(render_change));
    for note in data["notes"].as_array().into_iter().flatten() {
        out += &format!("  · {}\n", text(note));
    }
    for (node, said) in data["nodes"].as_object().into_iter().flatten() {
        out += &match said["agrees"].as_bool() {
            Some(true) => format!("✔ {node} agrees\n"),
            _ => format!("✖ {node} refuses: {}\n", text(&said["why"])),
        };
    }
    for node in data["without"].as_array().into_iter().flatten() {
        out += &format!("– {} is not asked\n", text(node));
    }
    out.trim_end().to_owned()
}

fn render_change(change: &Change) -> String {
    let names = |names: Vec<&str>| names.join(", ");
    let modules = names(change.modules.iter().map(ModuleName::as_str).collect());
    let effect = match change.effect {
        ChangeEffect::Nothing => "changes nothing".to_owned(),
        ChangeEffect::Hot => "while everything runs".to_owned(),
        ChangeEffect::Restart if modules.is_empty() => "no module has to be stopped".to_owned(),
        ChangeEffect::Restart => format!("stopped meanwhile: {modules}"),
        ChangeEffect::Stop => format!("to be stopped first: {modules}"),
        ChangeEffect::Never => "cannot be applied".to_owned(),
    };
    let (sign, values) = match (&change.before, &change.after) {
        (None, None) => ('~', String::new()),
        (None, Some(after)) => ('+', after.clone()),
        (Some(before), None) => ('-', before.clone()),
        (Some(before), Some(after)) => ('~', format!("{before} → {after}")),
    };
    let key = if change.key.is_empty() { String::new() } else { format!(" {}", change.key) };
    let nodes = if change.nodes.is_empty() {
        "every node".to_owned()
    } else {
        names(change.nodes.iter().map(NodeName::as_str).collect())
    };
    let note = change.note.as_ref().map(|note| format!("      · {note}\n")).unwrap_or_default();
    let file = &change.file;
    let values = if values.is_empty() { values } else { format!("  {values}") };
    format!("  {sign} {file}{key}{values}\n      {effect}  [{nodes}]\n{note}")
}

fn render_history(data: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut out = String::new();
    for version in data["versions"].as_array().into_iter().flatten() {
        let at = render::date_time(version["at_ms"].as_u64().unwrap_or(0));
        let origin = match &version["origin"] {
            Value::String(word) => word.clone(),
            rollback => format!("rollback to {}", rollback["rollback"]),
        };
        let (number, from) = (&version["number"], text(&version["from"]));
        out += &format!("{number:>5}  {at}  {from}  {origin}\n");
        out.extend(changes(version).iter().map(|change| {
            let key =
                if change.key.is_empty() { String::new() } else { format!(" {}", change.key) };
            format!("         {}{key}\n", change.file)
        }));
    }
    for kept in data["kept"].as_array().into_iter().flatten() {
        let files: Vec<String> = kept["files"].as_array().into_iter().flatten().map(text).collect();
        let (name, number) = (text(&kept["name"]), &kept["replaced_by"]);
        out += &format!("{name}  edited, set aside for {number}: {}\n", files.join(", "));
    }
    if out.is_empty() { "none was applied yet".to_owned() } else { out.trim_end().to_owned() }
}

fn render_files(data: &Value, bare: bool) -> String {
    let mut out = String::new();
    for (path, content) in data["files"].as_object().into_iter().flatten() {
        let text = content["text"].as_str().unwrap_or_default();
        if !bare {
            out += &format!("# ---- {path}\n");
        }
        out += text;
        if !text.ends_with('\n') {
            out.push('\n');
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_file_key_values_effect_and_nodes() {
        let data = serde_json::json!({
            "number": 8, "follows": 7, "from": "node1", "without": [], "notes": [],
            "running": { "shop": ["node1"], "web": ["node1"] },
            "nodes": { "node1": { "agrees": true },
                       "node2": { "agrees": false, "why": "no disk" } },
            "changes": [
                { "file": "modules/shop.toml", "key": "replication.ack", "before": "\"write\"",
                  "after": "\"fsync\"", "effect": "restart", "modules": ["shop"],
                  "nodes": ["node1", "node2"] },
                { "file": "modules/web.toml", "key": "", "before": "module web", "after": null,
                  "effect": "stop", "modules": ["web"], "nodes": [] },
            ],
        });
        let shown = render_plan(&data);
        for part in [
            "configuration 7 → 8, from node1",
            "~ modules/shop.toml replication.ack  \"write\" → \"fsync\"",
            "stopped meanwhile: shop  [node1, node2]",
            "- modules/web.toml  module web",
            "to be stopped first: web  [every node]",
            "✔ node1 agrees",
            "✖ node2 refuses: no disk",
        ] {
            assert!(shown.contains(part), "{part:?} is not in: {shown}");
        }
        let restarted: Vec<ModuleName> = to_restart(&data).into_keys().collect();
        assert_eq!(restarted, [ModuleName::new("shop").unwrap()], "web would not come back");
    }
}
