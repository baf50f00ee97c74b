//! Nodes that lose their power one after the other, run out of room, lose their daemons, and count
//! time differently, with clients that write on. What was left behind never serves; nothing that
//! was acknowledged is lost. How long anything takes is not judged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod brain_support;
mod support;

use self::brain_support::{FILLERS, Trial};
use self::support::{NODES, PATIENCE, WITNESS, other};

/// Seconds in a year: further than any two machines' times since boot lie apart.
const YEAR: u32 = 31_536_000;

/// Pid of the ledger on a node.
fn application(trial: &Trial, node: &str) -> String {
    let words = ["pgrep", "-f", "-x", "[^ ]*evenkeel ledger --data .*"];
    let output = trial.cluster.host(node).run(words).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn after_the_power_of_both_at_once_either_may_return_first() {
    let trial = Trial::start("");
    for primary_first in [true, false] {
        let (primary, secondary) = trial.pair();
        for node in [primary, secondary] {
            trial.power(node);
        }
        let first = if primary_first { primary } else { secondary };
        trial.say(&format!("{first} returns first"));
        trial.cluster.boot_node(first);
        trial.cluster.wait_for_role(first, &["WAIT"]);
        trial.nobody_acknowledges();
        trial.cluster.boot_node(other(first));
        trial.progress();
        trial.protected(trial.cluster.primary());
    }
    trial.finish();
}

#[test]
fn after_the_power_of_one_and_later_the_other_the_one_left_behind_waits() {
    let trial = Trial::start("");
    for _ in NODES {
        let (primary, secondary) = trial.pair();
        trial.power(secondary);
        trial.alone(primary);
        trial.power(primary);
        trial.say(&format!("{secondary}, which was left behind, returns first"));
        trial.cluster.boot_node(secondary);
        trial.cluster.until("it waits for the other", PATIENCE, || {
            trial.cluster.role(secondary) == "WAIT" && trial.headline(secondary) == "down"
        });
        trial.nobody_acknowledges();
        trial.cluster.boot_node(primary);
        trial.protected(primary);

        trial.power(primary);
        trial.alone(secondary);
        trial.power(secondary);
        trial.say(&format!("{secondary}, which went on, returns first"));
        trial.cluster.boot_node(secondary);
        trial.alone(secondary);
        trial.cluster.boot_node(primary);
        trial.protected(secondary);
    }
    trial.finish();
}

#[test]
fn a_full_disk_of_data_drops_the_secondary_and_fails_the_primarys_writes() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    trial.cluster.lab().fill(secondary, FILLERS[0]).unwrap();
    trial.alone(primary);
    trial.cluster.lab().unfill(secondary, FILLERS[0]).unwrap();
    trial.protected(primary);
    trial.cluster.lab().fill(primary, FILLERS[0]).unwrap();
    trial.attempts_fail();
    assert_eq!(trial.cluster.primary(), primary, "an application's error is no failover");
    trial.cluster.lab().unfill(primary, FILLERS[0]).unwrap();
    trial.protected(primary);
    trial.finish();
}

#[test]
fn a_node_that_cannot_write_its_record_decides_nothing() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    // To go on alone is to be durable before it is acted on.
    trial.fill_up(primary);
    trial.cluster.lab().kill(secondary).unwrap();
    trial.nobody_acknowledges();
    assert_ne!(trial.cluster.role(primary), "ALONE");
    trial.cluster.lab().unfill(primary, FILLERS[1]).unwrap();
    trial.cluster.boot_node(secondary);
    trial.progress();
    trial.protected(trial.cluster.primary());

    let (primary, secondary) = trial.pair();
    trial.fill_up(secondary);
    trial.cluster.lab().kill(primary).unwrap();
    trial.nobody_acknowledges();
    assert_ne!(trial.cluster.role(secondary), "ALONE");
    trial.cluster.lab().unfill(secondary, FILLERS[1]).unwrap();
    trial.cluster.boot_node(primary);
    trial.progress();
    trial.finish();
}

#[test]
fn daemons_die_and_the_data_plane_goes_on() {
    let trial = Trial::start("");
    let (primary, secondary) = trial.pair();
    let before = application(&trial, primary);
    for dead in [&[primary][..], &[secondary], &[primary, secondary]] {
        trial.say(&format!("the daemons of {dead:?} die"));
        for node in dead {
            trial.kill_daemon(node);
        }
        trial.progress();
        for node in dead {
            trial.cluster.start_daemon(node);
        }
        trial.protected(primary);
        assert_eq!(application(&trial, primary), before, "the application was started anew");
    }
    // A node that dies while nobody decides is found dead by the daemon that comes later.
    trial.kill_daemon(secondary);
    trial.power(primary);
    trial.nobody_acknowledges();
    trial.cluster.start_daemon(secondary);
    trial.alone(secondary);
    trial.cluster.boot_node(primary);
    trial.protected(secondary);
    trial.finish();
}

#[test]
fn nodes_that_count_time_differently_are_a_pair_like_any_other() {
    let trial = Trial::start("");
    // Ahead by a year, and back again: the clock since boot of a node tells the other nothing.
    for (ahead, cut) in [(YEAR, false), (2 * YEAR, true), (0, false)] {
        let (primary, secondary) = trial.pair();
        trial.say(&format!("{primary} fails and returns with its clock {ahead} s ahead"));
        trial.power(primary);
        trial.alone(secondary);
        trial.cluster.lab().set_boot_clock(primary, ahead).unwrap();
        trial.cluster.boot_node(primary);
        trial.protected(secondary);
        if cut {
            // It is the one that the witness can grant it to.
            trial.cluster.lab().cut(primary, WITNESS).unwrap();
            trial.cluster.lab().cut(primary, secondary).unwrap();
            trial.alone(secondary);
            trial.cluster.lab().heal().unwrap();
            trial.protected(secondary);
        }
        trial.freeze(secondary);
        // The kernel of the one that stands still keeps its address for a while.
        trial.cluster.wait_for(primary, "alone", PATIENCE);
        trial.progress();
        trial.thaw(secondary);
        trial.protected(primary);
        trial.cluster.must(primary, &["switchover", trial.cluster.module()]);
        trial.protected(secondary);
    }
    trial.finish();
}
