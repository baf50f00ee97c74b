//! A farm in a lab for integration tests: three nodes with an embedded web server behind one
//! address, and a client. No test is decided here.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lab::web::Visitors;
use lab::{Host, HostSpec, Lab, LabOptions, Process, SpawnSpec};
use model::NodeName;
use node::Authority;
use serde_json::Value;

use super::applications::succeed;
use super::{BINARY, CLIENT, INSIDE, NETWORK, PATIENCE, ROOT, lab_name, only_lab, status_of};

/// The nodes.
pub const FARM: [&str; 3] = ["node1", "node2", "node3"];
/// Where all clients are served.
pub const ADDRESS: &str = "10.77.0.60";
/// The module.
pub const MODULE: &str = "web";
/// A timeout that no busy machine exceeds by itself; the default one is the benchmark's and the
/// quiet hour's matter.
pub const PATIENT: &str = "[farm]\ntimeout = \"3s\"\n";
/// New visitors in a time that is longer than that.
const MISSING: usize = 400;
/// Visitors that keep their connection.
pub const KEPT: usize = 30;
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Where a balancer asks.
const HEALTH: u16 = 7622;
const SIGNAL_TERM: i32 = 15;

/// A farm that runs.
pub struct Trial {
    /// The lab.
    pub lab: Lab,
    /// The daemons by node.
    pub daemons: BTreeMap<String, Process>,
    // After the lab, for fields are dropped in order.
    _only: File,
}

impl Trial {
    /// Three nodes and a client; the module is started on all.
    pub fn start(more: &str) -> Trial {
        Trial::begin("", more, None)
    }

    /// The same with more keys of `[[balance]]`, and with keys for the nodes.
    pub fn begin(balance: &str, more: &str, keys: Option<&Authority>) -> Trial {
        let trial = Trial::idle(balance, more, keys);
        trial.must(FARM[0], &["start", MODULE]);
        trial
    }

    /// The same, and the farm is not started yet.
    pub fn idle(balance: &str, more: &str, keys: Option<&Authority>) -> Trial {
        let only = only_lab();
        let mut hosts: Vec<HostSpec> = FARM.into_iter().map(HostSpec::node).collect();
        hosts.push(HostSpec::client(CLIENT));
        let lab = Lab::create(LabOptions {
            name: lab_name(),
            binary: BINARY.into(),
            networks: vec![NETWORK.to_owned()],
            hosts,
        });
        let lab = lab.unwrap_or_else(|error| panic!("these tests need a lab: {error}"));
        let mut trial = Trial { lab, daemons: BTreeMap::new(), _only: only };
        let nodes = FARM.map(|name| {
            let address = trial.host(name).address(NETWORK).unwrap();
            format!("[[node]]\nname = \"{name}\"\naddresses = {{ {NETWORK} = \"{address}\" }}\n")
        });
        let nodes = nodes.concat();
        let cluster = format!("cluster = \"tests\"\n{nodes}[health]\nport = {HEALTH}\n");
        let module = format!(
            "module = \"{MODULE}\"\nkind = \"farm\"\n[[vip]]\naddress = \"{ADDRESS}/24\"\n\
             [[balance]]\nport = 80\n{balance}[[command]]\nname = \"web\"\n\
             run = [\"{INSIDE}\", \"web\", \"--listen\", \"{ADDRESS}:80\"]\n\
             [[check]]\nname = \"answers\"\nkind = \"tcp\"\naddress = \"{ADDRESS}\"\n\
             port = 80\ninterval = \"100ms\"\n{more}"
        );
        for node in FARM {
            trial.write(node, "etc/evenkeel/cluster.toml", &cluster);
            trial.write(node, "etc/evenkeel/modules/web.toml", &module);
            if let Some(authority) = keys {
                let keys = Path::new(ROOT).join("etc/evenkeel/keys");
                let directory = trial.host(node).path(keys).unwrap();
                authority.furnish(&NodeName::new(node).unwrap(), &directory).unwrap();
            }
            trial.start_daemon(node);
        }
        trial
    }

    /// Ends a daemon as systemd does, and starts the next one.
    pub fn replace_daemon(&mut self, node: &str, visitors: &Visitors) {
        let daemon = self.daemons.remove(node).unwrap();
        daemon.kill(SIGNAL_TERM).unwrap();
        daemon.wait().unwrap();
        let since = Instant::now();
        // They come for longer than any silence that would be noticed.
        served(visitors, since, MISSING);
        self.start_daemon(node);
    }

    /// Kills a node with everything on it. Its cable goes first: who dies closes no connections.
    pub fn kill(&mut self, node: &str) {
        self.daemons.remove(node);
        self.lab.cut_network(node, NETWORK).unwrap();
        self.lab.kill(node).unwrap();
        // It has none while it is down.
        self.lab.restore_network(node, NETWORK).unwrap();
    }

