//! The states of a module's two nodes: asked of their daemons, or taken from the end of recordings.

use std::io;
use std::path::{Path, PathBuf};

use cluster::found::Found;
use cluster::replay::Replay;
use model::{ModuleName, Time};
use node::recordings;
use sim::live::{Live, hears};
use wire::control::{Exit, Reply, Verb};
use wire::recording::Reader;

use crate::command::Context;
use crate::command::found::{asked, peer_of};

/// Both nodes of a module, in the order of its configuration.
pub(super) struct States {
    pub(super) module: ModuleName,
    pub(super) nodes: [Live; 2],
}

/// The states, or what is to be told to the user instead.
pub(super) fn take(
    context: &Context,
    module: Option<&ModuleName>,
    paths: &[PathBuf],
) -> Result<States, Box<Reply>> {
    let mut nodes = Vec::new();
    for path in paths {
        nodes.push((recorded(path, module)?, false));
    }
    match nodes.len() {
        0 => {
            let here = asked(context, &module_of(context, module)?, None)?;
            let peer = peer_of(&here)?;
            let there =
                asked(context, &here.module.config.name, Some(peer)).map_err(|mut reply| {
                    reply.next = vec!["or give its recording: --recording PATH".to_owned()];
                    reply
                })?;
            nodes.extend([(here, true), (there, true)]);
        }
        1 => {
            let recorded = &nodes[0].0;
            let peer = peer_of(recorded)?;
            let found = asked(context, &recorded.module.config.name, Some(peer))?;
            nodes.push((found, true));
        }
        _ => {}
    }
    let [one, two] = <[(Found, bool); 2]>::try_from(nodes)
        .map_err(|_| usage("a module has two nodes: give at most two recordings".to_owned()))?;
    if one.0.node == two.0.node || one.0.module.config.name != two.0.module.config.name {
        let what = "the two states are not those of the two nodes of one module".to_owned();
        return Err(usage(what));
    }
    Ok(ordered(one, two))
}

fn ordered(one: (Found, bool), two: (Found, bool)) -> States {
    let module = one.0.module.config.name.clone();
    let first = one.0.module.config.nodes.first() == Some(&one.0.node);
    let [one, two] = if first { [one, two] } else { [two, one] };
    // A node that did not answer itself runs if the other one hears it.
    let apart = !one.1 && !two.1 && !hears(&one.0) && !hears(&two.0);
    let (one_up, two_up) = (one.1 || hears(&two.0) || apart, two.1 || hears(&one.0) || apart);
    let nodes = [Live { found: one.0, up: one_up }, Live { found: two.0, up: two_up }];
    States { module, nodes }
}

/// The module that is meant.
fn module_of(context: &Context, module: Option<&ModuleName>) -> Result<ModuleName, Box<Reply>> {
    if let Some(module) = module {
        return Ok(module.clone());
    }
    let reply = context.ask(Verb::Status);
    if reply.outcome != Exit::Done {
        return Err(Box::new(reply));
    }
    let modules = reply.data["modules"].as_object();
    let names: Vec<&str> = modules.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    only(&names)
}

fn only(names: &[&str]) -> Result<ModuleName, Box<Reply>> {
    match names {
        [name] => ModuleName::new(name).map_err(|error| usage(error.to_string())),
        names => Err(usage(format!("say which module, by --module: {}", names.join(", ")))),
    }
}

/// The state at the end of a recording.
fn recorded(path: &Path, module: Option<&ModuleName>) -> Result<Found, Box<Reply>> {
    let wrong = |why: String| usage(format!("{}: {why}", path.display()));
    let (replay, at) = led_through(path).map_err(|error| wrong(error.to_string()))?;
    let node = replay.node().ok_or_else(|| {
        wrong("this program cannot replay it to its end; `evenkeel replay` says why".to_owned())
    })?;
    let status = node.status(at);
    let names: Vec<&str> = status.modules.keys().map(ModuleName::as_str).collect();
    let module = match module {
        Some(module) => module.clone(),
        None => only(&names)?,
    };
    node.found(at, &module).ok_or_else(|| {
        wrong(format!("there is no module `{module}`; there is {}", names.join(", ")))
    })
}

