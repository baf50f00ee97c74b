//! Nodes whose clock on the wall is off.
//!
//! No daemon can be told another time. `libfaketime`, loaded into the processes of a node, shows
//! them one, and reads from a file how far it is off; the clock of decisions stays as it is.

use std::path::Path;
use std::process::Output;

use lab::SpawnSpec;

use super::applications::succeed;
use super::{Cluster, Hosts, INSIDE, ROOT};

/// How far a node's clock is off: a file that its processes read each time.
const OFFSET: &str = "/tmp/offset";
/// What has a process go by the clock of its node.
const VARIABLES: [(&str, &str); 4] = [
    ("FAKETIME_TIMESTAMP_FILE", OFFSET),
    ("FAKETIME_NO_CACHE", "1"),
    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ("NO_FAKE_STAT", "1"),
];

/// Where Debian has the library.
fn library() -> String {
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH)
}

/// Sets how far a node's clock is off, such as `-5h`, also for processes that run.
pub fn set(hosts: &Hosts, node: &str, offset: &str) {
    let library = library();
    assert!(Path::new(&library).exists(), "{library} is missing: `cargo xtask setup`");
    // Replaced at once: half of it would be another time.
    let script = format!("echo '{offset}' >{OFFSET}.new && mv {OFFSET}.new {OFFSET}");
    succeed(&hosts.host(node), &["sh", "-ec", &script]);
}

/// Runs the command line on a node by its clock.
pub fn command(hosts: &Hosts, node: &str, words: &[&str]) -> Output {
    let set = VARIABLES.map(|(name, value)| format!("{name}={value}"));
    let library = format!("LD_PRELOAD={}", library());
    let set: Vec<&str> = set.iter().chain([&library]).map(String::as_str).collect();
    let command = [&["env"], &set[..], &["timeout", "60", INSIDE, "--root", ROOT], words].concat();
    hosts.host(node).run(command).unwrap()
}

/// Starts a daemon that goes by its node's clock, as all that it starts does.
pub fn start_daemon(cluster: &Cluster, node: &str) {
    let mut spec = SpawnSpec::new([INSIDE, "--root", ROOT, "daemon"]).log("daemon.log");
    spec = spec.env("LD_PRELOAD", &library());
    for (name, value) in VARIABLES {
        spec = spec.env(name, value);
    }
    cluster.start_daemon_as(node, spec);
}
