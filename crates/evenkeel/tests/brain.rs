//! Two nodes and a witness that lose each other in every way, and nodes that stand still, with
//! clients that write on: exactly one node acknowledges, whatever is cut, and afterwards both hold
//! the same. How long anything takes is printed and not judged.

#![allow(clippy::print_stdout, reason = "figures are read by people")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod brain_support;
mod support;

use std::time::Instant;

use self::brain_support::{Trial, measure};
use self::support::applications::ledger;
use self::support::{NODES, PATIENCE, WITNESS, other};

/// Waits until a node that cannot reach anybody has dropped its address.
fn fenced(trial: &Trial, node: &str) {
    let cluster = &trial.cluster;
    cluster.until(&format!("{node} drops its address"), PATIENCE, || !cluster.holds_address(node));
}

#[test]
fn cut_from_each_other_one_goes_on_where_both_reach_the_witness() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.cluster.lab().cut(primary, secondary).unwrap();
    // The primary has half a second more, which is too little to be judged here; the scenarios of
    // the simulator know who goes on.
    let alone = trial.one_alone();
    assert_ne!(trial.cluster.role(other(alone)), "ALONE");
    trial.cluster.lab().heal().unwrap();
    trial.protected(alone);
    trial.finish();
}

#[test]
fn cut_from_each_other_the_one_that_reaches_the_witness_goes_on() {
    let trial = Trial::start("");
    for _ in NODES {
        let (primary, secondary) = trial.pair();
        trial.say("the primary alone reaches the witness");
        trial.cluster.lab().cut(secondary, WITNESS).unwrap();
        trial.cluster.lab().cut(primary, secondary).unwrap();
        trial.alone(primary);
        trial.cluster.lab().heal().unwrap();
        trial.protected(primary);
        trial.say("the secondary alone reaches the witness");
        trial.cluster.lab().cut(primary, WITNESS).unwrap();
        trial.cluster.lab().cut(primary, secondary).unwrap();
        trial.alone(secondary);
        trial.cluster.lab().heal().unwrap();
        trial.protected(secondary);
    }
    trial.finish();
}

#[test]
fn cut_from_each_other_and_the_witness_nobody_goes_on() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    let cluster = &trial.cluster;
    // Whoever comes back first decides: each other, or either node and the witness.
    for back in [(primary, secondary), (primary, WITNESS), (secondary, WITNESS)] {
        let (primary, secondary) = trial.pair();
        for node in [primary, secondary] {
            cluster.lab().cut(node, WITNESS).unwrap();
        }
        cluster.lab().cut(primary, secondary).unwrap();
        fenced(&trial, primary);
        trial.nobody_acknowledges();
        assert!(!cluster.holds_address(secondary));
        cluster.until("it is said why", PATIENCE, || {
            trial.shows(primary, "undecided") && trial.shows(secondary, "witness-unreachable")
        });
        trial.say(&format!("{} and {} reach each other again", back.0, back.1));
        cluster.lab().restore(back.0, back.1).unwrap();
        if back.1 == WITNESS {
            trial.alone(back.0);
        } else {
            trial.progress();
            assert_eq!(cluster.primary(), primary, "nothing moved");
        }
        cluster.lab().heal().unwrap();
        trial.protected(cluster.primary());
    }
    trial.finish();
}

#[test]
fn a_link_cut_one_way_is_a_cut_link() {
    let trial = Trial::start("");
    for towards_primary in [true, false] {
        let (primary, secondary) = trial.pair();
        let (from, to) = if towards_primary { (secondary, primary) } else { (primary, secondary) };
        trial.say(&format!("nothing from {from} reaches {to}"));
        trial.cluster.lab().cut_one_way(from, to).unwrap();
        let alone = trial.one_alone();
        trial.say(&format!("{alone} goes on"));
        trial.cluster.lab().heal().unwrap();
        trial.protected(alone);
    }
    trial.finish();
}

#[test]
fn a_link_to_the_witness_cut_one_way_takes_the_witness_away() {
    let trial = Trial::start("");
    for towards_witness in [true, false] {
        let (primary, secondary) = trial.pair();
        let lab = trial.cluster.lab();
        let way = if towards_witness { (primary, WITNESS) } else { (WITNESS, primary) };
        trial.say(&format!("nothing from {} reaches {}", way.0, way.1));
        lab.cut_one_way(way.0, way.1).unwrap();
        lab.cut(primary, secondary).unwrap();
        trial.alone(secondary);
        lab.heal().unwrap();
        trial.protected(secondary);
    }
    trial.finish();
}

