//! Stories: commands that an operator or fate would give, and what came of them.
//!
//! A story file holds both; lines that begin with `> ` are commands, the rest is the outcome.
//! Schedules are made of the same commands.

use std::time::Duration;

use cluster::data_fault;
use cluster::effect::Outcome;
use cluster::input::Command;
use cluster::record::StoredCopy;
use cluster::witness::Witness;
use model::config::{AfterDoubleCrash, FailoverMode, Keep, WithoutWitness};
use model::{Phase, Role};

use crate::light::{self, Light};
use crate::promises::Promise;
use crate::world::World;

/// Longest time that `until` waits.
const UNTIL_MAX: Duration = Duration::from_secs(60);
/// How often a pair is looked at that must settle: every two seconds.
const SETTLE_ROUNDS: u32 = 60;

/// Runs the commands of a story and tells it anew.
///
/// # Errors
/// A command is unknown, an expectation is not met or a promise is broken: with all that
/// happened.
pub fn tell(text: &str) -> Result<String, String> {
    play(text).map(|(story, _)| story)
}

/// As [`tell`], with the world as it is at the end.
///
/// # Errors
/// As [`tell`].
pub fn play(text: &str) -> Result<(String, World), String> {
    let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    let mut world = World::new(7, !commands.contains(&"no witness"));
    let mut story: Vec<String> = head.iter().map(|line| (*line).to_owned()).collect();
    for command in commands {
        story.push(format!("> {command}"));
        let from = world.log.len();
        let done = perform(&mut world, command);
        story.extend(world.log.iter().skip(from).cloned());
        let broken = world.violation.as_ref().map(ToString::to_string);
        if let Some(wrong) = done.err().or(broken) {
            return Err(format!("{}\n{wrong}", story.join("\n")));
        }
    }
    Ok((story.join("\n") + "\n", world))
}

/// Lets one command happen.
///
/// # Errors
/// It is unknown, or an expectation that is not met.
pub fn perform(world: &mut World, command: &str) -> Result<(), String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let unknown = || format!("there is no command `{command}`");
    match words.as_slice() {
        ["no", "witness"] => world.has_witness = false,
        ["seed", number] => {
            world.seed = number.parse().map_err(|_| unknown())?;
            world.chance = crate::dice::Dice::new(world.seed);
        }
        ["policy", "wait"] => world.policy = WithoutWitness::Wait,
        ["fence", time] => world.fence = Some(span(time)?),
        ["after-crash", "go-on"] => {
            // What was not on a disk may be lost, as the operator knows.
            world.checks.exempt = true;
            world.after_crash = AfterDoubleCrash::GoOn;
        }
        ["keep", "longest-serving"] => world.keep = Keep::LongestServing,
        ["landmark"] => world.landmark = true,
        ["ack", "fsync"] => world.ack = model::config::Ack::Fsync,
        ["ack", "write"] => world.ack = model::config::Ack::Write,
        ["manual"] => world.mode = FailoverMode::Manual,
        ["prefer", n] => world.preferred = Some(node(n)?),
        ["given", "a", "protected", "pair"] => {
            for step in ["boot both", "start both", "run 4s", "expect node1 PRIM"] {
                perform(world, step)?;
            }
            world.log.clear();
        }
        ["given", "a", "light", "module"] => {
            for step in ["light", "boot both", "light both start", "run 1s"] {
                perform(world, step)?;
            }
            world.log.clear();
        }
        ["light", rest @ ..] => of_light(world, rest)?,
        ["run", time] => world.run_for(span(time)?),
        ["settle"] => settle(world),
        ["compare"] => compare(world),
        ["steady"] => world.steady = (0..2).find(|i| world.serve_in_force(*i).is_some()),
        ["unsteady"] => world.steady = None,
        ["mend"] => mend(world),
        ["until", n, code] => until(world, node(n)?, code)?,
        ["expect", rest @ ..] => expect(world, rest)?,
        ["boot", "both"] => {
            world.boot(0);
            world.boot(1);
            world.run_for(Duration::from_millis(300));
        }
        _ => {
            let known = crate::configuring::order(world, &words)?
                || network(world, &words)?
                || of_witness(world, &words)?
                || machine(world, &words)?
                || crate::disks::befall(world, &words)?
                || order(world, &words)?;
            return if known { Ok(()) } else { Err(unknown()) };
        }
    }
    Ok(())
}

pub(crate) fn node(text: &str) -> Result<usize, String> {
    match text {
        "node1" => Ok(0),
        "node2" => Ok(1),
        other => Err(format!("`{other}` is no node: there are node1 and node2")),
    }
}

pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let wrong = |_| format!("`{text}` is no time: write 300ms or 5s");
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().map(Duration::from_millis).map_err(wrong);
    }
    text.strip_suffix('s').unwrap_or(text).parse().map(Duration::from_secs).map_err(wrong)
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

/// What befalls the network between the nodes.
fn network(world: &mut World, words: &[&str]) -> Result<bool, String> {
    match words {
        ["cut"] => {
            world.network.cut = true;
            let decided = world.has_witness || world.fence.is_some();
            let risked = !decided && world.policy == WithoutWitness::GoOn;
            world.checks.exempt |= risked && world.keep == Keep::Manual;
        }
        ["cut-heartbeats"] => world.network.cut_heartbeats = true,
        ["cut-link"] => world.network.cut_link = true,
        ["isolate", n] => {
            world.network.isolated.insert(node(n)?);
        }
        ["landmark", "down"] => world.network.landmark_down = true,
        ["landmark", "up"] => world.network.landmark_down = false,
        ["mute", n] => world.network.mute = Some(node(n)?),
        ["one-way", n] => world.network.one_way = Some(node(n)?),
        ["lose", percent] => world.network.loss = number(percent)?,
        ["double", percent] => world.network.twice = number(percent)?,
        ["jitter", time] => world.network.jitter = span(time)?,
        ["lag", time] => world.network.lag = span(time)?,
        ["heal"] => world.network.heal(),
        _ => return Ok(false),
    }
    Ok(true)
}

/// What befalls the witness.
fn of_witness(world: &mut World, words: &[&str]) -> Result<bool, String> {
    match words {
        ["witness", "down"] => world.network.witness_up = false,
        ["witness", "up"] => world.network.witness_up = true,
        ["witness", "forgets"] => world.witness = Witness::default(),
        ["witness", "save"] => world.witness_saved = world.witness.registers(),
        ["witness", "restore"] => world.witness = Witness::new(world.witness_saved.clone()),
        ["witness", "restart"] => world.witness = Witness::new(world.witness.registers()),
        ["witness", "slow", n, delay] => {
            world.network.witness_delay[node(n)?] = Some(span(delay)?);
        }
        ["witness", "cut", n] => {
            world.network.witness_cut.insert(node(n)?);
        }
        ["witness", "unheard", n] => {
            world.network.witness_unheard.insert(node(n)?);
        }
        ["witness", "heal"] => world.network.heal_witness(),
        _ => return Ok(false),
    }
    Ok(true)
}

