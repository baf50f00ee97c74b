//! Random schedules: what befalls a pair, by seed, as commands of the story language.
//!
//! All of chance is used up here and by the network's own dice, both from the seed, so that a
//! schedule can be told, shortened and committed as a story.

use crate::beside::Beside;
use crate::dice::Dice;
use crate::promises::{Promise, Violation};
use crate::story;
use crate::world::World;

/// Milliseconds of the pauses between two faults, at most: dense, usual, long enough to settle.
const PAUSES: [u64; 4] = [20, 300, 2000, 6000];

/// Checks that a module may have, and what is done when they are down.
pub(crate) const CHECKS: [(&str, &str); 5] = [
    ("program", "restart"),
    ("web", "failover"),
    ("database", "wait"),
    ("disk", "stop"),
    ("lamp", "none"),
];

/// What befalls a pair.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// It follows from this.
    pub seed: u64,
    /// Commands, in order; some are several, joined by `; `, for they belong together.
    pub commands: Vec<String>,
    /// So many at the end mend everything.
    pub mending: usize,
}

/// What came of a schedule.
#[derive(Debug)]
pub struct Run {
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// A command could not be carried out, such as one to what a shortened schedule has not.
    pub wrong: bool,
    /// How much happened.
    pub events: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// What happened, one line each.
    pub log: Vec<String>,
}

/// What kind of trouble a seed brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything, with a witness.
    Storm,
    /// Only what a pair must bear without moving.
    Harmless,
    /// Everything, without a witness, and waiting is preferred.
    Waiting,
    /// Machines die, without a witness; the network does not.
    GoingOn,
    /// Machines die, or are cut off from everything, without a witness; they ping something.
    Isolated,
    /// Everything, and instead of a witness each can switch the other one off.
    Fencing,
    /// Machines die and the network is cut, without a witness, and both go on: one copy is kept by
    /// itself.
    Apart,
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Schedule {
        let mut dice = Dice::new(seed);
        let kind = match dice.roll(20) {
            0..=13 => Kind::Storm,
            14..=16 => Kind::Harmless,
            17 => Kind::Waiting,
            18 if seed.is_multiple_of(2) => Kind::Isolated,
            18 => Kind::Fencing,
            _ if seed.is_multiple_of(2) => Kind::Apart,
            _ => Kind::GoingOn,
        };
        let mut commands = beginning(seed, kind, &mut dice);
        let mut beside = Beside::of(seed);
        beside.begin(kind, &mut commands);
        for _ in 0..4 + dice.roll(12) {
            befall(kind, &mut dice, &mut commands);
            beside.go_on(kind, &mut commands);
            let longest = dice.pick(&PAUSES).copied().unwrap_or(0);
            commands.push(format!("run {}ms", dice.roll(longest)));
        }
        let mut end = end(&mut dice);
        beside.end(&mut end);
        let mending = end.len();
        commands.extend(end);
        Schedule { seed, commands, mending }
    }

    /// Lets it happen.
    #[must_use]
    pub fn run(&self) -> Run {
        let mut world = World::new(self.seed, true);
        let mut failed = false;
        for command in &self.commands {
            world.note(&format!("> {command}"));
            for part in command.split("; ") {
                if let Err(wrong) = story::perform(&mut world, part) {
                    failed = true;
                    world.violate(Promise::ThePairSettles, wrong);
                }
            }
            if world.violation.is_some() {
                break;
            }
        }
        Run {
            violation: world.violation,
            wrong: failed,
            events: world.happened,
            acknowledged: world.checks.acknowledged,
            log: world.log,
        }
    }
}

fn beginning(seed: u64, kind: Kind, dice: &mut Dice) -> Vec<String> {
    let mut commands = vec![format!("seed {seed}")];
    match kind {
        Kind::Storm | Kind::Harmless => {}
        Kind::Waiting => commands.extend(["no witness".to_owned(), "policy wait".to_owned()]),
        Kind::GoingOn => commands.push("no witness".to_owned()),
        Kind::Apart => commands.extend(["no witness", "keep longest-serving"].map(str::to_owned)),
        Kind::Fencing => {
            let takes = format!("fence {}ms", 10 + dice.roll(2000));
            commands.extend(["no witness".to_owned(), takes]);
        }
        Kind::Isolated => commands.extend(["no witness", "landmark"].map(str::to_owned)),
    }
    if dice.percent(30) {
        // Some take longer than an offer lasts that nobody answers.
        let longest = if dice.percent(25) { 60 } else { 7 };
        commands.push(format!("script {}ms", dice.roll(longest) * 300));
    }
    for n in [1, 2] {
        if dice.percent(20) {
            commands.push(format!("clock node{n} {}", drift(dice)));
        }
    }
    if kind != Kind::Harmless && dice.percent(15) {
        commands.push(format!("prefer node{}", 1 + dice.roll(2)));
    }
    if kind != Kind::Harmless && dice.percent(7) {
        commands.push("manual".to_owned());
    }
    for (check, action) in CHECKS {
        if dice.percent(50) {
            commands.push(format!("check {check} {action}"));
        }
    }
    commands.push("boot both".to_owned());
    commands.push("start both".to_owned());
    match kind {
        Kind::Harmless => commands.extend(["settle".to_owned(), "steady".to_owned()]),
        Kind::Storm
        | Kind::Waiting
        | Kind::GoingOn
        | Kind::Isolated
        | Kind::Fencing
        | Kind::Apart => {
            commands.push(format!("run {}ms", dice.roll(4000)));
        }
    }
    commands
}

