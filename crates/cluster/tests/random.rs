//! Random schedules over the world of the stories: whatever happens, the promises hold, and once
//! everything is mended the pair settles as PRIM and SECOND.
//!
//! `EVENKEEL_SEEDS=10000` runs more, from `EVENKEEL_FIRST` on;
//! `EVENKEEL_SEED=17` runs one and tells it.

mod world;

use std::time::Duration;

use cluster::input::Command;
use model::{Phase, Role};
use world::World;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

#[allow(clippy::disallowed_methods, reason = "how much to run is asked of the caller")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn promises_hold_whatever_happens() {
    if let Some(seed) = number("EVENKEEL_SEED") {
        let world = play(seed);
        eprintln!("{}", world.log.join("\n"));
        return;
    }
    let first = number("EVENKEEL_FIRST").unwrap_or(0);
    for seed in first..first + number("EVENKEEL_SEEDS").unwrap_or(300) {
        eprintln!("seed {seed}");
        play(seed);
    }
}

fn play(seed: u64) -> World {
    let mut dice = Dice(seed);
    let mut world = World::new(seed, true);
    world.script = (seed % 3 == 1).then(|| Duration::from_millis(seed % 7 * 300));
    world.boot(0);
    world.boot(1);
    world.run_for(Duration::from_millis(300));
    world.command(0, Command::Start);
    world.command(1, Command::Start);
    let warm = dice.roll(4000);
    world.run_for(Duration::from_millis(warm));
    for _ in 0..4 + dice.roll(12) {
        mishap(&mut world, &mut dice);
        let scale = [20, 300, 2000, 6000][dice.roll(4) as usize];
        let pause = dice.roll(scale);
        world.run_for(Duration::from_millis(pause));
    }
    mend(&mut world, &mut dice);
    let mut settled = false;
    for _ in 0..60 {
        world.run_for(Duration::from_secs(2));
        let roles = [0, 1].map(|i| world.status(i).map(|s| (s.role, s.phase)));
        settled = roles.contains(&Some((Role::Prim, Phase::Ready)))
            && roles.contains(&Some((Role::Second, Phase::Ready)));
        if settled {
            break;
        }
    }
    let shown = [0, 1].map(|i| world.status(i).map(|s| (s.role, s.phase, s.copy, s.reasons)));
    let log = world::check::tail(&world.log);
    assert!(settled, "seed {seed} does not settle: {shown:#?}\n{log}");
    world
}

fn mishap(world: &mut World, dice: &mut Dice) {
    let i = dice.roll(2) as usize;
    let name = world.hosts[i].name.to_string();
    let kind = dice.roll(19);
    world.note(&format!("-- {kind} {name}"));
    match kind {
        0 if world.hosts[i].up => world.kill(i),
        1 if world.hosts[i].up => world.power(i),
        2 | 3 if !world.hosts[i].up => world.boot(i),
        4 => world.cut = true,
        5 | 6 => {
            world.cut = false;
            world.cut_heartbeats = false;
            world.mute = None;
        }
        7 => world.cut_heartbeats = true,
        8 => world.witness_up = !world.witness_up,
        9 => {
            let delay = Duration::from_millis(1 + dice.roll(4000));
            world.witness_delay.insert(i, delay);
        }
        10 => {
            world.command(i, Command::Switchover);
        }
        11 => {
            world.command(i, Command::Stop);
        }
        12 => {
            world.command(i, Command::Start);
        }
        13 => world.replicator_dies(i),
        14 if world.hosts[i].up => {
            world.stop_daemon(i);
            world.run_for(Duration::from_millis(200));
            world.boot(i);
        }
        15 => world.hosts[i].crash_after = Some(dice.roll(12) as usize),
        16 => {
            world.command(0, Command::StopAll);
            world.command(1, Command::StopAll);
        }
        17 => world.mute = Some(i),
        18 => {
            world.loose = true;
            world.frozen[i] = world.now + Duration::from_millis(dice.roll(5000));
        }
        _ => world.hosts[i].script_broken = !world.hosts[i].script_broken,
    }
}

fn mend(world: &mut World, dice: &mut Dice) {
    world.note("-- mended");
    world.cut = false;
    world.cut_heartbeats = false;
    world.mute = None;
    world.witness_up = true;
    world.witness_delay.clear();
    let first = dice.roll(2) as usize;
    for i in [first, 1 - first] {
        world.hosts[i].script_broken = false;
        world.hosts[i].crash_after = None;
        if !world.hosts[i].up {
            world.boot(i);
        }
    }
    world.run_for(Duration::from_secs(12));
    for i in [0, 1] {
        world.command(i, Command::Start);
    }
}
