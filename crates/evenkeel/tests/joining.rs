//! A cluster as an operator makes it: `init`, `token`, `join`, `leave`, with everything under keys;
//! and tokens and nodes that are refused, after which nothing is changed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Process, SpawnSpec};
use serde_json::Value;

use self::support::applications::{ledger, succeed};
use self::support::{
    CLIENT, Hosts, INSIDE, NETWORK, NODES, PATIENCE, ROOT, SYNC_PATIENCE, WITNESS, clock, status_of,
};

struct Site {
    hosts: Hosts,
}

impl Site {
    /// The hosts, with a cluster of one node whose daemon runs.
    fn found() -> (Site, Process) {
        let site = Site { hosts: Hosts::boot() };
        let fingerprint = site.hosts.witness(&["show"]);
        let fingerprint = fingerprint.split('"').nth(1).unwrap();
        let address = |host| site.hosts.host(host).address(NETWORK).unwrap().to_string();
        let (own, witness) = (address(NODES[0]), address(WITNESS));
        let known = ["--witness", &witness, "--fingerprint", fingerprint];
        site.must(NODES[0], &[&["init", "demo", "--address", &own][..], &known].concat());
        let authority = site.read(NODES[0], "etc/evenkeel/keys/ca.pem");
        site.hosts.write(WITNESS, "ca.pem", &authority);
        site.hosts.witness(&["add", &format!("{ROOT}/ca.pem")]);
        let listen = format!("{witness}:7623");
        let argv = [INSIDE, "witness", "--listen", &listen, "--directory", support::WITNESS_PLACE];
        site.hosts.host(WITNESS).spawn(SpawnSpec::new(argv).log("witness.log")).unwrap();
        let daemon = site.start_daemon(NODES[0]);
        (site, daemon)
    }

    fn start_daemon(&self, node: &str) -> Process {
        let argv = [INSIDE, "--root", ROOT, "daemon"];
        let spec = SpawnSpec::new(argv).log("daemon.log");
        let daemon = self.hosts.host(node).spawn(spec).unwrap();
        until("the daemon answers", || {
            assert!(daemon.is_alive(), "the daemon of {node}: {}", self.log(node));
            self.status(node).is_some()
        });
        daemon
    }

    fn restart_daemon(&self, node: &str, daemon: &Process) -> Process {
        daemon.kill(15).unwrap();
        daemon.wait().unwrap();
        self.start_daemon(node)
    }

    fn log(&self, node: &str) -> String {
        self.hosts.host(node).log("daemon.log").unwrap_or_default()
    }

    fn status(&self, node: &str) -> Option<Value> {
        status_of(&self.hosts.host(node))
    }

    fn path(&self, node: &str, file: &str) -> PathBuf {
        self.hosts.host(node).path(Path::new(ROOT).join(file)).unwrap()
    }

    fn read(&self, node: &str, file: &str) -> String {
        fs::read_to_string(self.path(node, file)).unwrap()
    }

    fn must(&self, node: &str, words: &[&str]) -> String {
        let output = self.hosts.command(node, words);
        assert!(output.status.success(), "{words:?} on {node}: {}", text(&output));
        text(&output)
    }

    fn refused(&self, host: &str, root: &str, (words, code, why): (&[&str], i32, &str)) {
        let output = self.hosts.command_at(host, root, words);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(why), "{words:?}: {why:?} is not in: {said}");
    }

    fn token(&self) -> String {
        let said = self.must(NODES[0], &["--json", "token"]);
        let reply: Value = serde_json::from_str(&said).unwrap();
        reply["data"]["token"].as_str().unwrap().to_owned()
    }

    /// Everything of a cluster that a node has.
    fn belongings(&self, node: &str) -> String {
        let directory = format!("{ROOT}/etc");
        let script =
            format!("[ ! -e {directory} ] || find {directory} -type f | sort | xargs -r md5sum");
        succeed(&self.hosts.host(node), &["sh", "-ec", &script])
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

impl Site {
    /// Starts a daemon as if the power had failed before the last file was in place.
    fn start_daemon_after_a_cut(&self, node: &str) -> Process {
        let last = self.path(node, "etc/evenkeel/cluster.toml");
        fs::rename(&last, self.path(node, "etc/evenkeel/keys/cluster.toml")).unwrap();
        let daemon = self.start_daemon(node);
        assert!(last.exists() && self.log(node).contains("is complete now"), "{}", self.log(node));
        daemon
    }

    /// A token that the second node has used lets nobody else in.
    fn refuses_a_used(&self, token: &str) {
        let elsewhere = format!("{ROOT}/elsewhere");
        let again = ["join", token, "--node", "node3"];
        let callers = || self.status(NODES[0]).and_then(|s| s["turned_away"]["callers"].as_u64());
        // One that could be used, so that the door is open.
        self.token();
        let before = (callers(), NODES.map(|node| self.belongings(node)));
        self.refused(WITNESS, &elsewhere, (&again, 4, "used already, by node2"));
        until("it is counted", || callers() > before.0);
        assert_eq!(NODES.map(|node| self.belongings(node)), before.1, "something was changed");
    }

    /// The second node cannot leave while the first runs a module and does not find its file as it
    /// was.
    fn keeps_what_runs(&self, wait: &[&str]) {
        let [one, two] = NODES;
        self.must(two, &["stop", "ledger", "--node", two]);
        self.must(one, &[wait, &["--for", "alone"]].concat());
        let file = self.path(one, "etc/evenkeel/modules/ledger.toml");
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, good.clone() + "[failover]\nmax_restarts = 7\n").unwrap();
        self.refused(
            two,
            ROOT,
            (&["leave"], 4, "node1 refuses: module ledger runs there, and its"),
        );
        fs::remove_file(&file).unwrap();
        self.refused(two, ROOT, (&["leave"], 4, "its file is missing"));
        fs::write(&file, good).unwrap();
    }
}

