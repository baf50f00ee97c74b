//! One round of the crash examiner: writers, a fault, both nodes up again, the judgement.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests report to a terminal")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod faults;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::examiner::{COMMAND, Record, Rule, furnish, judge, load, parse, story};
use lab::{Process, SpawnSpec};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::support::random::Random;
use crate::support::{Cluster, INSIDE, PATIENCE, SYNC_PATIENCE, other};

use self::faults::Fault;

const SIGNAL_KILL: i32 = 9;
/// Processes that write at the same time.
const WRITERS: u32 = 3;
/// Operations that each writer has behind it when the fault may come.
const WARM_UP: usize = 30;
/// Findings that are shown.
const FINDINGS_MAX: usize = 12;
/// Errors that an application may see once its node is no longer the primary.
const OF_LOST_NODES: [Errno; 5] =
    [Errno::IO, Errno::NOTCONN, Errno::CONNABORTED, Errno::ROFS, Errno::NODEV];

/// When the application hears that a call succeeded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Once both nodes have it.
    Write,
    /// At once; syncs, once both nodes have everything before them.
    Fsync,
}

impl Mode {
    /// What the module's file says of it.
    pub fn configuration(self) -> &'static str {
        match self {
            Mode::Write => "",
            Mode::Fsync => "[replication]\nack = \"fsync\"\n",
        }
    }

    /// Where its seeds begin when nobody says so: modes share them out.
    pub fn first_seed(self, each: u64) -> u64 {
        match self {
            Mode::Write => 0,
            Mode::Fsync => each,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Mode::Write => "write",
            Mode::Fsync => "fsync",
        }
    }

    /// What the peer has of all that returned on the primary.
    fn rule_of_peer(self) -> Rule {
        match self {
            Mode::Write => Rule::Everything,
            Mode::Fsync => Rule::Prefix,
        }
    }
}

