//! What else is in a random schedule: a light module, a configuration in files that changes, other
//! programs, rarities. Each has chance of its own, so that what befalls the mirror is the same
//! without it.

use crate::dice::Dice;
use crate::light;
use crate::schedule::{CHECKS, Kind};

/// What makes a seed of the light module's chance.
const LIGHT: u64 = 0x11c4_7000_0000;
/// What makes a seed of the chance of other programs.
const PROGRAMS: u64 = 0x9406_0000_0000;
/// What makes a seed of whether only what was synced counts.
const SYNCS: u64 = 0xf5c0_0000_0000;
/// What makes a seed of the chance of rarities.
const RARITIES: u64 = 0x4a4e_0000_0000;
/// What makes a seed of the configurations' chance.
const FILES: u64 = 0xf11e_5000_0000;

/// What else there is in a schedule.
pub(crate) struct Beside {
    syncs: bool,
    light: Option<Dice>,
    files: Option<Dice>,
    programs: Option<Dice>,
    rarities: Option<Dice>,
}

impl Beside {
    pub(crate) fn of(seed: u64) -> Beside {
        let chance = |of: u64, percent: u64| {
            Dice::new(seed ^ of).percent(percent).then(|| Dice::new(seed ^ of ^ 1))
        };
        Beside {
            syncs: chance(SYNCS, 15).is_some(),
            light: chance(LIGHT, 30),
            files: chance(FILES, 25),
            programs: chance(PROGRAMS, 12),
            rarities: chance(RARITIES, 20),
        }
    }

    /// What is said before everything begins.
    pub(crate) fn begin(&mut self, kind: Kind, commands: &mut Vec<String>) {
        if self.syncs {
            commands.insert(1, "ack fsync".to_owned());
        }
        if let Some(light) = &mut self.light {
            let boot = commands.iter().position(|command| command == "boot both").unwrap_or(0);
            commands.insert(boot, "light".to_owned());
            commands.insert(boot + 2, format!("light {} start", which(light)));
        }
        if self.files.is_some() {
            begin_files(kind, commands);
        }
    }

    /// What happens beside each fault.
    pub(crate) fn go_on(&mut self, kind: Kind, commands: &mut Vec<String>) {
        if let Some(light) = &mut self.light {
            of_light(light, commands);
        }
        if let Some(rarities) = self.rarities.as_mut().filter(|_| kind != Kind::Harmless) {
            of_rarities(rarities, commands);
        }
        if let Some(programs) = &mut self.programs
            && programs.percent(25)
        {
            commands.push(of_programs(programs, kind));
        }
        if let Some(files) = &mut self.files
            && files.percent(40)
        {
            of_files(files, kind, commands);
        }
    }

    /// What belongs to the mending.
    pub(crate) fn end(&self, end: &mut Vec<String>) {
        if self.programs.is_some() {
            let mended = end.iter().position(|command| command == "mend").unwrap_or(0);
            end.insert(mended + 1, "upgrade both".to_owned());
        }
        let start = |end: &[String]| end.iter().position(|command| command == "start both");
        if self.files.is_some() {
            // And each has heard that of the other, or it would refuse to be started.
            let start = start(end).unwrap_or(0);
            end.splice(start..start, ["agree".to_owned(), "run 300ms".to_owned()]);
        }
        if self.light.is_some() {
            let start = start(end).unwrap_or(0);
            for word in ["start", "maintained", "resume"] {
                end.insert(start, format!("light both {word}"));
            }
            end.push("light settle".to_owned());
        }
    }
}

fn which(dice: &mut Dice) -> &'static str {
    dice.pick(&["node1", "node2", "both"]).copied().unwrap_or("both")
}

/// Something happens to the light module, or nothing.
fn of_light(dice: &mut Dice, commands: &mut Vec<String>) {
    let which = which(dice);
    let check = dice.pick(&light::CHECKS).map_or("", |(check, _)| *check);
    let command = match dice.roll(20) {
        0 | 1 => format!("light {which} start"),
        2 => format!("light {which} stop"),
        3..=5 => format!("light {which} crash {check}"),
        6 | 7 => format!("light {which} fail-check {check}"),
        8 | 9 => format!("light {which} mend-check {check}"),
        10 => format!("light {which} break"),
        11 => format!("light {which} mend"),
        12 => format!("light {which} {}", if dice.percent(50) { "pause" } else { "resume" }),
        13 => format!("light {which} {}", if dice.percent(50) { "maintain" } else { "switchover" }),
        _ => return,
    };
    commands.push(command);
}