/// A node that was led through all that is recorded, and when that ends.
fn led_through(path: &Path) -> io::Result<(Replay, Time)> {
    let (mut replay, mut at) = (Replay::default(), Time::ZERO);
    let mut torn = false;
    for segment in recordings::segments(path)? {
        let bytes = recordings::read(&segment)?;
        let Ok(mut reader) = Reader::new(&bytes) else {
            torn = true;
            continue;
        };
        loop {
            let read = match reader.read() {
                Ok(Some(read)) => read,
                Ok(None) => break,
                Err(_) => {
                    torn = true;
                    break;
                }
            };
            // What is torn off at the very end is as if it had not happened; of what comes after a
            // gap nothing is known until a node begins anew.
            if std::mem::take(&mut torn) {
                replay.lose();
            }
            at = read.at;
            let taken = read
                .entry
                .map_err(drop)
                .and_then(|entry| replay.take(at, entry).map(drop).map_err(drop));
            if taken.is_err() {
                replay.lose();
            }
        }
    }
    Ok((replay, at))
}

fn usage(what: String) -> Box<Reply> {
    Box::new(Reply::new(Exit::Usage, what))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]
mod tests {
    use std::fs;
    use std::time::Duration;

    use cluster::input::{Boot, BootModule, DataState};
    use cluster::{Input, Node, Record};
    use model::config::{Source, digest, parse_cluster, parse_module};
    use model::{BootId, NodeName};
    use wire::recording::Writer;

    use super::*;

    const START: Time = Time::from_millis(1000);

    fn boot() -> Boot {
        let text = "cluster = 'test'\n\
            node = [{ name = 'node1', addresses = { lan0 = '10.0.0.1' } },\n\
                    { name = 'node2', addresses = { lan0 = '10.0.0.2' } }]\n";
        let cluster = parse_cluster(&Source { file: "cluster.toml", text }).unwrap();
        let text = "module = 'shop'\nkind = 'mirror'\nreplicate = ['/srv/shop']\n";
        let config = parse_module(&Source { file: "shop.toml", text }, &cluster).unwrap();
        let record = Record { started: true, ..Record::default() };
        let (digest, data) = (digest(&config), DataState::Empty);
        let modules = vec![BootModule { digest, config, record, data, running: None }];
        let name = NodeName::new("node1").unwrap();
        Boot {
            name,
            boot: BootId(1),
            cluster_digest: 0,
            modules,
            cluster,
            wall: Duration::ZERO,
            seed: 3,
        }
    }

    /// Lets time pass and records that; all bytes since the last time.
    fn tick(node: &mut Node, writer: &mut Writer, now: &mut Time) -> Vec<u8> {
        for _ in 0..20 {
            *now = *now + Duration::from_millis(500);
            writer.input(*now, &Input::Tick);
            let effects = node.handle(*now, Input::Tick);
            writer.effects(*now, &effects);
        }
        writer.take()
    }

    #[test]
    fn what_comes_after_a_gap_counts_from_where_a_node_begins_anew() {
        let name = format!("evenkeel-states-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        fs::create_dir_all(&place).unwrap();
        let mut now = START;
        let (mut node, effects) = Node::new(now, boot());
        let mut writer = Writer::new();
        writer.boot(now, 0, "test", &boot());
        writer.effects(now, &effects);
        let mut first = writer.take();
        first.extend(tick(&mut node, &mut writer, &mut now));
        // What follows is torn off, and the next segment takes itself for the continuation.
        tick(&mut node, &mut writer, &mut now);
        first.extend([7; 9]);
        fs::write(place.join("1.rec"), first).unwrap();
        let mut writer = Writer::new();
        writer.state(now, 0, "test", &node, true);
        let mut second = tick(&mut node, &mut writer, &mut now);
        let whole = second.len();
        second.truncate(whole - 1);
        fs::write(place.join("2.rec"), &second).unwrap();
        let (replay, at) = led_through(&place).unwrap();
        assert!(replay.node().is_some() && at > START + Duration::from_secs(10), "{at:?}");
        // A segment that never was, between two others.
        fs::write(place.join("3.rec"), "").unwrap();
        assert!(led_through(&place).unwrap().0.node().is_some());
        writer = Writer::new();
        writer.state(now, 0, "test", &node, true);
        fs::write(place.join("4.rec"), writer.take()).unwrap();
        assert_eq!(led_through(&place).unwrap().0.node(), Some(&node));
        fs::remove_dir_all(&place).unwrap();
    }
}