/// Whose clock is hours away does not join by a good token: certificates count by clocks.
fn a_clock_hours_away_is_refused(site: &Site, token: &str, kept: &str) {
    let [one, two] = NODES;
    fs::write(site.path(one, "var/lib/evenkeel/tokens.json"), kept).unwrap();
    let counted = || site.status(one).and_then(|it| it["turned_away"]["callers"].as_u64());
    for (offset, why) in
        [("+3h", "minutes ahead of"), ("-3h", "is the clock of this machine right?")]
    {
        let before = counted();
        clock::set(&site.hosts, two, offset);
        let output = clock::command(&site.hosts, two, &["join", token]);
        assert_eq!(output.status.code(), Some(4), "{offset}: {}", text(&output));
        assert!(text(&output).contains(why), "{offset}: {}", text(&output));
        until("it is counted", || counted() > before);
    }
}

/// A token with one of its parts changed.
fn changed(token: &str, part: usize, change: impl FnOnce(&str) -> String) -> String {
    let mut parts: Vec<String> = token.split('+').map(str::to_owned).collect();
    parts[part] = change(&parts[part]);
    parts.join("+")
}

#[test]
fn a_second_node_joins_and_leaves_and_all_goes_under_keys() {
    let (site, daemon) = Site::found();
    let [one, two] = NODES;
    site.refused(one, ROOT, (&["init", "demo", "--address", "127.0.0.1"], 4, "is there already"));
    let token = site.token();
    let said = site.must(two, &["join", &token]);
    assert!(said.contains("with node1, node2"), "{said}");
    until("the first node knows the second", || {
        site.status(one).is_some_and(|status| status["networks"][NETWORK].get(two).is_some())
    });
    assert!(daemon.is_alive(), "it started anew in its own process");
    assert_eq!(
        site.read(one, "etc/evenkeel/cluster.toml"),
        site.read(two, "etc/evenkeel/cluster.toml")
    );
    let modes = format!("stat -c %a {ROOT}/etc/evenkeel/keys/*.key");
    let modes = succeed(&site.hosts.host(two), &["sh", "-ec", &modes]);
    assert_eq!(modes.split_whitespace().collect::<Vec<_>>(), ["600"; 3]);
    site.refused(two, ROOT, (&["join", &token], 4, "is there already"));
    site.refuses_a_used(&token);

    let application = ledger("");
    for node in NODES {
        site.hosts.write(node, "etc/evenkeel/modules/ledger.toml", &application.configuration);
        succeed(&site.hosts.host(node), &["mkdir", "-p", "/srv/ledger"]);
    }
    (application.prepare)(&site.hosts.host(one));
    let first = site.restart_daemon(one, &daemon);
    let second = site.start_daemon_after_a_cut(two);
    let wait = ["wait", "ledger", "--timeout", &format!("{}s", SYNC_PATIENCE.as_secs())];
    site.must(one, &["start", "ledger"]);
    site.must(one, &[&wait[..], &["--for", "protected"]].concat());
    until("the links are encrypted, and the witness answers", || {
        let status = site.status(one).unwrap_or_default();
        let protection = &status["modules"]["ledger"]["detail"]["protection"];
        protection == "encrypted" && status["witness"]["error"] == Value::Null
    });

    site.refused(two, ROOT, (&["leave"], 4, "module ledger runs on node2"));
    site.keeps_what_runs(&wait);
    site.must(one, &["stop", "ledger"]);
    site.must(two, &[&wait[..], &["--for", "stopped"]].concat());
    site.refused(two, ROOT, (&["leave"], 4, "node1 refuses"));
    fs::remove_file(site.path(one, "etc/evenkeel/modules/ledger.toml")).unwrap();
    site.must(two, &["leave"]);
    second.wait().unwrap();
    assert!(!site.path(two, "etc/evenkeel/keys").exists(), "its keys are gone");
    // As if that had been cut short.
    fs::create_dir(site.path(two, "etc/evenkeel/keys")).unwrap();
    site.refused(two, ROOT, (&["daemon"], 4, "an `evenkeel leave` was interrupted"));
    assert!(!site.read(one, "etc/evenkeel/cluster.toml").contains(two));
    until("the first node is alone", || {
        site.status(one).is_some_and(|status| status["networks"][NETWORK].get(two).is_none())
    });
    assert!(first.is_alive());
}

