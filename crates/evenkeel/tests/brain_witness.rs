//! The witness lost at each moment, and back: it never harms a healthy pair, its loss is shown, and
//! whoever must not go on without it waits for it. How long anything takes is not judged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod brain_support;
mod support;

use self::brain_support::Trial;
use self::support::{NODES, PATIENCE, WITNESS, other};

/// Waits until both nodes show that there is no witness, which is no more than amber.
fn shown(trial: &Trial) {
    trial.cluster.until("both nodes miss the witness", PATIENCE, || {
        NODES.into_iter().all(|node| trial.shows(node, "witness-unreachable"))
    });
    for node in NODES {
        assert_eq!(trial.headline(node), "at-risk", "{node}");
    }
}

/// Waits until nothing is amber any more.
fn green(trial: &Trial) {
    trial.cluster.until("both nodes are green again", PATIENCE, || {
        NODES.into_iter().all(|node| trial.headline(node) == "protected")
    });
}

#[test]
fn a_healthy_pair_is_not_harmed_and_shows_the_loss() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.power(WITNESS);
    shown(&trial);
    trial.progress();
    for node in NODES {
        trial.kill_daemon(node);
        trial.cluster.start_daemon(node);
    }
    trial.paired(primary);
    trial.cluster.must(primary, &["switchover", trial.cluster.module()]);
    trial.paired(secondary);
    shown(&trial);
    trial.start_witness();
    green(&trial);
    trial.protected(secondary);
    trial.finish();
}

#[test]
fn a_witness_that_stands_still_is_missed_too() {
    let trial = Trial::start("");
    let (primary, _) = trial.pair();
    trial.freeze(WITNESS);
    shown(&trial);
    trial.progress();
    trial.thaw(WITNESS);
    green(&trial);
    trial.protected(primary);
    trial.finish();
}

#[test]
fn lost_before_a_failover_the_survivor_waits_until_the_witness_is_back() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.freeze(WITNESS);
    shown(&trial);
    trial.power(primary);
    trial.cluster.until("the survivor says what it waits for", PATIENCE, || {
        trial.shows(secondary, "witness-unreachable") && trial.cluster.role(secondary) == "WAIT"
    });
    trial.nobody_acknowledges();
    trial.thaw(WITNESS);
    trial.alone(secondary);
    trial.cluster.boot_node(primary);
    trial.protected(secondary);
    trial.finish();
}

/// It cannot know whether it was put back to a time before the other node went on.
#[test]
fn started_anew_it_grants_nothing_before_both_nodes_were_heard() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.power(WITNESS);
    trial.power(primary);
    trial.cluster.wait_for_role(secondary, &["WAIT"]);
    trial.start_witness();
    trial.cluster.until("the survivor says what it waits for", PATIENCE, || {
        trial.shows(secondary, "witness-unsure") && trial.cluster.role(secondary) == "WAIT"
    });
    trial.nobody_acknowledges();
    trial.cluster.boot_node(primary);
    // The former primary crashed and this node did not: it leads, by the consent of its peer.
    trial.protected(secondary);
    green(&trial);
    trial.finish();
}

#[test]
fn lost_before_a_failover_the_former_primary_may_come_back_instead() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.power(WITNESS);
    trial.power(primary);
    trial.cluster.wait_for_role(secondary, &["WAIT"]);
    trial.cluster.boot_node(primary);
    // It crashed and the other did not: the intact copy leads, by the consent of its peer.
    trial.alone(secondary);
    trial.cluster.until("the join is not registered", PATIENCE, || {
        trial.shows(secondary, "join-unregistered")
    });
    trial.progress();
    trial.start_witness();
    trial.protected(secondary);
    green(&trial);
    trial.finish();
}

#[test]
fn lost_while_it_is_asked_the_question_is_asked_again() {
    let trial = Trial::start("");
    for _ in 0..2 {
        let (primary, secondary) = trial.pair();
        // It takes questions in but answers none.
        trial.freeze(WITNESS);
        trial.cluster.lab().kill(primary).unwrap();
        trial.cluster.until("the survivor has asked in vain", PATIENCE, || {
            trial.shows(secondary, "witness-unreachable")
        });
        trial.nobody_acknowledges();
        trial.thaw(WITNESS);
        trial.alone(secondary);
        trial.cluster.boot_node(primary);
        trial.protected(secondary);
    }
    trial.finish();
}

#[test]
fn lost_while_a_node_is_alone_and_before_a_join_only_the_failover_has_to_wait() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.power(secondary);
    trial.alone(primary);
    trial.power(WITNESS);
    trial.progress();
    trial.cluster.boot_node(secondary);
    trial.cluster.until("the join is not registered", PATIENCE, || {
        trial.shows(primary, "join-unregistered")
    });
    trial.progress();
    assert_eq!(trial.headline(primary), "at-risk");
    // The secondary has no rights yet: when it is cut off, the primary goes on by itself.
    trial.cluster.lab().cut(primary, secondary).unwrap();
    trial.alone(primary);
    trial.cluster.lab().heal().unwrap();
    trial.start_witness();
    trial.protected(primary);
    green(&trial);
    trial.finish();
}

#[test]
fn a_node_that_is_alone_starts_again_only_where_the_witness_has_nobody_else() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.power(secondary);
    trial.alone(primary);
    trial.power(WITNESS);
    // Alone, with its epoch registered: it is the only one that may serve.
    trial.power(primary);
    trial.cluster.boot_node(primary);
    trial.cluster.until("it says what it waits for", PATIENCE, || {
        trial.cluster.role(primary) == "WAIT" && trial.shows(primary, "witness-unreachable")
    });
    trial.nobody_acknowledges();
    trial.start_witness();
    trial.alone(primary);
    trial.cluster.boot_node(secondary);
    trial.protected(primary);
    trial.finish();
}

#[test]
fn a_witness_that_lost_its_register_learns_it_from_the_pair() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.empty_witness();
    green(&trial);
    trial.protected(primary);
    trial.cluster.until("the witness knows the pair again", PATIENCE, || {
        let events = trial.cluster.must(primary, &["events", "--json"]);
        events.contains("the witness knows the pair again")
    });
    trial.cluster.lab().kill(primary).unwrap();
    trial.alone(secondary);
    trial.cluster.boot_node(primary);
    trial.protected(secondary);
    trial.finish();
}

#[test]
fn a_witness_that_lost_its_register_grants_nothing_to_one_node() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.cluster.lab().cut(secondary, WITNESS).unwrap();
    trial.cluster.lab().cut(primary, secondary).unwrap();
    trial.alone(primary);
    trial.empty_witness();
    trial.cluster.lab().restore(secondary, WITNESS).unwrap();
    trial.progress();
    // The one that was left behind asks a witness that knows nothing.
    trial.power(primary);
    trial.cluster.wait_for_role(secondary, &["WAIT"]);
    trial.nobody_acknowledges();
    trial.cluster.lab().heal().unwrap();
    trial.cluster.boot_node(primary);
    trial.protected(primary);
    assert_eq!(other(primary), secondary);
    trial.finish();
}