/// Everything is mended, in either order, and the pair must settle, with equal copies.
fn end(dice: &mut Dice) -> Vec<String> {
    let first = 1 + dice.roll(2);
    ["unsteady".to_owned(), "mend".to_owned()]
        .into_iter()
        .chain([format!("boot node{first}"), format!("boot node{}", 3 - first)])
        .chain(
            ["resume both", "maintained both", "run 12s", "start both", "settle", "compare"]
                .map(str::to_owned),
        )
        .collect()
}

/// Up to one percent: ten times what bad clocks are off by.
fn drift(dice: &mut Dice) -> String {
    let millionths = dice.roll(20_001);
    format!("{}", i64::try_from(millionths).unwrap_or(0) - 10_000)
}

/// What a kind of trouble brings next.
fn befall(kind: Kind, dice: &mut Dice, commands: &mut Vec<String>) {
    match kind {
        Kind::Storm | Kind::Waiting | Kind::Fencing => fault(dice, commands),
        Kind::Harmless => harmless(dice, commands),
        Kind::GoingOn => deadly(dice, commands),
        Kind::Apart => apart(dice, commands),
        Kind::Isolated => cut_off(dice, commands),
    }
}

/// Anything.
fn fault(dice: &mut Dice, commands: &mut Vec<String>) {
    match dice.roll(11) {
        0..=2 => deadly(dice, commands),
        3 | 4 => operator(dice, commands),
        5 => of_disk(dice, commands),
        6 => commands.push(of_witness(dice)),
        7 => of_time(dice, commands),
        8 => commands.push(of_application(dice)),
        _ => commands.push(of_network(dice)),
    }
}

/// Something dies, or comes back.
fn deadly(dice: &mut Dice, commands: &mut Vec<String>) {
    let n = 1 + dice.roll(2);
    match dice.roll(9) {
        0 => commands.push(format!("kill node{n}")),
        1 => commands.push(format!("power node{n}")),
        2..=4 => commands.push(format!("boot node{n}")),
        5 => commands.push(format!("die node{n}")),
        6 => {
            commands.push(format!("stop-daemon node{n}"));
            commands.push(format!("run {}ms", dice.roll(400)));
            commands.push(format!("boot node{n}"));
        }
        7 => commands.push(format!("crash-after node{n} {}", dice.roll(12))),
        _ => {
            let both = ["power node1", "power node2"].map(str::to_owned);
            commands.extend(both);
            commands.push(format!("boot node{n}"));
            commands.push(format!("run {}ms", dice.roll(3000)));
            commands.push(format!("boot node{}", 3 - n));
        }
    }
}

/// Something dies, or a machine is cut off from everything, or comes back. They hear each other
/// before another one is cut off: else both reach the landmark and never each other, which is a cut
/// link.
fn cut_off(dice: &mut Dice, commands: &mut Vec<String>) {
    let n = 1 + dice.roll(2);
    match dice.roll(8) {
        0 | 1 => commands.push(format!("isolate node{n}")),
        2 | 3 => commands.push("heal; run 300ms".to_owned()),
        4 => commands.push(format!("heal; run 300ms; isolate node{n}")),
        5 => commands.push("landmark down".to_owned()),
        _ => deadly(dice, commands),
    }
}

/// Both go on alone, more than once, while one or the other thing happens to them.
fn apart(dice: &mut Dice, commands: &mut Vec<String>) {
    match dice.roll(10) {
        0..=2 => commands.push(format!("cut; run {}ms", 2000 + dice.roll(8000))),
        3 | 4 => commands.push("heal".to_owned()),
        5 => commands.push(of_network(dice)),
        6 => operator(dice, commands),
        _ => deadly(dice, commands),
    }
}

