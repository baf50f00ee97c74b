//! Random joins, drains, stops, deaths, freezes, splits and new daemons of a farm of real nodes,
//! under visitors that never pause. After each change: all nodes go by one even table, new
//! visitors are served by those who should, and no kept connection broke but those of a node whose
//! application ended or stood still. After a split only the former.
//!
//! A seed says what happens: `EVENKEEL_SEEDS` of them from `EVENKEEL_FIRST` on, ten changes each;
//! `cargo xtask soak farm-nodes` runs many. How long a change took plays no part, and visitors
//! without an answer in time are counted, not judged: that is the benchmark's matter.

#![allow(clippy::print_stdout, reason = "the soak reads the figures")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::env;
use std::time::Instant;

use lab::web::Visitors;
use support::farm::{FARM, KEPT, MODULE, PATIENT, Trial, served, until};
use support::random::Random;

const CHANGES: usize = 10;
/// Seeds in one run; more of them are a soak.
const SEEDS: u64 = 2;
/// New visitors after each change, to see who serves.
const PROBES: usize = 40;
const SIGNAL_KILL: i32 = 9;
const MULTICAST: &str = "delivery = \"multicast\"\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Drain,
    Undrain,
    Stop,
    Start,
    Kill,
    Boot,
    /// It stands still until the others have taken over, and goes on.
    Freeze,
    /// No pulse between it and the others until both parts serve alone, and then again.
    Split,
    /// Its daemon dies, and the next one starts.
    KillDaemon,
    /// Its daemon ends as it does for an update, and the next one starts.
    ReplaceDaemon,
}

const ALL: [What; 10] = [
    What::Drain,
    What::Undrain,
    What::Stop,
    What::Start,
    What::Kill,
    What::Boot,
    What::Freeze,
    What::Split,
    What::KillDaemon,
    What::ReplaceDaemon,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Serves,
    Drains,
    Stopped,
    Dead,
}

/// What was seen in one run.
#[derive(Default)]
struct Seen {
    visitors: usize,
    /// Visitors without an answer in time, in changes that nobody should notice.
    unanswered: usize,
    broken: usize,
}

struct Run {
    seed: u64,
    trial: Trial,
    visitors: Visitors,
    stands: [Stand; 3],
    seen: Seen,
}

#[test]
fn whatever_changes_nobody_is_broken_off_but_by_the_node_that_served_them() {
    let (first, seeds) = (number("EVENKEEL_FIRST", 0), number("EVENKEEL_SEEDS", SEEDS));
    for seed in first..first + seeds {
        let mut random = Random::new(seed);
        let mut run = Run::new(seed);
        for _ in 0..CHANGES {
            let (what, place) = run.choose(&mut random);
            println!("seed {seed}: {what:?} {}", FARM[place]);
            run.change(what, place);
        }
        let Seen { visitors, unanswered, broken } = run.seen;
        println!(
            "SOAK {{\"kind\": \"nodes\", \"rounds\": 1, \"changes\": {CHANGES}, \
             \"visitors\": {visitors}, \"unanswered\": {unanswered}, \"broken\": {broken}}}"
        );
    }
}

impl Run {
    fn new(seed: u64) -> Run {
        // By turns both ways to deliver.
        let delivery = if seed.is_multiple_of(2) { "" } else { MULTICAST };
        let trial = Trial::start(&format!("{PATIENT}{delivery}"));
        trial.even(&FARM, &FARM);
        let visitors = trial.visitors();
        Run { seed, trial, visitors, stands: [Stand::Serves; 3], seen: Seen::default() }
    }

    fn choose(&self, random: &mut Random) -> (What, usize) {
        loop {
            let what = ALL[usize::try_from(random.below(ALL.len() as u64)).unwrap()];
            let place = usize::try_from(random.below(FARM.len() as u64)).unwrap();
            if self.can(what, self.stands[place]) {
                return (what, place);
            }
        }
    }

    fn can(&self, what: What, stand: Stand) -> bool {
        let another = self.having(&[Stand::Serves]).len() > 1;
        match what {
            What::Drain | What::Stop | What::Kill | What::Freeze | What::Split => {
                stand == Stand::Serves && another
            }
            What::Undrain => stand == Stand::Drains,
            What::Start => stand == Stand::Stopped,
            What::Boot => stand == Stand::Dead,
            What::KillDaemon | What::ReplaceDaemon => {
                matches!(stand, Stand::Serves | Stand::Drains)
            }
        }
    }

