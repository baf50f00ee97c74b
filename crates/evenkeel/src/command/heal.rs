//! `evenkeel heal`: the two sides of a split brain, and the operator's choice between them.
//!
//! Without a choice nothing is changed. What differs between the copies is told on demand, and by
//! attributes alone.

mod differ;
mod files;

use std::process::ExitCode;

use clap::Args;
use cluster::found::Found;
use cluster::input::DataState;
use model::{Copy, Epoch, ModuleName, NodeName};
use node::Layout;
use serde_json::{Value, json};
use wire::control::{Exit, Reply, Verb};

use crate::command::found::{asked, peer_of};
use crate::command::{Context, print};

/// Which module to heal, and how.
#[derive(Debug, Args)]
pub(crate) struct HealArgs {
    /// Module.
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
    /// The node whose data are to stay. What the other one holds alone goes to quarantine there,
    /// and then it is brought up to date. The same fills a disk that was replaced.
    #[arg(long, value_parser = NodeName::new)]
    keep: Option<NodeName>,
    /// Compare both copies and list what differs, at most so many objects; the totals are of all.
    #[arg(
        long,
        value_name = "LIMIT",
        num_args = 0..=1,
        default_missing_value = "100",
        value_parser = clap::value_parser!(u32).range(0..=i64::from(LISTED_MAX)),
        conflicts_with = "keep"
    )]
    files: Option<u32>,
    /// Begin the list after so many.
    #[arg(long, default_value_t = 0, requires = "files")]
    skip: u32,
}

/// Most differences that are listed at a time.
const LISTED_MAX: u32 = 100_000;

pub(crate) fn run(context: &Context, args: &HealArgs) -> ExitCode {
    let reply = sides(context, &args.module)
        .and_then(|sides| match &args.keep {
            None => with_files(context, args, &sides),
            Some(keep) => chosen(context, args, &sides, keep),
        })
        .unwrap_or_else(|reply| *reply);
    context.finish(&reply, |reply| reply.sentence.clone())
}

/// Both nodes of the module, this one first.
fn sides(context: &Context, module: &ModuleName) -> Result<[Found; 2], Box<Reply>> {
    let here = asked(context, module, None)?;
    let there = asked(context, module, Some(peer_of(&here)?))?;
    Ok([here, there])
}

fn chosen(
    context: &Context,
    args: &HealArgs,
    sides: &[Found; 2],
    keep: &NodeName,
) -> Result<Reply, Box<Reply>> {
    let Some(other) = sides.iter().find(|side| side.node != *keep) else {
        return Err(usage(format!("{} has no two nodes", args.module)));
    };
    if !sides.iter().any(|side| side.node == *keep) {
        let names = sides.each_ref().map(|side| side.node.as_str()).join(" and ");
        return Err(usage(format!("{} has no node `{keep}`; it has {names}", args.module)));
    }
    if !context.json {
        let shown = shown(sides).sentence;
        print(&shown);
    }
    let verb = Verb::Discard { module: args.module.clone(), node: other.node.clone() };
    let mut reply = context.ask(verb);
    if reply.outcome == Exit::Done {
        let folder = Layout::new("/".as_ref()).quarantine_directory(&args.module);
        let what = if fault(other).is_some() { "was in its way" } else { "it held alone" };
        reply.sentence = format!(
            "✔ {}; what {what}, if anything, is below {} on {}",
            reply.sentence,
            folder.display(),
            other.node
        );
    }
    Ok(reply)
}

/// Both sides, and the files that differ if they are wanted.
fn with_files(context: &Context, args: &HealArgs, sides: &[Found; 2]) -> Result<Reply, Box<Reply>> {
    let mut reply = shown(sides);
    let Some(limit) = args.files.filter(|_| is_apart(&sides[0], &sides[1])) else {
        return Ok(reply);
    };
    let common = common(&sides[0], &sides[1]);
    // Without a common epoch each side's whole history is its own.
    let own = |side: &Found| {
        let later = later(side, common.as_ref());
        common.as_ref().and_then(|_| chain(side).get(later.checked_sub(1)?).cloned())
    };
    let shown = files::Shown { skip: args.skip as usize, limit: limit as usize };
    let outcome = files::compare(context, sides, sides.each_ref().map(own), shown)?;
    reply.sentence += "\n\n";
    reply.sentence += &outcome.lines(sides).join("\n");
    reply.data["files"] = outcome.data(sides);
    Ok(reply)
}

