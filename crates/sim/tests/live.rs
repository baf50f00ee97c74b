//! Worlds that begin as the nodes of another world are: they go on as that one would have.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

use cluster::found::Found;
use sim::World;
use sim::live::{self, Live};
use sim::story::perform;
use sim::world::shop;

/// A world in which this has happened.
fn world(commands: &[&str]) -> World {
    let mut world = World::new(7, true);
    happen(&mut world, commands);
    world
}

fn happen(world: &mut World, commands: &[&str]) {
    for command in commands {
        perform(world, command).unwrap_or_else(|wrong| panic!("{wrong}\n{}", world.log.join("\n")));
        assert_eq!(world.violation, None, "{}", world.log.join("\n"));
    }
}

fn found(world: &World, i: usize) -> Found {
    let node = world.hosts[i].node.as_ref().unwrap();
    node.found(world.own_time(i), &shop()).unwrap()
}

/// The nodes of a world in which both daemons run.
fn both(world: &World) -> [Live; 2] {
    [0, 1].map(|i| Live { found: found(world, i), up: true })
}

#[test]
fn a_protected_pair_goes_on_protected() {
    let before = world(&["given a protected pair"]);
    let mut after = World::of(both(&before)).unwrap();
    happen(&mut after, &["expect node1 PRIM", "expect node2 SECOND", "expect acknowledging"]);
    assert!(after.log.is_empty(), "nothing happened on the way: {:?}", after.log);
    happen(&mut after, &["power node1", "run 5s", "expect node2 ALONE", "expect acknowledging"]);
    happen(&mut after, &["boot node1", "run 5s", "expect node2 PRIM", "expect node1 SECOND"]);
}

#[test]
fn the_witness_is_believed_to_know_the_pair() {
    let before = world(&["given a protected pair"]);
    let mut after = World::of(both(&before)).unwrap();
    happen(&mut after, &["witness down", "power node1", "run 10s", "expect node2 WAIT..."]);
    happen(&mut after, &["expect node2 reason witness-unreachable"]);
}

#[test]
fn a_node_that_is_down_returns_outdated() {
    let mut before = world(&["given a protected pair"]);
    let second = found(&before, 1);
    happen(&mut before, &["power node2", "run 10s", "expect node1 ALONE"]);
    let first = found(&before, 0);
    assert!(!live::hears(&first));
    let nodes = [Live { found: first, up: true }, Live { found: second, up: false }];
    let mut after = World::of(nodes).unwrap();
    happen(&mut after, &["expect node1 ALONE", "power node1", "boot node2", "start node2"]);
    happen(&mut after, &["run 10s", "expect node2 reason outvoted"]);
    happen(&mut after, &["boot node1", "start node1", "run 10s", "expect node1 PRIM"]);
    happen(&mut after, &["expect node2 SECOND", "expect acknowledging"]);
}

#[test]
fn a_stopped_pair_and_a_resync_are_places_too() {
    let mut before = world(&["given a protected pair", "stop-all both", "run 5s"]);
    happen(&mut before, &["expect node1 STOP"]);
    let mut after = World::of(both(&before)).unwrap();
    happen(&mut after, &["expect node1 STOP", "start both", "run 5s", "expect node1 PRIM"]);
    happen(&mut after, &["expect node2 SECOND", "expect acknowledging"]);

    let mut before = world(&["given a protected pair", "power node2", "run 5s", "boot node2"]);
    happen(&mut before, &["until node1 resync"]);
    let mut after = World::of(both(&before)).unwrap();
    happen(&mut after, &["run 5s", "expect node1 PRIM", "expect node2 SECOND"]);
}