/// Writers and what becomes of what they wrote.
pub struct Round<'a> {
    cluster: &'a Cluster,
    seed: u64,
    mode: Mode,
    fault: Fault,
    /// The node whose mount the writers use.
    primary: &'static str,
    /// Where they write, below the replicated directory.
    place: String,
    writers: Vec<Process>,
    random: RefCell<Random>,
    /// When the fault began, in nanoseconds of the monotonic clock; 0 before it.
    faulted: Cell<u64>,
    /// Nodes that have lost what was not synced since the writers began.
    powered: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Round<'a> {
    /// Starts writers on the primary, and removes meanwhile what the round before has left.
    pub fn start(cluster: &'a Cluster, seed: u64, mode: Mode) -> Round<'a> {
        let primary = cluster.primary();
        let mut random = Random::new(seed);
        let place = format!("examined-{seed}");
        let mount = cluster.host(primary).path("/srv").unwrap().join(cluster.application.directory);
        let old: Vec<PathBuf> = fs::read_dir(&mount)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("examined-"))
            .collect();
        furnish(&mount.join(&place), WRITERS).unwrap();
        let directory = format!("/srv/{}/{place}", cluster.application.directory);
        let spawn = |writer: u32| {
            let seed = random.below(u64::MAX).to_string();
            let argv = [INSIDE, COMMAND, &directory, &writer.to_string(), &seed];
            let spec = SpawnSpec::new(argv).log(&log_name(&place, writer));
            cluster.host(primary).spawn(spec).unwrap()
        };
        let writers = (0..WRITERS).map(spawn).collect();
        old.iter().for_each(|path| fs::remove_dir_all(path).unwrap());
        Round {
            cluster,
            seed,
            mode,
            fault: Fault::of(seed),
            primary,
            place,
            writers,
            random: RefCell::new(random),
            faulted: Cell::new(0),
            powered: RefCell::default(),
        }
    }

    /// The whole round.
    pub fn run(self) {
        let start = Instant::now();
        println!("seed {}: {} ({})", self.seed, self.fault.word(), self.mode.word());
        self.let_work();
        self.moment(1200);
        self.break_and_mend();
        self.settle();
        self.stop_writers();
        self.check("after everything", self.serving());
        self.compare();
        let returned: usize = (0..WRITERS)
            .map(|writer| self.records(writer).iter().filter(|record| record.succeeded()).count())
            .sum();
        println!(
            "SOAK {{\"kind\": \"{}\", \"rounds\": 1, \"failed\": 0, \"operations\": {returned}, \
             \"milliseconds\": {}}}",
            kind(self.seed, self.mode),
            start.elapsed().as_millis()
        );
    }

    /// Both copies are the same.
    fn compare(&self) {
        let unequal = self.unequal();
        for writer in 0..WRITERS {
            // The same paths as in the log, so that it can tell about them.
            let (own, shared) = (format!("w{writer}/"), format!("shared/w{writer}-"));
            let below = format!("./{}/", self.place);
            let named = unequal.iter().filter_map(|line| {
                let (path, _) = line.strip_prefix(&below)?.rsplit_once(": ")?;
                let shared = path.strip_prefix(&shared).map(|path| format!("shared/{path}"));
                Some(format!("{:?}", shared.or(path.strip_prefix(&own).map(str::to_owned))?))
            });
            let named: Vec<String> = named.collect();
            if !named.is_empty() {
                eprintln!("writer {writer} on paths that differ:");
                let story = story(&self.records(writer), &named);
                story.iter().for_each(|line| eprintln!("  {line}"));
            }
        }
        self.demand(&unequal, "the copies differ", &[]);
    }

    /// Waits until every writer has something behind it.
    pub fn let_work(&self) {
        for writer in 0..WRITERS {
            self.cluster
                .until("the writers get on", PATIENCE, || self.records(writer).len() > WARM_UP);
        }
    }

    /// Ends the writers that are left. What they were at is under way for ever.
    pub fn stop_writers(&self) {
        if self.cluster.host(self.primary).is_up() {
            for process in self.writers.iter().filter(|process| process.is_alive()) {
                // It may have ended just now.
                let _ = process.kill(SIGNAL_KILL);
            }
        }
        self.cluster.until("the end of the writers", PATIENCE, || {
            self.writers.iter().all(|process| !process.is_alive())
        });
    }

    /// What is wrong on a node, by the model.
    pub fn findings(&self, node: &str) -> Vec<String> {
        (0..WRITERS).flat_map(|writer| self.findings_of(node, writer)).collect()
    }

    /// What differs between the copies, once the peer has everything.
    pub fn unequal(&self) -> Vec<String> {
        let [one, two] = [self.serving(), other(self.serving())];
        let mount = format!("/srv/{}", self.cluster.application.directory);
        let mount = self.cluster.host(one).path(mount).unwrap();
        fs::File::open(mount).unwrap().sync_all().unwrap();
        let comparison =
            lab::compare::trees(&self.cluster.replica(one), &self.cluster.replica(two)).unwrap();
        let header = format!("{one} before {two}");
        let differences = comparison.differences.iter().map(ToString::to_string);
        let header = (!comparison.is_identical()).then_some(header);
        header.into_iter().chain(differences).collect()
    }

    /// Changes a byte of a file in a node's copy, past everything; returns what was changed.
    pub fn tamper(&self, node: &str) -> String {
        let mut places = vec![self.cluster.replica(node).join(&self.place)];
        let path = loop {
            let path = places.pop().expect("the writers leave a file with content");
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                places.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if meta.is_file() && meta.len() > 0 {
                break path;
            }
        };
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], 0).unwrap();
        file.set_modified(modified).unwrap();
        format!("the first byte of {}", path.display())
    }

    fn findings_of(&self, node: &str, writer: u32) -> Vec<String> {
        let records = self.records(writer);
        let found = load(&self.cluster.replica(node).join(&self.place), writer).unwrap();
        // A former primary that serves has never been anything else since.
        let rule = match node {
            node if self.powered.borrow().contains(node) => Rule::Synced,
            node if node == self.primary => Rule::Everything,
            _ => self.mode.rule_of_peer(),
        };
        judge(&records, &found, rule).err().unwrap_or_default()
    }

    fn records(&self, writer: u32) -> Vec<Record> {
        let name = log_name(&self.place, writer);
        let text = self.cluster.host(self.primary).log(&name).unwrap();
        parse(&text).unwrap_or_else(|line| panic!("{}: writer {writer} says {line}", self.repeat()))
    }

    /// Every writer's operations went well, and a node has what they left.
    fn check(&self, when: &str, node: &str) {
        for writer in 0..WRITERS {
            let records = self.records(writer);
            let errors: Vec<String> =
                records.iter().filter_map(|record| self.wrong(record)).collect();
            self.demand(&errors, &format!("writer {writer} saw errors"), &records);
            let findings = self.findings_of(node, writer);
            let what = format!("{when}, writer {writer}'s files on {node}");
            self.demand(&findings, &what, &records);
        }
    }

    /// An error that no application may see.
    fn wrong(&self, record: &Record) -> Option<String> {
        let end = record.end.filter(|end| end.error != 0)?;
        let expected = self.fault.ends_writers()
            && self.faulted.get() != 0
            && end.at > self.faulted.get()
            && OF_LOST_NODES.iter().any(|errno| errno.raw_os_error() == end.error);
        (!expected).then(|| format!("operation {} ended with error {}", record.number, end.error))
    }

    fn demand(&self, findings: &[String], what: &str, records: &[Record]) {
        if findings.is_empty() {
            return;
        }
        eprintln!("{what}, after {} ({}):", self.fault.word(), self.mode.word());
        let shown: Vec<String> = findings.iter().take(FINDINGS_MAX).cloned().collect();
        shown.iter().for_each(|line| eprintln!("  {line}"));
        if findings.len() > FINDINGS_MAX {
            eprintln!("  and {} more", findings.len() - FINDINGS_MAX);
        }
        eprintln!("the log says of these paths:");
        story(records, &shown).iter().for_each(|line| eprintln!("  {line}"));
        panic!("{what}: {}; to repeat it: {}", findings[0], self.repeat());
    }

    fn repeat(&self) -> String {
        let seed = self.seed;
        format!(
            "EVENKEEL_SEED={seed} cargo test -p evenkeel --test examiner -- --nocapture survives"
        )
    }

    /// The node that serves, once there is one.
    fn serving(&self) -> &'static str {
        self.cluster.until("a node serves", SYNC_PATIENCE, || {
            crate::support::NODES.into_iter().filter(|node| self.cluster.serves(node)).count() == 1
        });
        self.cluster.primary()
    }

    /// Both nodes are up; waits until they are a pair again.
    fn settle(&self) {
        let serving = self.serving();
        self.cluster.wait_for(serving, "protected", SYNC_PATIENCE);
    }

    fn moment(&self, milliseconds_max: u64) {
        self.random.borrow_mut().moment(Duration::from_millis(milliseconds_max));
    }

    fn mark(&self) {
        if self.faulted.get() == 0 {
            let now = clock_gettime(ClockId::Monotonic);
            self.faulted.set(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64);
        }
    }
}

/// What a seed's round is called where figures are added up: fault and mode.
pub fn kind(seed: u64, mode: Mode) -> String {
    format!("{} {}", Fault::of(seed).word(), mode.word())
}

fn log_name(place: &str, writer: u32) -> String {
    format!("{place}-w{writer}.log")
}
