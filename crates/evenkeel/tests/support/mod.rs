//! A cluster in a lab for integration tests: two nodes, a witness and a client, driven as an
//! operator would drive it. One cluster exists at a time, whatever runs the tests; a test that
//! panics shows what both nodes say of themselves. No test is decided here.

#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests report to a terminal")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests stop at a fault")]

pub mod applications;
pub mod clock;
pub mod farm;
pub mod logs;
pub mod observer;
pub mod random;
mod report;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Disk, Host, HostSpec, Lab, LabOptions, Process, SpawnSpec};
use model::NodeName;
use node::Authority;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use wire::control::{Exit, Reply, Request, SCHEMA, Verb};

use self::applications::Application;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_evenkeel");
/// The same inside every host.
pub const INSIDE: &str = "/run/lab/evenkeel";
/// Where a node's own files are.
pub const ROOT: &str = "/mnt/state";
/// The nodes, the one with the first data first.
pub const NODES: [&str; 2] = ["node1", "node2"];
/// The host of the witness.
pub const WITNESS: &str = "witness";
/// Where the witness keeps what it knows.
pub const WITNESS_PLACE: &str = "/mnt/state/witness";
/// The host of the clients.
pub const CLIENT: &str = "client";
/// The unit of the daemon on nodes that boot a real systemd.
pub const UNIT: &str = "evenkeel";
/// The first network, and mostly the only one.
pub const NETWORK: &str = "lan0";
/// Starts after which both copies must have been found in sync.
const STARTS: usize = 3;
/// How long anything may take that does not depend on the amount of data. Far above what it does
/// take: it ends tests that hang, and judges nothing.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// The same for a sync.
pub const SYNC_PATIENCE: Duration = Duration::from_secs(120);
/// How long a command may take, above everything that it may wait for.
const COMMAND_PATIENCE: Duration = Duration::from_secs(130);
const WITNESS_DISK_BYTES: u64 = 64 << 20;
/// How often something is looked at that nothing announces.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long a daemon may take for an answer about its own state.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Two nodes of which nothing runs yet, and the lock that makes it the only such lab.
pub struct Hosts {
    pub lab: Lab,
    // After the lab, for fields are dropped in order.
    _only: File,
}

/// A running cluster.
pub struct Cluster {
    pub hosts: Hosts,
    pub application: Application,
    daemons: Mutex<BTreeMap<String, Process>>,
}

impl Hosts {
    /// Boots node1, node2, the witness's host and the client's.
    pub fn boot() -> Hosts {
        Hosts::boot_with(&[], false, &[NETWORK])
    }

    /// The same, with more disks for each node, perhaps with a real systemd, on these networks.
    pub fn boot_with(disks: &[Disk], systemd: bool, networks: &[&str]) -> Hosts {
        let node = |name| {
            let mut node = HostSpec::node(name);
            if systemd {
                node = node.systemd();
            }
            node.disks.extend_from_slice(disks);
            node
        };
        let only = only_lab();
        let witness = Disk { bytes: WITNESS_DISK_BYTES, ..Disk::new("state", ROOT) };
        let lab = Lab::create(LabOptions {
            name: lab_name(),
            binary: BINARY.into(),
            networks: networks.iter().map(|network| (*network).to_owned()).collect(),
            hosts: vec![
                node(NODES[0]),
                node(NODES[1]),
                HostSpec { disks: vec![witness], ..HostSpec::client(WITNESS) },
                HostSpec::client(CLIENT),
            ],
        });
        let lab = lab.unwrap_or_else(|error| panic!("these tests need a lab: {error}"));
        Hosts { lab, _only: only }
    }

    pub fn host(&self, name: &str) -> Host {
        self.lab.host(name).unwrap()
    }

    /// Takes the witness out of the nodes' clusters, and adds something in its place.
    pub fn without_witness(&self, more: &str) {
        for node in NODES {
            let file = self.host(node).read_file(format!("{ROOT}/etc/evenkeel/cluster.toml"));
            let file = file.unwrap();
            let (nodes, _) = file.split_once("[witness]").unwrap();
            self.write(node, "etc/evenkeel/cluster.toml", &format!("{nodes}{more}"));
        }
    }

    /// Writes a file below a node's root.
    pub fn write(&self, node: &str, path: &str, text: &str) {
        self.host(node).write_file(Path::new(ROOT).join(path), text).unwrap();
    }