fn shown(sides: &[Found; 2]) -> Reply {
    let [here, there] = sides;
    let common = common(here, there);
    let apart = is_apart(here, there);
    let module = &here.module.config.name;
    let (one, two) = (&here.node, &there.node);
    let lost = sides.iter().find_map(|side| Some((side, fault(side)?)));
    let head = if apart {
        format!("{module}: {one} and {two} each went on without the other")
    } else if let Some((side, fault)) = &lost {
        format!("{module}: {} has not its data: {fault}", side.node)
    } else {
        format!(
            "{module}: the data of {one} and {two} have not gone apart: nothing is to be healed"
        )
    };
    let mut lines = vec![head, String::new()];
    lines.push(row("", &sides.each_ref().map(|side| side.node.to_string())));
    for (label, value) in facts() {
        lines.push(row(label, &sides.each_ref().map(value)));
    }
    lines.push(String::new());
    lines.push(match &common {
        Some((epoch, _)) => format!("The last epoch that both know is {epoch}."),
        None => "Both know no epoch in common: one of them holds other data.".to_owned(),
    });
    if apart {
        lines.push(format!("What differs: evenkeel heal {module} --files"));
        lines.push(format!("To keep one side: evenkeel heal {module} --keep NODE"));
    } else if let Some((side, _)) = &lost {
        let other = if side.node == *one { two } else { one };
        lines.push(format!("If its disk is only not mounted: mount it, and restart {}", side.node));
        let fillable = !matches!(side.module.data, DataState::Unusable { fillable: false, .. });
        if fillable {
            lines
                .push(format!("To fill {} anew: evenkeel heal {module} --keep {other}", side.node));
        }
    }
    let side = |side: &Found| {
        let epoch = side.module.record.epoch.as_ref();
        json!({
            "node": side.node, "role": side.status.role, "copy": side.status.copy,
            "serves": side.status.service,
            "epoch": epoch.map(|epoch| epoch.number),
            "epoch_id": epoch.map(|epoch| epoch.id.to_string()),
            "since_common": common.as_ref().map(|_| later(side, common.as_ref())),
            "fault": fault(side),
        })
    };
    let data = json!({
        "module": module,
        "apart": apart,
        "common": common.as_ref().map_or(Value::Null, |(id, _)| json!(id)),
        "sides": sides.each_ref().map(side),
    });
    Reply { data, ..Reply::new(Exit::Done, lines.join("\n")) }
}

type Fact = (&'static str, fn(&Found) -> String);

fn facts() -> [Fact; 4] {
    [
        ("state", |side| format!("{} {}", side.status.role, served(side))),
        ("copy", |side| side.status.copy.to_string()),
        ("epoch", |side| side.module.record.epoch.as_ref().map_or("none".to_owned(), named)),
        ("by", |side| {
            let epoch = side.module.record.epoch.as_ref();
            epoch.map_or("nobody".to_owned(), |epoch| epoch.author.to_string())
        }),
    ]
}

fn served(side: &Found) -> &'static str {
    if side.status.service { "(runs the application)" } else { "" }
}

fn named(epoch: &Epoch) -> String {
    format!("{} ({})", epoch.number, epoch.id)
}

fn row(label: &str, values: &[String; 2]) -> String {
    format!("  {label:<8}{:<32}{}", values[0], values[1]).trim_end().to_owned()
}

/// The newest epoch that both know, and how many came after it on this side.
fn common(here: &Found, there: &Found) -> Option<(String, Vec<String>)> {
    let theirs = chain(there);
    let id = chain(here).into_iter().find(|id| theirs.contains(id))?;
    Some((id, theirs))
}

fn later(side: &Found, common: Option<&(String, Vec<String>)>) -> usize {
    let chain = chain(side);
    common.and_then(|(id, _)| chain.iter().position(|known| known == id)).unwrap_or(chain.len())
}

/// The epochs of a node, newest first.
fn chain(side: &Found) -> Vec<String> {
    let record = &side.module.record;
    let newest = record.epoch.iter().map(|epoch| epoch.id);
    newest.chain(record.lineage.ids().iter().copied()).map(|id| id.to_string()).collect()
}

/// Whether each side has an epoch that the other does not know.
fn is_apart(here: &Found, there: &Found) -> bool {
    let alone = |one: &Found, other: &Found| {
        let newest = one.module.record.epoch.as_ref().map(|epoch| epoch.id.to_string());
        newest.is_some_and(|newest| !chain(other).contains(&newest))
    };
    let whole = |side: &Found| side.status.copy > Copy::Inconsistent;
    alone(here, there) && alone(there, here) && whole(here) && whole(there)
}

/// Why the directories of a side are not what its record says, if so.
fn fault(side: &Found) -> Option<String> {
    cluster::data_fault(&side.module.record, &side.module.data)
}

fn usage(what: String) -> Box<Reply> {
    Box::new(Reply::new(Exit::Usage, what))
}