#[test]
fn a_node_that_joins_takes_the_configuration_that_was_applied() {
    let (site, _daemon) = Site::found();
    let [one, two] = NODES;
    let cluster = "etc/evenkeel/cluster.toml";
    let module = "etc/evenkeel/modules/ledger.toml";
    site.hosts.write(one, cluster, &(site.read(one, cluster) + "# ours\n"));
    site.must(one, &["apply"]);
    site.must(two, &["join", &site.token()]);
    let _second = site.start_daemon(two);
    let number = |node: &str| site.status(node)?["configuration"]["number"].as_u64();
    until("both have what the joining made", || NODES.map(number) == [Some(2); 2]);
    assert_eq!(site.read(one, cluster), site.read(two, cluster));
    // From now on one file is enough.
    site.hosts.write(two, module, &ledger("").configuration);
    for node in NODES {
        succeed(&site.hosts.host(node), &["mkdir", "-p", "/srv/ledger"]);
    }
    site.must(two, &["apply"]);
    assert_eq!(site.read(one, module), site.read(two, module));
    site.must(two, &["start", "ledger"]);
    site.must(one, &["wait", "ledger", "--for", "protected"]);
    let history = site.must(one, &["config", "history"]);
    assert!(history.contains("membership"), "{history}");
    // The one that goes takes nothing along; the one that stays goes on with one number more.
    site.must(one, &["stop", "ledger"]);
    site.must(two, &["wait", "ledger", "--for", "stopped"]);
    fs::remove_file(site.path(one, module)).unwrap();
    site.must(one, &["apply"]);
    site.must(two, &["leave"]);
    until("the first node is alone", || number(one) == Some(5));
    assert!(!site.path(two, "var/lib/evenkeel/configurations").exists());
}

#[test]
fn outside_the_lab_a_cluster_needs_keys() {
    let (site, daemon) = Site::found();
    let [one, two] = NODES;
    site.must(two, &["join", &site.token()]);
    let host = site.hosts.host(two);
    // Where nothing shows that this is a lab.
    succeed(&host, &["cp", INSIDE, "/tmp/evenkeel"]);
    let outside = |root: &str| {
        format!("mount -t tmpfs none /run/lab && exec /tmp/evenkeel --root {root} daemon")
    };
    let bare = format!("{ROOT}/bare");
    let file = site.read(two, "etc/evenkeel/cluster.toml");
    host.write_file(format!("{bare}/etc/evenkeel/cluster.toml"), &file).unwrap();
    let output =
        host.run(["timeout", "60", "unshare", "-m", "sh", "-ec", &outside(&bare)]).unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("form a cluster only inside the lab"), "{said}");
    let script = outside(ROOT);
    let argv = ["unshare", "-m", "sh", "-ec", &script];
    let second = host.spawn(SpawnSpec::new(argv).log("daemon.log")).unwrap();
    until("both hear each other", || {
        assert!(daemon.is_alive() && second.is_alive(), "{}", site.log(two));
        NODES.into_iter().zip([two, one]).all(|(node, peer)| {
            let status = site.status(node).unwrap_or_default();
            status["networks"][NETWORK][peer]["silent_ms"].is_u64()
        })
    });
}