    /// What the nodes have told of the farm.
    pub fn events(&self, node: &str) -> String {
        let words = ["timeout", "60", INSIDE, "--root", ROOT, "events", MODULE];
        let output = self.host(node).run(words).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A host.
    pub fn host(&self, name: &str) -> Host {
        self.lab.host(name).unwrap()
    }

    /// Writes a file below the root of a node.
    pub fn write(&self, node: &str, path: &str, text: &str) {
        self.host(node).write_file(Path::new(ROOT).join(path), text).unwrap();
    }

    /// Starts the daemon of a node and waits until it answers.
    pub fn start_daemon(&mut self, node: &str) {
        let argv = [INSIDE, "--root", ROOT, "daemon"];
        let daemon = self.host(node).spawn(SpawnSpec::new(argv).log("daemon.log")).unwrap();
        self.daemons.insert(node.to_owned(), daemon);
        until(&format!("an answer of the daemon of {node}"), || self.farm(node).is_some());
    }

    /// Runs a command on a node, which must succeed.
    pub fn must(&self, node: &str, arguments: &[&str]) {
        let words = [&["timeout", "60", INSIDE, "--root", ROOT], arguments].concat();
        let output = self.host(node).run(words).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?} on {node}: {said}");
    }

    /// What a node says of the farm.
    pub fn farm(&self, node: &str) -> Option<Value> {
        let status = status_of(&self.host(node))?;
        Some(status["modules"][MODULE]["farm"].clone()).filter(|farm| !farm.is_null())
    }

    /// Who leads.
    pub fn leader(&self) -> String {
        let named = self.farm(FARM[0]).and_then(|farm| farm["leader"].as_str().map(str::to_owned));
        named.unwrap()
    }

    /// What a balancer is told of the farm on a node.
    pub fn health(&self, node: &str) -> String {
        let address = self.host(node).address(NETWORK).unwrap();
        let question = format!("http://{address}:{HEALTH}/health/{MODULE}");
        let words = ["curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", &question];
        succeed(&self.host(CLIENT), &words)
    }

    /// Codes of the reasons that a node gives.
    pub fn reasons(&self, node: &str) -> Vec<String> {
        let status = status_of(&self.host(node)).unwrap_or_default();
        let reasons = status["modules"][MODULE]["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().filter_map(|reason| reason["code"].as_str().map(str::to_owned)).collect()
    }

    /// Buckets of each node, as a node has them.
    pub fn buckets(&self, node: &str) -> Option<Vec<u64>> {
        buckets(&self.farm(node)?)
    }

    /// Waits until these nodes serve all clients in even shares, as each of them sees it: not only
    /// by a table, but by one that the kernels go by.
    pub fn even(&self, serving: &[&str], seen_by: &[&str]) {
        let each = 256 / serving.len() as u64;
        until(&format!("even shares of {serving:?}"), || {
            seen_by.iter().all(|node| {
                let Some(farm) = self.farm(node) else { return false };
                let Some(buckets) = buckets(&farm) else { return false };
                let due = |name: &str| serving.contains(&name);
                let is_even = FARM.iter().zip(&buckets).all(|(name, count)| {
                    if due(name) { (each..=each + 1).contains(count) } else { *count == 0 }
                });
                is_even && farm["in_force"] == true
            })
        });
    }

    /// Visitors that never pause; all that keep their connection are served.
    pub fn visitors(&self) -> Visitors {
        self.staying(KEPT)
    }

    /// Visitors of which so many keep their connection.
    pub fn staying(&self, kept: usize) -> Visitors {
        self.staying_at(ADDRESS, kept)
    }

    /// The same at another address of the farm.
    pub fn staying_at(&self, address: &str, kept: usize) -> Visitors {
        let address = SocketAddr::new(address.parse().unwrap(), 80);
        let namespace = self.host(CLIENT).netns().unwrap();
        let visitors = Visitors::start(address, kept, Some(namespace)).unwrap();
        until("all visitors that stay are served", || {
            visitors.kept().values().sum::<usize>() == kept
        });
        visitors
    }
}

fn buckets(farm: &Value) -> Option<Vec<u64>> {
    let members = farm["members"].as_array()?;
    members.iter().map(|member| member["buckets"].as_u64()).collect()
}

/// Waits until something is so.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(LOOK_PAUSE);
    }
    println!("{what}: {:.2} s", begin.elapsed().as_secs_f64());
}

/// Waits until so many new visitors have been served since a moment.
pub fn served(visitors: &Visitors, mark: Instant, count: usize) -> BTreeMap<String, usize> {
    until(&format!("{count} new visitors are served"), || {
        visitors.since(mark).served.values().sum::<usize>() >= count
    });
    visitors.since(mark).served
}
