//! Stories: commands an operator or fate would give, and what came of them.
//!
//! A story file holds both; lines that begin with `> ` are commands, the rest is the outcome.

use std::time::Duration;

use cluster::input::Command;
use model::config::WithoutWitness;

use super::World;
use super::check::tail;

/// Runs the commands of a story and tells it anew.
pub fn tell(text: &str) -> String {
    let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    let mut world = World::new(7, !commands.contains(&"no witness"));
    let mut story: Vec<String> = head.iter().map(|line| (*line).to_owned()).collect();
    for command in commands {
        story.push(format!("> {command}"));
        let from = world.log.len();
        perform(&mut world, command);
        story.extend(world.log.iter().skip(from).cloned());
    }
    story.join("\n") + "\n"
}

fn node(text: &str) -> usize {
    match text {
        "node1" => 0,
        "node2" => 1,
        other => panic!("`{other}` is no node"),
    }
}

fn span(text: &str) -> Duration {
    if let Some(millis) = text.strip_suffix("ms") {
        return Duration::from_millis(millis.parse().unwrap());
    }
    Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap())
}

/// Commands that do something to a disk.
const OF_DISKS: [&str; 9] =
    ["unmount", "mount", "fill", "full", "empty", "fail-copy", "tamper", "save", "restore"];

pub fn perform(world: &mut World, command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["no", "witness"] => {}
        ["policy", "wait"] => world.policy = WithoutWitness::Wait,
        ["given", "a", "protected", "pair"] => {
            for step in ["boot both", "start both", "run 4s", "expect node1 PRIM"] {
                perform(world, step);
            }
            world.log.clear();
        }
        ["boot", "both"] => {
            world.boot(0);
            world.boot(1);
            world.run_for(Duration::from_millis(300));
        }
        ["boot", n] => world.boot(node(n)),
        ["kill", n] => world.kill(node(n)),
        ["power", n] => world.power(node(n)),
        ["stop-daemon", n] => world.stop_daemon(node(n)),
        ["die", n] => world.replicator_dies(node(n)),
        [what, n] if OF_DISKS.contains(what) => disk(world, what, node(n)),
        ["configure", n, value] => world.hosts[node(n)].config_key = value.parse().unwrap(),
        ["cut"] => {
            world.cut = true;
            world.checks.exempt |= !world.has_witness;
        }
        ["cut-heartbeats"] => world.cut_heartbeats = true,
        ["freeze", n, time] => {
            world.loose = true;
            world.frozen[node(n)] = world.now + span(time);
        }
        ["mute", n] => world.mute = Some(node(n)),
        ["script", time] => world.script = Some(span(time)),
        ["break-script", n] => world.hosts[node(n)].script_broken = true,
        ["mend-script", n] => world.hosts[node(n)].script_broken = false,
        ["break-service", n] => world.broken_service = Some(node(n)),
        ["heal"] => {
            world.mute = None;
            world.cut = false;
            world.cut_heartbeats = false;
        }
        ["witness", "down"] => world.witness_up = false,
        ["witness", "forgets"] => world.witness = cluster::witness::Witness::default(),
        ["witness", "up"] => world.witness_up = true,
        ["witness", "slow", n, delay] => {
            world.witness_delay.insert(node(n), span(delay));
        }
        ["run", time] => world.run_for(span(time)),
        ["until", n, code] => until(world, node(n), code),
        ["expect", rest @ ..] => expect(world, rest),
        [verb, "both"] => {
            order(world, 0, verb);
            order(world, 1, verb);
        }
        [verb, n] => order(world, node(n), verb),
        other => panic!("no such command: {other:?}"),
    }
}

/// What befalls the disk of a node.
fn disk(world: &mut World, verb: &str, i: usize) {
    match verb {
        "unmount" => world.hosts[i].disk = false,
        "mount" => world.hosts[i].disk = true,
        "fill" => world.hosts[i].filled = true,
        "full" => world.hosts[i].full = true,
        "save" => {
            let tree = world.hosts[i].replicator.tree.clone();
            world.hosts[i].replicator.saved = Some(tree);
        }
        "restore" => {
            let saved = world.hosts[i].replicator.saved.clone();
            world.hosts[i].replicator.tree = saved.expect("the disk was saved");
            world.hosts[i].replicator.restored = true;
        }
        "tamper" => world.hosts[i].replicator.tampered = true,
        "empty" => world.hosts[i].full = false,
        "fail-copy" => {
            let why = "the disk is broken".to_owned();
            let event = cluster::input::ReplicatorEvent::CopyFailed { why };
            world.replicator_event(i, Duration::ZERO, event);
        }
        other => panic!("no such command: {other}"),
    }
}

fn order(world: &mut World, i: usize, verb: &str) {
    let command = match verb {
        "start" => Command::Start,
        "stop" => Command::Stop,
        "stop-all" => Command::StopAll,
        "switchover" => Command::Switchover,
        "force-primary" => Command::ForcePrimary,
        other => panic!("no such command: {other}"),
    };
    world.command(i, command);
}

/// Runs until a node explains something with this code.
fn until(world: &mut World, i: usize, code: &str) {
    let from = world.events.len();
    let end = world.now + Duration::from_secs(60);
    while !world.events[from..].iter().any(|(who, event)| *who == i && event.code == code) {
        assert!(world.now < end, "node{} never said {code}:\n{}", i + 1, tail(&world.log));
        world.step();
    }
}

fn expect(world: &mut World, words: &[&str]) {
    let log = tail(&world.log);
    match words {
        ["identical"] => {
            let trees = [0, 1].map(|i| world.hosts[i].replicator.tree.clone());
            assert!(trees[0].same_as(&trees[1]), "the trees differ:\n{log}");
        }
        ["acknowledging"] => {
            let before = world.checks.acknowledged;
            world.run_for(Duration::from_millis(500));
            assert!(world.checks.acknowledged > before, "nothing is acknowledged:\n{log}");
        }
        [n, "reason", code] => {
            let status = world.status(node(n)).expect("the node is up");
            let found = status.reasons.iter().any(|reason| reason.code == *code);
            assert!(found, "{code} is not among {:?}\n{log}", status.reasons);
        }
        [n, "recorded", "started"] => assert!(world.hosts[node(n)].record.started, "{log}"),
        [n, shown] => {
            let status = world.status(node(n)).expect("the node is up");
            let phase = if status.phase == model::Phase::Ready { "" } else { "..." };
            assert_eq!(format!("{}{phase}", status.role), *shown, "{log}");
        }
        other => panic!("cannot expect {other:?}"),
    }
}