fn of_network(dice: &mut Dice) -> String {
    let n = 1 + dice.roll(2);
    match dice.roll(14) {
        0..=2 => "cut".to_owned(),
        3..=6 => "heal".to_owned(),
        7 => "cut-heartbeats".to_owned(),
        8 => "cut-link".to_owned(),
        9 => format!("mute node{n}"),
        10 => format!("one-way node{n}"),
        11 => format!("lose {}", dice.roll(90)),
        12 => format!("jitter {}ms", dice.roll(600)),
        _ => format!("lag {}ms", dice.roll(300)),
    }
}

fn of_witness(dice: &mut Dice) -> String {
    let n = 1 + dice.roll(2);
    match dice.roll(11) {
        0 | 1 => "witness down".to_owned(),
        2 | 3 => "witness heal".to_owned(),
        4 => format!("witness cut node{n}"),
        5 => "witness forgets".to_owned(),
        6 => "witness save".to_owned(),
        7 => "witness restore".to_owned(),
        8 => "witness restart".to_owned(),
        _ => format!("witness slow node{n} {}ms", dice.roll(4000)),
    }
}

/// The application fails, is mended, or does not start on a node.
fn of_application(dice: &mut Dice) -> String {
    let n = 1 + dice.roll(2);
    let check = CHECKS.map(|(check, _)| check);
    let check = dice.pick(&check).copied().unwrap_or_default();
    match dice.roll(8) {
        0 | 1 => format!("crash node{n} {check}"),
        2..=4 => format!("fail-check node{n} {check}"),
        5 | 6 => format!("mend-check node{n} {check}"),
        _ => format!("break-service node{n}"),
    }
}

fn operator(dice: &mut Dice, commands: &mut Vec<String>) {
    let n = 1 + dice.roll(2);
    match dice.roll(12) {
        10 => commands.push(format!("discard node{n}")),
        7 => commands.push(format!("pause node{n} {}ms", dice.roll(20_000))),
        8 => commands.push(format!("maintain node{n} {}ms", dice.roll(20_000))),
        9 => commands.extend(["resume", "maintained"].map(|end| format!("{end} node{n}"))),
        0 | 1 => commands.push(format!("switchover node{n}")),
        2 => commands.push(format!("stop node{n}")),
        3 | 4 => commands.push(format!("start node{n}")),
        5 => commands.push("stop-all both".to_owned()),
        6 => commands.push("start both".to_owned()),
        _ => {
            commands.push(format!("configure node{n} {}", dice.roll(2)));
            commands.push(format!("stop-daemon node{n}"));
            commands.push(format!("boot node{n}"));
        }
    }
}

fn of_disk(dice: &mut Dice, commands: &mut Vec<String>) {
    let n = 1 + dice.roll(2);
    match dice.roll(10) {
        0 => commands.push(format!("full node{n}")),
        1 => commands.push(format!("empty node{n}")),
        2 => commands.push(format!("fail-copy node{n}")),
        3 => {
            commands.push(format!("power node{n}"));
            commands.push(format!("unmount node{n}"));
            commands.push(format!("boot node{n}"));
        }
        4 => commands.push(format!("save node{n}")),
        5 => {
            commands.push(format!("power node{n}"));
            commands.push(format!("restore node{n}"));
            commands.push(format!("boot node{n}"));
        }
        6 => commands.push(format!("replace-machine node{n}")),
        7 => commands.push(format!("break-script node{n}")),
        _ => commands.push(format!("slow node{n} {}ms", dice.roll(1500))),
    }
}

fn of_time(dice: &mut Dice, commands: &mut Vec<String>) {
    let n = 1 + dice.roll(2);
    match dice.roll(4) {
        0 => commands.push(format!("clock node{n} {}", drift(dice))),
        1 => commands.push(format!("clock node{n} jump {}ms", dice.roll(5000))),
        _ => commands.push(format!("freeze node{n} {}ms", dice.roll(5000))),
    }
}

/// What a healthy pair must bear without moving: one link is left. A link that is cut is replaced
/// by another one only when the pair has found together again.
fn harmless(dice: &mut Dice, commands: &mut Vec<String>) {
    let n = 1 + dice.roll(2);
    match dice.roll(9) {
        0 => commands.push("heal; witness heal; run 3s; settle; cut-heartbeats".to_owned()),
        1 => commands.push("heal; witness heal; run 3s; settle; cut-link".to_owned()),
        2 => commands.push(format!("heal; witness heal; run 3s; settle; mute node{n}")),
        3 => commands.push(format!("double {}", dice.roll(100))),
        4 => commands.push(format!("jitter {}ms", dice.roll(100))),
        5 => commands.push(format!("lag {}ms", dice.roll(50))),
        _ => commands.push(of_witness(dice)),
    }
}