#[test]
fn whoever_may_not_join_changes_nothing() {
    let (site, _daemon) = Site::found();
    let [one, two] = NODES;
    let before = [one, two].map(|node| site.belongings(node));
    site.refused(two, ROOT, (&["join", "evk1+demo"], 2, "six parts"));
    let token = site.token();
    let join = |token: &str, more: &[&str], code, why: &str| {
        site.refused(two, ROOT, (&[&["join", token], more].concat(), code, why));
    };
    let zeroes = |part: &str| "0".repeat(part.len());
    join(&changed(&token, 3, zeroes), &[], 4, "not of the cluster that made the token");
    join(&changed(&token, 1, |_| "other".to_owned()), &[], 4, "belongs to cluster demo");
    join(&changed(&token, 4, zeroes), &[], 4, "no such token");
    join(&changed(&token, 5, zeroes), &[], 4, "not the one that was made here");
    join(&token, &["--node", "node1"], 4, "has a node node1 already");
    let here = site.hosts.host(two).address(NETWORK).unwrap().to_string();
    join(&token, &["--address", &format!("lan7={here}")], 4, "no network lan7");
    // Nobody is asked by a machine that cannot be what it would be.
    let theirs = site.hosts.host(one).address(NETWORK).unwrap().to_string();
    join(&token, &["--address", &theirs], 4, "nobody was asked yet, as this machine has no");
    let file = format!("{ROOT}/file");
    site.hosts.write(two, "file", "no directory");
    let below = format!("{file}/root");
    site.refused(two, &below, (&["join", &token], 4, "nothing can be kept here"));
    let nowhere = changed(&token, 2, |_| "127.0.0.1".to_owned());
    join(&nowhere, &[], 5, "no node of the cluster can be reached");
    let tokens = site.path(one, "var/lib/evenkeel/tokens.json");
    let kept = fs::read_to_string(&tokens).unwrap();
    let mut aged: Value = serde_json::from_str(&kept).unwrap();
    // The one that `init` has made stays, so that the door is open.
    aged.as_array_mut().unwrap().last_mut().unwrap()["expires_ms"] = Value::from(1);
    fs::write(&tokens, aged.to_string()).unwrap();
    join(&token, &[], 4, "has expired");
    assert_eq!([one, two].map(|node| site.belongings(node)), before, "something was changed");
    until("all seven are counted", || {
        let status = site.status(one).unwrap_or_default();
        status["turned_away"]["callers"].as_u64() >= Some(7)
    });
    let told = site.log(one).matches("was turned away").count();
    assert!((1..7).contains(&told), "not each is told: {}", site.log(one));
    a_clock_hours_away_is_refused(&site, &token, &kept);
    assert_eq!([one, two].map(|node| site.belongings(node)), before, "something was changed");
    // Without a token that could be used nobody from elsewhere is let in at all.
    for kept in aged.as_array_mut().unwrap() {
        kept["expires_ms"] = Value::from(1);
    }
    fs::write(&tokens, aged.to_string()).unwrap();
    assert_ne!(site.hosts.command(two, &["join", &token]).status.code(), Some(0));
    // The token is as good as ever after all that.
    fs::write(&tokens, kept).unwrap();
    site.must(two, &["join", &token]);
    assert!(site.hosts.host(CLIENT).is_up());
}

#[test]
fn a_farm_of_all_nodes_keeps_them_while_it_runs() {
    let (site, daemon) = Site::found();
    let [one, two] = NODES;
    let module = "module = \"crew\"\nkind = \"farm\"\n[[balance]]\nport = 80\n\
                  [[command]]\nname = \"sleep\"\nrun = [\"/bin/sleep\", \"1000000\"]\n";
    site.hosts.write(one, "etc/evenkeel/modules/crew.toml", module);
    let _daemon = site.restart_daemon(one, &daemon);
    site.must(one, &["start", "crew"]);
    let token = site.token();
    let join = ["join", &token];
    site.refused(two, ROOT, (&join, 4, "crew is a farm of all nodes, and runs: stop it first"));
    site.must(one, &["stop", "crew"]);
    site.must(two, &join);
    site.hosts.write(two, "etc/evenkeel/modules/crew.toml", module);
    let _second = site.start_daemon(two);
    site.must(two, &["start", "crew", "--node", two]);
    until("the first hears that the farm runs on the second alone", || {
        let said = site.must(one, &["status", "--json"]);
        let status: Value = serde_json::from_str(&said).unwrap();
        let part = &status["data"]["modules"]["crew"]["farm"]["members"][1]["part"];
        part.as_str().is_some_and(|part| part != "out")
    });
    let leave = ["leave", "--node", two];
    site.refused(one, ROOT, (&leave, 4, "module crew runs on node2: evenkeel stop crew"));
    site.must(two, &["stop", "crew", "--node", two]);
}