    /// Runs the command line on a node.
    pub fn command(&self, node: &str, arguments: &[&str]) -> Output {
        self.command_at(node, ROOT, arguments)
    }

    /// Has something done with the witness; the first line of what is said.
    pub fn witness(&self, words: &[&str]) -> String {
        let words = [&[INSIDE, "witness", "--directory", WITNESS_PLACE], words].concat();
        let said = applications::succeed(&self.host(WITNESS), &words);
        said.lines().next().unwrap_or_default().to_owned() + "\n"
    }

    /// The same with another root.
    pub fn command_at(&self, node: &str, root: &str, arguments: &[&str]) -> Output {
        // A command that hangs shall fail its test, with all that is known of the cluster.
        let limit = COMMAND_PATIENCE.as_secs().to_string();
        let words = [&["timeout", &limit, INSIDE, "--root", root], arguments].concat();
        let output = self.host(node).run(words).unwrap();
        let shown = arguments.join(" ");
        assert_ne!(output.status.code(), Some(124), "`evenkeel {shown}` on {node} hangs");
        output
    }
}

impl Cluster {
    /// Boots the hosts, writes the configuration, starts witness and daemons. Not the module.
    pub fn build(application: Application) -> Cluster {
        Cluster::build_with(application, |_| {})
    }

    /// The same, with `change` done to the nodes before their daemons start.
    pub fn build_with(application: Application, change: impl FnOnce(&Hosts)) -> Cluster {
        Cluster::build_on(&[NETWORK], application, change)
    }

    /// The same, on several networks. What the nodes' files say of more than the first, `change`
    /// has to write.
    pub fn build_on(
        networks: &[&str],
        application: Application,
        change: impl FnOnce(&Hosts),
    ) -> Cluster {
        let hosts = Hosts::boot_with(&application.disks, application.systemd, networks);
        let cluster = Cluster { hosts, application, daemons: Mutex::default() };
        if cluster.application.keys {
            cluster.give_keys(&Authority::new("test").unwrap(), &NODES);
            cluster.enrol(NODES[0]);
        }
        cluster.start_witness();
        for node in NODES {
            cluster.furnish(node);
        }
        change(&cluster.hosts);
        for node in NODES {
            // What an administrator wrote is durable long before the power fails.
            applications::succeed(&cluster.host(node), &["sync"]);
        }
        for node in NODES {
            cluster.start_daemon(node);
        }
        cluster
    }

    /// The same, with the module started on both nodes and protected.
    pub fn protected(application: Application) -> Cluster {
        let cluster = Cluster::build(application);
        cluster.must(NODES[0], &["start", cluster.module()]);
        cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
        cluster
    }

    pub fn lab(&self) -> &Lab {
        &self.hosts.lab
    }

    pub fn host(&self, name: &str) -> Host {
        self.hosts.host(name)
    }

