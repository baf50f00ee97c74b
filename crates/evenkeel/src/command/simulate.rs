//! `evenkeel simulate`: what would happen to a module, beginning from the state that it is in.
//!
//! Nothing real is touched: the two nodes' states are asked for, or taken from recordings, and go
//! on in the world of the crate `sim`, which runs the code that decides. What is invented there is
//! said in `docs/replay.md`.

mod states;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use model::{ModuleName, NodeName, Phase};
use serde_json::json;
use sim::World;
use sim::story::perform;
use wire::control::{Exit, Reply};

use crate::command::Context;

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// What is to happen, such as "power node1; run 10s; boot node1; run 10s".
    scenario: String,
    /// Module; need not be named where there is one.
    #[arg(long, value_name = "MODULE", value_parser = ModuleName::new)]
    module: Option<ModuleName>,
    /// The recording of a node, to begin from its end instead of asking the node; once or twice.
    #[arg(long = "recording", value_name = "PATH")]
    recordings: Vec<PathBuf>,
}

pub(crate) fn run(context: &Context, args: &SimulateArgs) -> ExitCode {
    let reply = match states::take(context, args.module.as_ref(), &args.recordings) {
        Ok(states) => simulate(states, &args.scenario),
        Err(reply) => *reply,
    };
    let lines = reply.data["story"].as_array().cloned().unwrap_or_default();
    let text: Vec<&str> = lines.iter().filter_map(|line| line.as_str()).collect();
    if !context.json && reply.outcome != Exit::Done {
        text.iter().for_each(|line| eprintln!("{line}"));
    }
    context.finish(&reply, |reply| format!("{}\n✔ {}", text.join("\n"), reply.sentence))
}

fn simulate(states: states::States, scenario: &str) -> Reply {
    let names =
        Names { nodes: [0, 1].map(|i| states.nodes[i].found.node.clone()), module: states.module };
    let mut world = match World::of(states.nodes) {
        Ok(world) => world,
        Err(why) => {
            let what = format!("the simulation cannot begin in the present state: {why}");
            let mut reply = Reply::new(Exit::Failed, what);
            reply.next = vec!["try again once nothing is under way any more".to_owned()];
            return reply;
        }
    };
    let start = world.now.as_millis();
    let mut story = vec![format!("now: {}", places(&world))];
    let commands = scenario.split(';').map(str::trim).filter(|command| !command.is_empty());
    for command in commands {
        story.push(format!("> {command}"));
        let from = world.log.len();
        let done = perform(&mut world, &names.in_the_world(command));
        story.extend(world.log[from..].iter().map(|line| names.for_people(line, start)));
        if let Some(broken) = &world.violation {
            let what = format!("a promise would be broken: {broken}");
            return told(Exit::Failed, names.for_people(&what, start), story);
        }
        if let Err(wrong) = done {
            let exit = if wrong.starts_with("there is no command") || wrong.starts_with('`') {
                Exit::Usage
            } else {
                Exit::Failed
            };
            return told(exit, names.for_people(&wrong, start), story);
        }
    }
    let seconds = world.now.as_millis().saturating_sub(start) as f64 / 1000.0;
    let what = format!("after {seconds:.1} s: {}; every promise would be kept", places(&world));
    told(Exit::Done, what, story)
}

fn told(outcome: Exit, sentence: String, story: Vec<String>) -> Reply {
    Reply { data: json!({ "story": story }), ..Reply::new(outcome, sentence) }
}

/// Where the nodes are.
fn places(world: &World) -> String {
    let place = |i: usize| {
        let name = &world.hosts[i].name;
        let Some(status) = world.status(i) else { return format!("{name} is down") };
        let phase = if status.phase == Phase::Ready { "" } else { "..." };
        let codes: Vec<&str> = status.reasons.iter().map(|reason| reason.code.as_str()).collect();
        let reasons =
            if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) };
        format!("{name} is {}{phase}{reasons}", status.role)
    };
    format!("{}, {}", place(0), place(1))
}

/// The real names, for which the world has its own.
struct Names {
    nodes: [NodeName; 2],
    module: ModuleName,
}

impl Names {
    /// A command as the world understands it.
    fn in_the_world(&self, command: &str) -> String {
        let word = |word: &str| match self.nodes.iter().position(|name| name.as_str() == word) {
            Some(i) => format!("node{}", i + 1),
            None if matches!(word, "node1" | "node2") => format!("{word}?"),
            None => word.to_owned(),
        };
        command.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
    }

    /// A line of the world's log, in real names and counted from now.
    fn for_people(&self, line: &str, start: u64) -> String {
        let line = line.trim_start();
        let (time, rest) = match line.split_once(' ') {
            Some((time, rest)) => (millis(time), rest),
            None => (None, line),
        };
        let named = |text: &str| text.replace(" shop ", &format!(" {} ", self.module));
        match time {
            Some(at) => {
                let since = at.saturating_sub(start);
                format!("{:>4}.{:03} {}", since / 1000, since % 1000, named(rest))
            }
            None => named(line),
        }
    }
}

/// Milliseconds of a time such as `12.345`.
fn millis(text: &str) -> Option<u64> {
    let (seconds, thousandths) = text.split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    let thousandths: u64 = thousandths.parse().ok()?;
    Some(seconds * 1000 + thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_names_stand_for_those_of_the_world() {
        let name = |text| NodeName::new(text).unwrap();
        let names =
            Names { nodes: [name("node2"), name("b")], module: ModuleName::new("books").unwrap() };
        assert_eq!(names.in_the_world("freeze node2  3s"), "freeze node1 3s");
        assert_eq!(names.in_the_world("power b"), "power node2");
        assert_eq!(names.in_the_world("power node1"), "power node1?", "there is no such node");
        let line = "  12.345 b stops: the shop is closed";
        assert_eq!(names.for_people(line, 12_000), "   0.345 b stops: the books is closed");
        assert_eq!(names.for_people("no time here", 0), "no time here");
    }
}