    fn having(&self, stands: &[Stand]) -> Vec<&'static str> {
        let nodes = FARM.into_iter().zip(self.stands);
        nodes.filter(|(_, stand)| stands.contains(stand)).map(|(node, _)| node).collect()
    }

    fn change(&mut self, what: What, place: usize) {
        let mark = Instant::now();
        self.perform(what, place);
        self.settle();
        let tally = self.visitors.since(mark);
        println!("  {} of {} had no answer in time", tally.lost, tally.new);
        self.seen.visitors += tally.new;
        self.seen.broken += tally.broken();
        let about = format!("seed {}, {what:?} {}", self.seed, FARM[place]);
        match what {
            // Two parts may answer the same client.
            What::Split => return,
            What::Stop | What::Kill | What::Freeze => {}
            _ => self.seen.unanswered += tally.lost,
        }
        let ended = matches!(what, What::Stop | What::Kill | What::Freeze);
        let may = |node: &String| ended && node == FARM[place];
        if !tally.broken.keys().all(may) {
            FARM.iter().for_each(|node| println!("{node}:\n{}", self.told(node)));
            panic!("{about}: others' connections broke: {tally:?}");
        }
    }

    fn told(&self, node: &str) -> String {
        let dead = self.having(&[Stand::Dead]).contains(&node);
        if dead { "(dead)".to_owned() } else { self.trial.events(node) }
    }

    fn perform(&mut self, what: What, place: usize) {
        let node = FARM[place];
        let trial = &mut self.trial;
        match what {
            What::Drain => trial.must(node, &["maintenance", "on", node]),
            What::Undrain => trial.must(node, &["maintenance", "off", node]),
            What::Stop => trial.must(node, &["stop", MODULE, "--node", node]),
            What::Start => trial.must(node, &["start", MODULE, "--node", node]),
            What::Kill => trial.kill(node),
            What::Boot => {
                trial.lab.start(node).unwrap();
                trial.start_daemon(node);
            }
            What::Freeze => self.freeze(node),
            What::Split => self.split(node),
            What::KillDaemon => {
                let daemon = trial.daemons.remove(node).unwrap();
                daemon.kill(SIGNAL_KILL).unwrap();
                daemon.wait().unwrap();
                trial.start_daemon(node);
            }
            What::ReplaceDaemon => trial.replace_daemon(node, &self.visitors),
        }
        self.stands[place] = match what {
            What::Drain => Stand::Drains,
            What::Undrain | What::Start | What::Boot => Stand::Serves,
            What::Stop => Stand::Stopped,
            What::Kill => Stand::Dead,
            What::Freeze | What::Split | What::KillDaemon | What::ReplaceDaemon => {
                self.stands[place]
            }
        };
    }

    fn freeze(&self, node: &'static str) {
        self.trial.lab.freeze(node).unwrap();
        self.trial.even(&without(self.having(&[Stand::Serves]), node), &self.others(node));
        self.trial.lab.thaw(node).unwrap();
    }

    fn split(&self, node: &'static str) {
        let others = self.others(node);
        for other in &others {
            self.trial.lab.cut_datagrams(node, other).unwrap();
        }
        self.trial.even(&[node], &[node]);
        self.trial.even(&without(self.having(&[Stand::Serves]), node), &others);
        self.trial.lab.heal().unwrap();
    }

    /// The others that answer.
    fn others(&self, node: &'static str) -> Vec<&'static str> {
        without(self.having(&[Stand::Serves, Stand::Drains]), node)
    }

    /// Waits until all go by one table, who keeps a connection is served, and new visitors are
    /// served by those who should.
    fn settle(&self) {
        let serving = self.having(&[Stand::Serves]);
        self.trial.even(&serving, &self.having(&[Stand::Serves, Stand::Drains]));
        let since = Instant::now();
        until("all visitors that stay are answered", || {
            self.visitors.kept_since(since).values().sum::<usize>() == KEPT
        });
        let since = Instant::now();
        let by = served(&self.visitors, since, PROBES);
        assert!(by.keys().all(|node| serving.contains(&node.as_str())), "{by:?} of {serving:?}");
    }
}

fn without(nodes: Vec<&'static str>, node: &str) -> Vec<&'static str> {
    nodes.into_iter().filter(|other| *other != node).collect()
}

fn number(variable: &str, otherwise: u64) -> u64 {
    env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}