    pub fn module(&self) -> &'static str {
        self.application.module
    }

    /// The replicated directory of a node as its file system has it.
    pub fn replica(&self, node: &str) -> PathBuf {
        self.host(node).disk_path("data").unwrap().join(self.application.directory)
    }

    pub fn furnish(&self, node: &str) {
        self.hosts.write(node, "etc/evenkeel/cluster.toml", &self.configuration());
        let file = format!("etc/evenkeel/modules/{}.toml", self.module());
        self.hosts.write(node, &file, &self.application.configuration);
        let directory = self.host(node).path("/srv").unwrap().join(self.application.directory);
        fs::create_dir_all(directory).unwrap();
        if node == NODES[0] {
            (self.application.prepare)(&self.host(node));
        }
    }

    /// Gives nodes keys of their own, instead of those that they had.
    pub fn give_keys(&self, authority: &Authority, nodes: &[&str]) {
        for node in nodes {
            let directory = self.host(node).path(Path::new(ROOT).join("etc/evenkeel/keys"));
            let directory = directory.unwrap();
            // There may be none yet.
            let _ = fs::remove_dir_all(&directory);
            authority.furnish(&NodeName::new(node).unwrap(), &directory).unwrap();
        }
    }

    /// Has the witness know the cluster to which a node belongs.
    pub fn enrol(&self, node: &str) {
        let keys = format!("{ROOT}/etc/evenkeel/keys/ca.pem");
        let authority = self.host(node).read_file(keys).unwrap();
        self.hosts.write(WITNESS, "ca.pem", &authority);
        let file = format!("{ROOT}/ca.pem");
        self.hosts.witness(&["add", &file]);
        // What an administrator did is durable long before the power fails.
        applications::succeed(&self.host(WITNESS), &["sync"]);
    }

    /// The cluster's file, the same on both nodes.
    pub fn configuration(&self) -> String {
        let file = cluster_file(&self.hosts.lab);
        if self.application.keys { file + &self.hosts.witness(&["show"]) } else { file }
    }

    /// Starts the daemon of a node that runs.
    pub fn start_daemon(&self, node: &str) {
        if self.application.systemd {
            self.start_unit(node);
        } else {
            let argv = [INSIDE, "--root", ROOT, "daemon"];
            return self.start_daemon_as(node, SpawnSpec::new(argv).log("daemon.log"));
        }
        self.await_daemon(node);
    }

    /// Starts the daemon of a node that runs, by this command.
    pub fn start_daemon_as(&self, node: &str, spec: SpawnSpec) {
        let daemon = self.host(node).spawn(spec).unwrap();
        self.daemons().insert(node.to_owned(), daemon);
        self.await_daemon(node);
    }

    fn await_daemon(&self, node: &str) {
        self.until(&format!("an answer of the daemon of {node}"), PATIENCE, || {
            if !self.application.systemd {
                assert!(self.daemon(node).is_alive(), "the daemon of {node} has ended");
            }
            self.module_status(node).is_some()
        });
    }

    /// Has systemd run the daemon, and again whenever that ends.
    fn start_unit(&self, node: &str) {
        let host = self.host(node);
        host.wait_ready().unwrap();
        let unit = format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={INSIDE} --root {ROOT} daemon\n\
             Restart=always\nRestartSec=50ms\nStandardError=append:{ROOT}/daemon.log\n"
        );
        host.write_file(format!("/etc/systemd/system/{UNIT}.service"), unit).unwrap();
        applications::succeed(&host, &["systemctl", "daemon-reload"]);
        applications::succeed(&host, &["systemctl", "start", UNIT]);
    }

    /// The daemon of a node as it was started last.
    pub fn daemon(&self, node: &str) -> Process {
        self.daemons()[node].clone()
    }

    fn daemons(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Process>> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn start_witness(&self) {
        let host = self.host(WITNESS);
        let listen = format!("{}:7623", host.address(NETWORK).unwrap());
        let mut argv = vec![INSIDE, "witness", "--listen", &listen, "--directory", WITNESS_PLACE];
        if !self.application.keys {
            argv.push("--open");
        }
        let listens = || host.log("witness.log").unwrap_or_default().matches("listening").count();
        let before = listens();
        host.spawn(SpawnSpec::new(argv).log("witness.log")).unwrap();
        self.until("the witness listens", PATIENCE, || listens() > before);
    }

    /// Boots a node that is down and starts its daemon.
    pub fn boot_node(&self, node: &str) {
        self.lab().start(node).unwrap();
        self.start_daemon(node);
    }

    pub fn command(&self, node: &str, arguments: &[&str]) -> Output {
        self.hosts.command(node, arguments)
    }

    /// Runs the command line on a node, which has to succeed, and returns what it prints.
    pub fn must(&self, node: &str, arguments: &[&str]) -> String {
        let output = self.command(node, arguments);
        assert!(
            output.status.success(),
            "`evenkeel {}` on {node} ends with {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits on a node for a state of the module, such as `protected`.
    pub fn wait_for(&self, node: &str, state: &str, patience: Duration) {
        let patience = format!("{}s", patience.as_secs());
        self.must(node, &["wait", self.module(), "--for", state, "--timeout", &patience]);
    }

    /// Waits until `done`; for what nobody announces.
    pub fn until(&self, what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < patience, "{what}: not within {} s", patience.as_secs());
            thread::sleep(LOOK_PAUSE);
        }
    }

    /// What a node says of itself; nothing when it does not answer.
    pub fn status(&self, node: &str) -> Option<Value> {
        status_of(&self.host(node))
    }

    /// What a node says of the module.
    pub fn module_status(&self, node: &str) -> Option<Value> {
        let status = self.status(node)?;
        status["modules"].get(self.module()).cloned()
    }

    /// The role that a node says it has; empty when it does not answer.
    pub fn role(&self, node: &str) -> String {
        let status = self.module_status(node).unwrap_or_default();
        status["role"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a node has one of these roles.
    pub fn wait_for_role(&self, node: &str, roles: &[&str]) {
        let what = format!("{node} in role {}", roles.join(" or "));
        self.until(&what, PATIENCE, || roles.contains(&self.role(node).as_str()));
    }

    /// The nodes that say that they serve.
    pub fn serving(&self) -> Vec<&'static str> {
        NODES.into_iter().filter(|node| self.serves(node)).collect()
    }

    /// The node that serves.
    pub fn primary(&self) -> &'static str {
        let serving = self.serving();
        assert_eq!(serving.len(), 1, "exactly one node serves, not {serving:?}");
        serving[0]
    }

    pub fn serves(&self, node: &str) -> bool {
        observer::serves(&self.module_status(node).unwrap_or_default())
    }

    /// Whether a node holds the virtual address.
    pub fn holds_address(&self, node: &str) -> bool {
        self.host(node).addresses().unwrap_or_default().contains(&lab::virtual_address(0, 0))
    }

    /// Starts the module, which is stopped, and tells what the primary said of a start that found
    /// both copies in sync. Where a node is too slow to be waited for, the other one goes on and
    /// resyncs it; then the module is stopped and started once more.
    pub fn start_in_sync(&self) -> String {
        for _ in 0..STARTS {
            self.must(NODES[0], &["start", self.module()]);
            self.until("the pair is together", SYNC_PATIENCE, || self.serving().len() == 1);
            self.wait_for(self.primary(), "protected", SYNC_PATIENCE);
            let all = self.must(self.primary(), &["events", self.module()]);
            let told = &all[all.rfind(" stopped: ").unwrap_or(0)..];
            if told.contains("start-in-sync") {
                return told.to_owned();
            }
            println!("not found in sync:\n{told}");
            self.stop();
        }
        panic!("not found in sync in {STARTS} starts");
    }

    /// Stops the module everywhere.
    fn stop(&self) {
        self.must(NODES[0], &["stop", self.module()]);
        for node in NODES {
            self.wait_for(node, "stopped", PATIENCE);
            assert!(!self.holds_address(node), "{node} holds the address after the stop");
        }
    }

    /// Stops the module everywhere and compares both replicas, which have to be identical.
    pub fn stop_and_compare(&self) {
        self.stop();
        let [one, other] = NODES.map(|node| self.replica(node));
        let comparison = lab::compare::trees(&one, &other).unwrap();
        let differences: Vec<String> =
            comparison.differences.iter().take(20).map(ToString::to_string).collect();
        assert!(comparison.is_identical(), "the replicas differ:\n  {}", differences.join("\n  "));
        assert!(comparison.entries > 1, "there was nothing to compare");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            report::print(self);
        }
    }
}

