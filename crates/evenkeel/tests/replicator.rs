//! Replicators that die while they serve, again and again: callers wait, and see no error. How long
//! they wait is printed and not judged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use wire::control::Verb;

use self::support::applications::{Application, ledger, postgresql, succeed};
use self::support::random::{self, Random};
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE, UNIT, ask};

/// Deaths of one test, unless `EVENKEEL_ROUNDS` says otherwise.
const ROUNDS: u64 = 20;
/// Longer than a node is without both daemon and replicator, on however slow a machine.
const PATIENT: &str = "[failover]\ntimeout = \"10s\"\n";
/// The only event that a death may cause.
const RESUMED: &str = "replicator-resumed";

/// Pids on a node whose command line is this one.
fn pids(cluster: &Cluster, node: &str, pattern: &str) -> Vec<String> {
    let output = cluster.host(node).run(["pgrep", "-f", "-x", pattern]).unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

fn replicator(cluster: &Cluster, node: &str) -> Option<String> {
    let pattern = format!("[^ ]*evenkeel .*replicator {} .*", cluster.module());
    pids(cluster, node, &pattern).into_iter().next()
}

fn events(cluster: &Cluster, node: &str) -> Vec<Value> {
    let reply = ask(&cluster.host(node), Verb::Events { module: None, limit: 1000 }).unwrap();
    reply.data["events"].as_array().unwrap().clone()
}

/// Kills the replicator of the primary, and awaits that another one serves.
fn kill_replicator(cluster: &Cluster, primary: &str) {
    let mut killed = None;
    cluster.until("a replicator to kill", PATIENCE, || {
        killed = replicator(cluster, primary);
        killed.is_some()
    });
    let killed = killed.unwrap();
    succeed(&cluster.host(primary), &["kill", "-KILL", &killed]);
    cluster.until("another replicator", PATIENCE, || {
        replicator(cluster, primary).is_some_and(|found| found != killed)
    });
}

/// Uses a directory without pause, in many ways at once; any error ends the test.
struct Busy<'a> {
    place: PathBuf,
    stop: &'a AtomicBool,
    calls: &'a AtomicU64,
    longest: &'a AtomicU64,
}