#[test]
fn heartbeats_that_are_lost_while_the_data_link_lives_move_nothing() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.cluster.lab().cut_datagrams(primary, secondary).unwrap();
    trial.cluster.until("both nodes say so", PATIENCE, || {
        NODES.into_iter().all(|node| trial.shows(node, "control-plane-down"))
    });
    for node in NODES {
        assert_eq!(trial.headline(node), "at-risk", "{node}");
    }
    trial.progress();
    assert_eq!(trial.cluster.primary(), primary);
    assert_eq!(trial.cluster.role(secondary), "SECOND");
    trial.cluster.lab().heal().unwrap();
    trial.protected(primary);
    trial.finish();
}

#[test]
fn a_frozen_primary_that_thaws_after_its_peer_was_promoted_acknowledges_nothing() {
    frozen(Trial::start(""));
}

#[test]
fn so_it_is_where_links_are_encrypted() {
    frozen(Trial::over(ledger("").with_keys()));
}

fn frozen(trial: Trial) {
    for _ in NODES {
        let (primary, secondary) = trial.pair();
        let cluster = &trial.cluster;
        trial.freeze(primary);
        trial.say(&format!("{primary} is frozen"));
        cluster.wait_for(secondary, "alone", PATIENCE);
        trial.progress();
        let served = Instant::now();
        trial.thaw(primary);
        trial.say(&format!("{primary} is thawed"));
        let gone = measure(cluster, "the address is gone", || !cluster.holds_address(primary));
        let ended = measure(cluster, "its application is gone", || {
            let words = ["pgrep", "-f", "-x", "[^ ]*evenkeel ledger --data .*"];
            !cluster.host(primary).run(words).unwrap().status.success()
        });
        println!("  address gone {gone:?} after the thaw, application {ended:?} after that");
        trial.protected(secondary);
        trial.only_since(served, secondary);
    }
    trial.finish();
}

#[test]
fn a_frozen_primary_that_thaws_and_hears_nobody_lets_go_too() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    let cluster = &trial.cluster;
    trial.freeze(primary);
    cluster.wait_for(secondary, "alone", PATIENCE);
    trial.progress();
    let served = Instant::now();
    for host in [secondary, WITNESS] {
        cluster.lab().cut(primary, host).unwrap();
    }
    trial.thaw(primary);
    let gone = measure(cluster, "the address is gone", || !cluster.holds_address(primary));
    println!("  address gone {gone:?} after the thaw");
    trial.alone(secondary);
    cluster.lab().heal().unwrap();
    trial.protected(secondary);
    trial.only_since(served, secondary);
    trial.finish();
}

#[test]
fn a_frozen_secondary_is_left_behind_and_returns() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.freeze(secondary);
    trial.alone(primary);
    trial.thaw(secondary);
    trial.protected(primary);
    trial.finish();
}

#[test]
fn both_nodes_frozen_and_thawed_go_on_as_before() {
    let trial = Trial::start("");
    for primary_first in [true, false] {
        let (primary, secondary) = trial.pair();
        for node in [primary, secondary] {
            trial.freeze(node);
        }
        trial.nobody_acknowledges();
        let first = if primary_first { primary } else { secondary };
        trial.thaw(first);
        trial.say(&format!("{first} is thawed first"));
        trial.progress();
        trial.thaw(other(first));
        // One that is thawed tells its former role until it has found out.
        trial.cluster.until("one serves", PATIENCE, || trial.cluster.serving().len() == 1);
        trial.protected(trial.cluster.primary());
    }
    trial.finish();
}

#[test]
fn a_primary_that_is_cut_off_everybody_lets_go_in_time() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    let cluster = &trial.cluster;
    let cut = Instant::now();
    // In this order: else it could win at the witness before it loses that, too.
    for host in [WITNESS, secondary] {
        cluster.lab().cut(primary, host).unwrap();
    }
    fenced(&trial, primary);
    println!("  address gone {:?} after the cut", cut.elapsed());
    cluster.until("the peer takes the address", PATIENCE, || cluster.holds_address(secondary));
    println!("  address taken {:?} after the cut", cut.elapsed());
    trial.alone(secondary);
    let served = Instant::now();
    cluster.lab().heal().unwrap();
    trial.protected(secondary);
    trial.only_since(served, secondary);
    trial.finish();
}