/// What befalls a machine, its processes and its clock.
fn machine(world: &mut World, words: &[&str]) -> Result<bool, String> {
    match words {
        ["boot", n] => {
            let i = node(n)?;
            if !world.hosts[i].up {
                world.boot(i);
            }
        }
        ["upgrade", "both"] => world.upgrade_all(),
        ["upgrade", n] => world.upgrade(node(n)?),
        ["kill", n] => world.kill(node(n)?),
        ["power", n] => world.power(node(n)?),
        ["stop-daemon", n] => world.stop_daemon(node(n)?),
        ["die", n] => world.replicator_dies(node(n)?),
        ["crash-after", n, effects] => {
            world.hosts[node(n)?].crash_after = Some(number(effects)?);
        }
        ["configure", n, value] => world.hosts[node(n)?].config_key = number(value)?,
        ["freeze", n, time] => {
            let until = world.now + span(time)?;
            world.hosts[node(n)?].frozen = until;
            world.loosen_from(until);
        }
        ["clock", n, "jump", time] => {
            world.loosen();
            let now = world.now;
            world.hosts[node(n)?].clock.jump(now, span(time)?);
        }
        ["clock", n, millionths] => {
            let now = world.now;
            world.hosts[node(n)?].clock.run_at(now, number(millionths)?);
        }
        ["look-back", time] => world.look_back = span(time)?,
        ["script", time] => world.script = Some(span(time)?),
        ["break-script", n] => world.hosts[node(n)?].script_broken = true,
        ["mend-script", n] => world.hosts[node(n)?].script_broken = false,
        ["break-fence", n] => world.hosts[node(n)?].fence_broken = true,
        ["mend-fence", n] => world.hosts[node(n)?].fence_broken = false,
        ["break-service", n] => world.broken_service = Some(node(n)?),
        ["mend-service"] => world.broken_service = None,
        ["check", name, action] => {
            let check = crate::application::check(name, action)?;
            world.checked.retain(|known| known.name != check.name);
            world.checked.push(check);
        }
        [what @ ("crash" | "fail-check" | "mend-check"), n, check] => {
            world.befall(node(n)?, what, check)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// What the operator wants.
fn order(world: &mut World, words: &[&str]) -> Result<bool, String> {
    let (verb, target, length) = match words {
        [verb, target] => (*verb, target, Duration::from_secs(3600)),
        [verb @ ("pause" | "maintain"), target, length] => (*verb, target, span(length)?),
        _ => return Ok(false),
    };
    let command = match verb {
        "pause" => Command::Pause(length),
        "resume" => Command::Resume,
        "maintain" => Command::Maintain(length),
        "maintained" => Command::EndMaintenance,
        "start" => Command::Start,
        "stop" => Command::Stop,
        "stop-all" => Command::StopAll,
        "switchover" => Command::Switchover,
        "discard" => Command::Discard,
        "force-primary" => Command::ForcePrimary,
        _ => return Ok(false),
    };
    let targets = if *target == "both" { vec![0, 1] } else { vec![node(target)?] };
    for i in targets {
        world.command(i, command);
    }
    Ok(true)
}

/// Everything works again, but for what has to be started.
fn mend(world: &mut World) {
    world.network.heal();
    world.network.heal_witness();
    world.broken_service = None;
    if world.hosts.iter().any(|host| !host.slow.is_zero()) {
        world.loosen();
    }
    for i in [0, 1] {
        let host = &mut world.hosts[i];
        host.script_broken = false;
        host.fence_broken = false;
        host.crash_after = None;
        host.full = false;
        host.slow = Duration::ZERO;
        world.mend_application(i);
        world.mend_light(i);
        let host = &mut world.hosts[i];
        let stale = host.config_key != 0 || !host.disk;
        host.config_key = 0;
        host.disk = true;
        if stale && host.up {
            world.stop_daemon(i);
            world.boot(i);
        }
    }
}

/// Runs until the pair is protected. Where a disk was lost, the operator may have to say that what
/// is left shall do.
fn settle(world: &mut World) {
    for round in 0..SETTLE_ROUNDS {
        if world.violation.is_some() || is_protected(world) {
            return;
        }
        if round == SETTLE_ROUNDS / 2 {
            sacrifice(world);
        }
        switch_on(world);
        heal(world);
        world.run_for(Duration::from_secs(2));
    }
    // The source's disk was lost in the middle of a resync: a backup must be brought back. Or the
    // operator forced one copy, and has to say what becomes of the other.
    let lost = !(0..2).any(|i| has_whole_copy(world, i));
    let split = world.checks.exempt && (0..2).any(|i| is_split(world, i));
    if world.disk_lost && (lost || split) {
        return;
    }
    let shown = [0, 1].map(|i| {
        let status = world.status(i)?;
        let reasons = status.reasons.into_iter().map(|reason| reason.code).collect::<Vec<_>>();
        Some(format!("{} {:?} {}", status.role, status.phase, reasons.join(" ")))
    });
    let what = format!("it does not: {shown:?}");
    world.violate(Promise::ThePairSettles, what);
}

/// The operator switches on what a command has switched off at the very end.
fn switch_on(world: &mut World) {
    let off = (0..2).filter(|i| world.fence.is_some() && !world.hosts[*i].up).collect::<Vec<_>>();
    for i in off {
        world.boot(i);
        world.command(i, Command::Start);
    }
}

/// The operator has a disk filled that was replaced by an empty one, and gives up the copy against
/// which the other one was forced, or one of two that have not gone on alone on their disks.
fn heal(world: &mut World) {
    let serves = [0, 1].map(|i| world.hosts[i].shown == (Role::Alone, Phase::Ready));
    let unopened = world.hosts.iter().all(|host| host.record.unopened.is_some());
    let split = (world.checks.exempt || unopened) && (0..2).any(|i| is_split(world, i));
    if split && serves == [true, true] {
        world.command(1, Command::Stop);
    }
    let given_up = (0..2).find(|i| split && !serves[*i]);
    let lost = (0..2).filter(|i| world.hosts[*i].refilled && has_lost_data(world, *i));
    for i in lost.chain(given_up).collect::<Vec<_>>() {
        world.command(i, Command::Discard);
    }
}

/// What befalls the light module, or is expected of it.
fn of_light(world: &mut World, words: &[&str]) -> Result<(), String> {
    match words {
        [] => world.hosts.iter_mut().for_each(|host| host.light = Some(Light::default())),
        ["settle"] => light::settle(world),
        ["expect", n, rest @ ..] => light::expect(world, node(n)?, rest)?,
        ["both", rest @ ..] => {
            world.befall_light(0, rest)?;
            world.befall_light(1, rest)?;
        }
        [n, rest @ ..] => world.befall_light(node(n)?, rest)?,
    }
    Ok(())
}

fn is_protected(world: &World) -> bool {
    let shown = [0, 1].map(|i| world.hosts[i].shown);
    let up = world.hosts.iter().all(|host| host.up);
    let has = |role| shown.contains(&(role, Phase::Ready));
    let has_its_own = world.hosts.iter().all(|host| {
        let primary = host.shown.0 == Role::Prim;
        host.addresses == primary && host.service == primary
    });
    up && has(Role::Prim) && has(Role::Second) && has_its_own
}

/// A protected pair holds equal copies, once what is under way has arrived.
fn compare(world: &mut World) {
    if world.violation.is_some() || !is_protected(world) {
        return;
    }
    world.writing = false;
    world.run_for(Duration::from_secs(1));
    world.writing = true;
    let [one, two] = [0, 1].map(|i| &world.hosts[i].replicator.tree);
    if !one.same_as(two) {
        let what = "a pair that has settled holds different copies".to_owned();
        world.violate(Promise::InSyncMeansEqual, what);
    }
}

fn is_split(world: &World, i: usize) -> bool {
    let reasons = world.status(i).map(|status| status.reasons).unwrap_or_default();
    reasons.iter().any(|reason| matches!(reason.code.as_str(), "split-brain" | "different-data"))
}

fn has_whole_copy(world: &World, i: usize) -> bool {
    match world.hosts[i].record.copy {
        StoredCopy::None | StoredCopy::Inconsistent | StoredCopy::Discarded => false,
        StoredCopy::Outdated { .. } | StoredCopy::Restored | StoredCopy::Current => {
            !has_lost_data(world, i)
        }
    }
}

/// Its directories are not those that its record speaks of.
fn has_lost_data(world: &World, i: usize) -> bool {
    let host = &world.hosts[i];
    host.disk && data_fault(&host.record, &host.data()).is_some()
}

/// What was acknowledged is gone with its disk: the operator forces the copy that holds most, of
/// those that are no mixture.
fn sacrifice(world: &mut World) {
    if world.disk_lost {
        world.checks.exempt = true;
        let worth = |i: usize| {
            let number = world.hosts[i].replicator.tree.number();
            (has_whole_copy(world, i), number)
        };
        let held = [worth(0), worth(1)];
        world.command(usize::from(held[1] > held[0]), Command::ForcePrimary);
    }
}

/// Runs until a node explains something with this code.
fn until(world: &mut World, i: usize, code: &str) -> Result<(), String> {
    let from = world.events.len();
    let end = world.now + UNTIL_MAX;
    while !world.events[from..].iter().any(|(who, event)| *who == i && event.code == code) {
        if world.now >= end || world.violation.is_some() {
            return Err(format!("node{} never said {code}", i + 1));
        }
        world.step();
    }
    Ok(())
}

fn expect(world: &mut World, words: &[&str]) -> Result<(), String> {
    let met = |is: bool, otherwise: String| if is { Ok(()) } else { Err(otherwise) };
    match words {
        ["identical"] => {
            let [one, two] = [0, 1].map(|i| world.hosts[i].replicator.tree.clone());
            met(one.same_as(&two), "the trees differ".to_owned())
        }
        ["acknowledging"] => {
            let before = world.checks.acknowledged;
            world.run_for(Duration::from_millis(500));
            met(world.checks.acknowledged > before, "nothing is acknowledged".to_owned())
        }
        [n, "reason", code] => {
            let Some(status) = world.status(node(n)?) else { return Err(format!("{n} is down")) };
            let found = status.reasons.iter().any(|reason| reason.code == *code);
            met(found, format!("{code} is not among {:?}", status.reasons))
        }
        [n, "no", "reason", code] => {
            let Some(status) = world.status(node(n)?) else { return Err(format!("{n} is down")) };
            let found = status.reasons.iter().any(|reason| reason.code == *code);
            met(!found, format!("{code} is among {:?}", status.reasons))
        }
        [n, "configuration", number] => {
            crate::configuring::has_number(world, node(n)?, self::number(number)?)
        }
        [n, "recorded", "started"] => {
            met(world.hosts[node(n)?].record.started, format!("{n} is not recorded as started"))
        }
        ["outcome", "refused"] => {
            let last = world.outcomes.values().next_back();
            let refused = matches!(last, Some(Outcome::Refused { .. }));
            met(refused, format!("the operator was answered {last:?}"))
        }
        [n, shown] => {
            let Some(status) = world.status(node(n)?) else { return Err(format!("{n} is down")) };
            let phase = if status.phase == Phase::Ready { "" } else { "..." };
            let role = format!("{}{phase}", status.role);
            met(role == *shown, format!("{n} is {role} instead of {shown}"))
        }
        other => Err(format!("cannot expect {other:?}")),
    }
}
