//! Commands of stories that befall a disk: it is full, slow, lost, put back, not mounted, or takes
//! nothing. What comes of that is the world's matter.

use std::time::Duration;

use cluster::effect::Assignment;
use cluster::input::{DataState, ReplicatorEvent};

use crate::story::{node, span};
use crate::world::World;

/// What befalls a disk.
pub(crate) fn befall(world: &mut World, words: &[&str]) -> Result<bool, String> {
    let (verb, i) = match words {
        ["slow", n, time] => {
            // A daemon that waits for its disk drops the address late, and so does one that has.
            world.loosen();
            world.hosts[node(n)?].slow = span(time)?;
            return Ok(true);
        }
        [verb, n] => (*verb, node(n).unwrap_or(0)),
        _ => return Ok(false),
    };
    if verb == "stall" {
        stall(world, i);
        return Ok(true);
    }
    let host = &mut world.hosts[i];
    match verb {
        "unmount" => host.disk = false,
        "mount" => host.disk = true,
        "fill" => host.filled = true,
        "full" => host.full = true,
        "empty" => host.full = false,
        "save" => host.replicator.save(),
        "restore" => {
            if let Some(saved) = host.replicator.saved.clone() {
                host.replicator.tree = saved;
                host.replicator.restored = true;
                world.checks.disk_lost(i);
                world.disk_lost = true;
            }
        }
        "replace-disk" => world.replace_disk(i, false),
        "replace-machine" => world.replace_disk(i, true),
        "tamper" => host.replicator.tampered = true,
        "fail-copy" => {
            // A broken disk vouches for nothing any more.
            world.checks.disk_lost(i);
            world.disk_lost = true;
            world.hosts[i].replicator.broken = true;
            let why = "the disk is broken".to_owned();
            world.replicator_event(i, Duration::ZERO, ReplicatorEvent::CopyFailed { why });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A target's disk takes nothing any more, and its source has waited for that long enough.
fn stall(world: &mut World, i: usize) {
    let Some(session) = world.hosts[1 - i].replicator.link else { return };
    let why = "it has taken nothing for 10 s".to_owned();
    world.replicator_event(1 - i, Duration::ZERO, ReplicatorEvent::TargetFailed { session, why });
}

/// Whether the daemon answers an assignment itself, as it starts no replicator: there is none to
/// end, or the disk is not the one that the record knows.
pub(crate) fn starts_none(world: &mut World, i: usize, serial: u64, told: &Assignment) -> bool {
    let host = &world.hosts[i];
    if host.replicator.running {
        return false;
    }
    if *told == Assignment::Close {
        world.say_assigned(i, serial, false);
        return true;
    }
    let wrong = match host.data() {
        DataState::Empty | DataState::Unmarked => host.record.epoch.is_some(),
        DataState::Marked { root, .. } => root != host.record.root,
        DataState::Unusable { .. } => true,
    };
    if wrong {
        let why = "the disk is not mounted or was replaced".to_owned();
        world.replicator_event(i, Duration::ZERO, ReplicatorEvent::Refused { serial, why });
    }
    wrong
}