/// The configuration lies in files. The witness may go for a while, and then nobody is to go on
/// without it.
fn begin_files(kind: Kind, commands: &mut Vec<String>) {
    let boot = commands.iter().position(|command| command == "boot both").unwrap_or(0);
    commands.insert(boot, "files".to_owned());
    if kind == Kind::Storm {
        commands.insert(1, "policy wait".to_owned());
    }
}

/// The operator changes the configuration on a node and applies it, or leaves that for later.
fn of_files(dice: &mut Dice, kind: Kind, commands: &mut Vec<String>) {
    let n = 1 + dice.roll(2);
    if kind == Kind::Harmless {
        let edit = hot(dice, n, true);
        commands.push(format!("heal; witness heal; run 3s; settle; {edit}; apply node{n}"));
        return;
    }
    let alone = if dice.percent(20) { " alone" } else { "" };
    let apply = format!("apply node{n}{alone}");
    if dice.percent(60) {
        let edit = hot(dice, n, false);
        let apply = if dice.percent(90) { format!("; {apply}") } else { String::new() };
        commands.push(format!("{edit}{apply}"));
        return;
    }
    let edit = cold(dice, n, kind);
    let stops = if dice.percent(80) { "stop-all both" } else { "stop-all node1" };
    let light = if edit.contains(" light ") { "; light both stop" } else { "" };
    commands.push(format!("{stops}{light}; run {}ms", dice.roll(5000)));
    commands.push(format!("{edit}; {apply}"));
    if dice.percent(30) {
        commands.push(format!("crash-after node{} {}", 1 + dice.roll(2), dice.roll(4)));
    }
    commands.push(format!("run {}ms", dice.roll(3000)));
    if dice.percent(80) {
        commands.push("start both".to_owned());
    }
}

/// What befalls few pairs, or nothing.
fn of_rarities(dice: &mut Dice, commands: &mut Vec<String>) {
    let n = 1 + dice.roll(2);
    let command = match dice.roll(40) {
        0..=3 => format!("stall node{n}"),
        4..=6 => format!("double {}", dice.roll(100)),
        7..=12 => format!("witness unheard node{n}"),
        13 => format!("power node{n}; replace-disk node{n}; boot node{n}"),
        14 => format!("power node{n}; replace-disk node{n}; fill node{n}; boot node{n}"),
        15 => format!("force-primary node{n}"),
        _ => return,
    };
    commands.push(command);
}

/// A node gets another program; nothing moves by it while all that runs goes on.
fn of_programs(dice: &mut Dice, kind: Kind) -> String {
    let n = 1 + dice.roll(2);
    if kind != Kind::Harmless {
        return format!("upgrade node{n}");
    }
    let (between, other) = (dice.roll(4000), 3 - n);
    let whole = "heal; witness heal; run 3s; settle";
    format!("{whole}; upgrade node{n}; run {between}ms; upgrade node{other}; run 1s; settle")
}

/// What may change while everything runs; `still` if nothing may move by it.
fn hot(dice: &mut Dice, n: u64, still: bool) -> String {
    let (check, action) = dice.pick(&CHECKS).copied().unwrap_or_default();
    let what = match dice.roll(if still { 7 } else { 9 }) {
        0 | 1 => format!("timeout {}ms", 700 + dice.roll(3300)),
        2 => format!("restarts {}", dice.roll(5)),
        3 => format!("check {check} {action}"),
        4 => format!("check {check} gone"),
        5 => "light on".to_owned(),
        6 => format!("comment {}", dice.roll(100)),
        7 => format!("prefer {}", dice.pick(&["node1", "node2", "nobody"]).unwrap_or(&"nobody")),
        _ => format!("script {}", dice.pick(&["on", "off"]).unwrap_or(&"on")),
    };
    format!("edit node{n} {what}")
}

/// What a module has to be stopped for.
fn cold(dice: &mut Dice, n: u64, kind: Kind) -> String {
    let witness = matches!(kind, Kind::Storm | Kind::Waiting);
    let what = match dice.roll(if witness { 6 } else { 3 }) {
        0 => "light off".to_owned(),
        1 => format!("vip 10.0.0.{}", 50 + dice.roll(3)),
        2 => format!("ack {}", dice.pick(&["write", "fsync"]).unwrap_or(&"write")),
        3 => "witness on".to_owned(),
        _ => "witness off".to_owned(),
    };
    format!("edit node{n} {what}")
}