/// Name of the lab: `EVENKEEL_LAB`, for soaks that run beside each other, or `tests`.
fn lab_name() -> String {
    std::env::var("EVENKEEL_LAB").unwrap_or_else(|_| "tests".to_owned())
}

/// Waits until no other test has a lab of this name; none gets one while the lock is held.
pub fn only_lab() -> File {
    let lock = format!("evenkeel-{}.lock", lab_name());
    let only = File::create(std::env::temp_dir().join(lock)).unwrap();
    rustix::fs::flock(&only, FlockOperation::LockExclusive).unwrap();
    only
}

/// The node that is not this one.
pub fn other(node: &str) -> &'static str {
    if node == NODES[0] { NODES[1] } else { NODES[0] }
}

/// A cluster's file for the lab's hosts.
pub fn cluster_file(lab: &Lab) -> String {
    let address = |host: &str| lab.host(host).unwrap().address(NETWORK).unwrap();
    let node = |name: &str| {
        let address = address(name);
        format!("[[node]]\nname = \"{name}\"\naddresses = {{ {NETWORK} = \"{address}\" }}\n")
    };
    let nodes = NODES.map(node).concat();
    format!("cluster = \"tests\"\n{nodes}[witness]\naddress = \"{}\"\n", address(WITNESS))
}

/// What a node's daemon says of itself; nothing when it does not answer.
pub fn status_of(host: &Host) -> Option<Value> {
    let reply = ask(host, Verb::Status).ok()?;
    (reply.outcome == Exit::Done).then_some(reply.data)
}

/// Asks a daemon something that it can answer at once.
pub fn ask(host: &Host, verb: Verb) -> std::io::Result<Reply> {
    let socket = host.path(Path::new(ROOT).join("run/evenkeel/control.sock"));
    let mut stream = UnixStream::connect(socket.map_err(std::io::Error::other)?)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let request = json!(Request { schema: SCHEMA, verb });
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Runs the binary on the machine itself.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}