impl Busy<'_> {
    /// One call, which must succeed.
    fn call<T>(&self, what: &str, call: impl FnOnce() -> std::io::Result<T>) -> T {
        let start = Instant::now();
        let result = call();
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap();
        self.longest.fetch_max(micros, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        result.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Overwrites parts of a file, and finds what it wrote.
    fn overwrite(&self, direct: bool, mut random: Random) {
        let path = self.place.join(if direct { "direct" } else { "cached" });
        let mut options = OpenOptions::new();
        options.write(true).create(true).read(!direct);
        let file = self.call("open", || options.open(&path));
        let mut model = vec![0; 1 << 20];
        while self.goes_on() {
            let at = random.below(1 << 20) as usize;
            let length = (random.below(70_000) as usize).min(model.len() - at);
            let byte = random.below(256) as u8;
            model[at..at + length].fill(byte);
            self.call("write", || file.write_all_at(&model[at..at + length], at as u64));
            if random.below(50) == 0 {
                self.call("sync", || file.sync_data());
            }
        }
        let found = self.call("read", || fs::read(&path));
        assert!(found == model[..found.len()], "the content of {} is another", path.display());
    }

    /// Makes, moves, links and removes names, each of which is or is not there afterwards.
    fn rename(&self, mut random: Random) {
        let place = self.place.join("names");
        self.call("mkdir", || fs::create_dir(&place));
        let at = |name: &str| place.join(name);
        while self.goes_on() {
            self.call("create", || {
                let mut file = OpenOptions::new().write(true).create_new(true).open(at("new"))?;
                file.write_all(b"content")
            });
            self.call("link", || fs::hard_link(at("new"), at("link")));
            self.call("rename", || fs::rename(at("new"), at("moved")));
            if random.below(2) == 0 {
                self.call("rename over", || fs::rename(at("moved"), at("kept")));
            } else {
                self.call("unlink", || fs::remove_file(at("moved")));
            }
            assert_eq!(self.call("read", || fs::read(at("link"))), b"content");
            self.call("unlink", || fs::remove_file(at("link")));
            self.call("mkdir", || fs::create_dir(at("directory")));
            self.call("symlink", || std::os::unix::fs::symlink("x", at("directory/symlink")));
            self.call("chmod", || {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                fs::set_permissions(at("directory"), mode)
            });
            self.call("unlink", || fs::remove_file(at("directory/symlink")));
            self.call("rmdir", || fs::remove_dir(at("directory")));
        }
    }

    /// Goes on with a file that has no name any more.
    fn removed(&self) {
        let path = self.place.join("removed");
        let file = self.call("create", || {
            OpenOptions::new().read(true).write(true).create_new(true).open(&path)
        });
        self.call("unlink", || fs::remove_file(&path));
        let mut count = 0_u64;
        while self.goes_on() {
            self.call("write", || file.write_all_at(&count.to_le_bytes(), count * 8));
            count += 1;
        }
        for at in 0..count {
            let mut room = [0; 8];
            self.call("read", || file.read_exact_at(&mut room, at * 8));
            assert_eq!(u64::from_le_bytes(room), at);
        }
    }

    /// Appends and makes durable, and finds every record in order.
    fn append(&self) {
        let path = self.place.join("appended");
        let mut file =
            self.call("open", || OpenOptions::new().append(true).create(true).open(&path));
        let mut count = 0_u64;
        while self.goes_on() {
            self.call("append", || file.write_all(&count.to_le_bytes()));
            count += 1;
            if count.is_multiple_of(64) {
                self.call("fsync", || file.sync_all());
                self.call("fsync of a directory", || File::open(&self.place)?.sync_all());
            }
        }
        let found = self.call("read", || fs::read(&path));
        let expected: Vec<u8> = (0..count).flat_map(u64::to_le_bytes).collect();
        assert!(found == expected, "{} bytes instead of {}", found.len(), expected.len());
    }
}

/// Lets replicators die while a directory is used in every way and the application works.
fn deaths(application: Application, rounds: u64, expected: &[&str], die: impl Fn(&Cluster, &str)) {
    let cluster = Cluster::protected(application);
    cluster.set_up();
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let mount = Path::new("/srv").join(cluster.application.directory);
    let place = cluster.host(primary).path(mount).unwrap().join("busy");
    fs::create_dir(&place).unwrap();
    let before = NODES.map(|node| events(&cluster, node).len());
    let (stop, calls, longest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let busy = || Busy { place: place.clone(), stop: &stop, calls: &calls, longest: &longest };
    thread::scope(|scope| {
        let _ends = Ends(&stop);
        scope.spawn(|| busy().overwrite(true, Random::new(1)));
        scope.spawn(|| busy().overwrite(false, Random::new(2)));
        scope.spawn(|| busy().rename(Random::new(3)));
        scope.spawn(|| busy().removed());
        scope.spawn(|| busy().append());
        let mut random = Random::from_environment();
        for _ in 0..rounds {
            random.moment(Duration::from_millis(200));
            die(&cluster, primary);
            let seen = calls.load(Ordering::Relaxed);
            cluster.until("calls go on", PATIENCE, || calls.load(Ordering::Relaxed) > seen + 20);
            cluster.progress(&workload);
        }
    });
    let longest = longest.load(Ordering::Relaxed) as f64 / 1000.0;
    println!(
        "{rounds} deaths, {} calls without an error, the longest {longest:.0} ms",
        calls.load(Ordering::Relaxed)
    );
    for (node, before) in NODES.into_iter().zip(before) {
        for event in events(&cluster, node).into_iter().skip(before) {
            let code = event["code"].as_str().unwrap_or_default().to_owned();
            assert!(expected.contains(&&*code), "{node}: {event}");
        }
    }
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.stop_and_compare();
}

/// Whoever is busy stops when this goes, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_replicator_that_dies_under_load_is_a_pause() {
    deaths(ledger(""), random::rounds(ROUNDS), &[RESUMED], kill_replicator);
}

#[test]
fn so_it_is_where_only_syncs_wait_for_the_peer_and_links_are_encrypted() {
    let mode = "[replication]\nack = \"fsync\"\n";
    deaths(ledger(mode).with_keys(), random::rounds(ROUNDS) / 2, &[RESUMED], kill_replicator);
}

#[test]
fn so_it_is_for_a_database() {
    deaths(postgresql(""), random::rounds(ROUNDS) / 2, &[RESUMED], kill_replicator);
}

#[test]
fn a_replicator_and_its_daemon_may_die_together() {
    let expected = [RESUMED, "carries-on", "protected"];
    deaths(ledger(PATIENT), random::rounds(ROUNDS) / 2, &expected, |cluster, primary| {
        cluster.daemon(primary).kill(9).unwrap();
        kill_replicator(cluster, primary);
        cluster.start_daemon(primary);
    });
}

#[test]
fn so_they_may_below_systemd() {
    let expected = [RESUMED, "carries-on", "protected"];
    deaths(
        ledger(PATIENT).below_systemd(),
        random::rounds(ROUNDS) / 2,
        &expected,
        |cluster, primary| {
            let host = cluster.host(primary);
            succeed(&host, &["systemctl", "kill", "--signal=KILL", "--kill-who=main", UNIT]);
            kill_replicator(cluster, primary);
            cluster.until("the daemon is there again", PATIENCE, || {
                cluster.module_status(primary).is_some()
            });
        },
    );
}
