//! The cluster's configuration on real nodes: edited on one and applied to all or to none, while
//! the application runs on; nodes that die, or are away, or whose files were edited meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::configuration::{Origin, Proposal, Version};
use lab::SpawnSpec;
use model::NodeName;
use model::config::{Content, Files, Stand};
use serde_json::Value;
use wire::control::{Configuring, Exit, Reply, Verb};

use self::support::applications::{ledger, succeed};
use self::support::random::Random;
use self::support::{Cluster, INSIDE, NODES, PATIENCE, ROOT, SYNC_PATIENCE, ask};

const MODULE: &str = "modules/ledger.toml";
const CHECK: &str = "[[check]]\nkind = \"tcp\"\nname = \"port\"\nport = 7000\n";

fn path(cluster: &Cluster, node: &str, file: &str) -> PathBuf {
    cluster.host(node).path(Path::new(ROOT).join("etc/evenkeel").join(file)).unwrap()
}

fn read(cluster: &Cluster, node: &str, file: &str) -> String {
    fs::read_to_string(path(cluster, node, file)).unwrap()
}

fn write(cluster: &Cluster, node: &str, file: &str, text: &str) {
    cluster.hosts.write(node, &format!("etc/evenkeel/{file}"), text);
}

/// Adds lines to the module's file of a node.
fn edit(cluster: &Cluster, node: &str, more: &str) -> String {
    let text = read(cluster, node, MODULE) + more;
    write(cluster, node, MODULE, &text);
    text
}

/// Runs a command that has to end with a code, and returns all that it says.
fn ends(cluster: &Cluster, node: &str, words: &[&str], code: i32) -> String {
    let output = cluster.command(node, words);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?} on {node}: {said}");
    said
}

fn contains_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in:\n{text}");
    }
}

fn number(cluster: &Cluster, node: &str) -> Option<u64> {
    cluster.status(node)?["configuration"]["number"].as_u64()
}

fn reasons(cluster: &Cluster, node: &str) -> Vec<String> {
    let status = cluster.status(node).unwrap_or_default();
    let reasons = status["configuration"]["reasons"].as_array().cloned().unwrap_or_default();
    reasons.iter().map(|reason| reason["code"].as_str().unwrap_or_default().to_owned()).collect()
}

fn until_reason(cluster: &Cluster, node: &str, code: &str) {
    cluster.until(&format!("{code} on {node}"), PATIENCE, || {
        reasons(cluster, node).iter().any(|known| known == code)
    });
}

fn until_number(cluster: &Cluster, node: &str, wanted: u64) {
    cluster.until(&format!("configuration {wanted} on {node}"), PATIENCE, || {
        number(cluster, node) == Some(wanted)
    });
}

/// The application's process, and the module's file that its daemon was started with.
fn program(cluster: &Cluster, node: &str) -> String {
    let noted = format!("{ROOT}/run/evenkeel/ledger.programs.json");
    let noted: Value = serde_json::from_str(&cluster.host(node).read_file(noted).unwrap()).unwrap();
    noted[0]["pid"].to_string()
}

fn kill_daemon(cluster: &Cluster, node: &str) {
    cluster.daemon(node).kill(9).unwrap();
    cluster.daemon(node).wait().unwrap();
}

/// Stops the module. What the daemons before these had started ends with it, and nothing that has
/// ended stays in the table of processes.
fn stop_and_leave_nothing(cluster: &Cluster) {
    cluster.stop_and_compare();
    let dead = "! grep -l '^[0-9]* (.*) Z ' /proc/[0-9]*/stat 2>/dev/null | grep -q .";
    for node in NODES {
        cluster.until(&format!("no dead process is left on {node}"), PATIENCE, || {
            cluster.host(node).run(["sh", "-c", dead]).unwrap().status.success()
        });
    }
}

#[test]
fn an_edit_on_one_node_reaches_both_while_the_application_runs_on() {
    let cluster = Cluster::protected(ledger(""));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let [one, two] = NODES;
    let (primary, pid) = (cluster.primary(), program(&cluster, cluster.primary()));
    let text = edit(&cluster, one, &format!("[failover]\ntimeout = \"3s\"\n{CHECK}"));
    write(&cluster, one, "modules/ledger/run.sh", "#!/bin/sh\n");
    succeed(
        &cluster.host(one),
        &["chmod", "+x", &format!("{ROOT}/etc/evenkeel/modules/ledger/run.sh")],
    );
    until_reason(&cluster, one, "config-edited");
    contains_all(
        &cluster.must(one, &["status"]),
        &["config-edited  edited on node1, and not in use: modules/ledger.toml", "evenkeel plan"],
    );
    let plan = cluster.must(one, &["plan"]);
    let parts = [
        "configuration 0 → 1",
        "+ modules/ledger.toml failover.timeout  \"3s\"",
        "while everything runs  [node1, node2]",
        "check.port",
        "modules/ledger/run.sh",
        "✔ node1 agrees",
        "✔ node2 agrees",
    ];
    contains_all(&plan, &parts);
    assert_eq!(number(&cluster, two), Some(0), "a plan changes nothing");

    contains_all(&cluster.must(one, &["apply"]), &["configuration 1 is in use"]);
    for node in NODES {
        assert_eq!(number(&cluster, node), Some(1), "apply waits for {node}");
        assert_eq!(read(&cluster, node, MODULE), text);
        let script = fs::metadata(path(&cluster, node, "modules/ledger/run.sh")).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&script.permissions()) & 0o777, 0o755);
        assert!(cluster.daemon(node).is_alive(), "it started anew in its own process");
        assert!(reasons(&cluster, node).is_empty(), "{:?}", reasons(&cluster, node));
    }
    cluster.progress(&workload);
    assert_eq!((cluster.primary(), program(&cluster, primary)), (primary, pid.clone()));
    cluster.until("the new check is up", PATIENCE, || {
        let status = cluster.module_status(primary).unwrap_or_default();
        status["checks"]["port"]["state"] == "up"
    });
    contains_all(&cluster.must(two, &["apply"]), &["nothing is to be applied"]);

    contains_all(&cluster.must(two, &["rollback"]), &["configuration 2 is in use"]);
    for node in NODES {
        assert_eq!(read(&cluster, node, MODULE), cluster.application.configuration);
        assert!(!path(&cluster, node, "modules/ledger/run.sh").exists());
    }
    let history = cluster.must(one, &["config", "history"]);
    contains_all(&history, &["node2  rollback to 0", "node1  applied", "failover.timeout"]);
    contains_all(&cluster.must(one, &["config", "show", "1", MODULE]), &["timeout = \"3s\""]);
    cluster.progress(&workload);
    assert_eq!((cluster.primary(), program(&cluster, primary)), (primary, pid));
    cluster.wait_for(one, "protected", SYNC_PATIENCE);
    stop_and_leave_nothing(&cluster);
}

#[test]
fn what_a_node_cannot_use_changes_nothing_and_what_must_stop_is_said() {
    let cluster = Cluster::protected(ledger(""));
    let [one, two] = NODES;
    let before = NODES.map(|node| read(&cluster, node, MODULE));
    edit(&cluster, one, "[replication]\nak = \"fsync\"\n");
    contains_all(&ends(&cluster, one, &["apply"], 2), &[MODULE, "unknown key `ak`", "`ack`"]);
    write(&cluster, one, MODULE, &before[0]);

    // A directory that only one node has.
    let other = "module = \"other\"\nkind = \"mirror\"\nreplicate = [\"/srv/other\"]\n";
    write(&cluster, one, "modules/other.toml", other);
    succeed(&cluster.host(one), &["mkdir", "/srv/other"]);
    let refused = ends(&cluster, one, &["apply"], 4);
    contains_all(&refused, &["node2 refuses", "other.toml:3", "/srv/other does not exist on this"]);
    contains_all(&ends(&cluster, one, &["plan"], 4), &["✔ node1 agrees", "✖ node2 refuses"]);
    assert!(!path(&cluster, two, "modules/other.toml").exists());
    assert_eq!(NODES.map(|node| number(&cluster, node)), [Some(0); 2]);
    for node in NODES {
        let pending = format!("{ROOT}/var/lib/evenkeel/configurations/pending.json");
        assert!(!cluster.host(node).path(pending).unwrap().exists(), "{node} is bound to nothing");
    }

    // A module comes, runs beside the other one, is stopped, and goes.
    succeed(&cluster.host(two), &["mkdir", "/srv/other"]);
    cluster.must(one, &["apply"]);
    cluster.must(two, &["start", "other"]);
    cluster.must(one, &["wait", "other", "--for", "protected"]);
    fs::remove_file(path(&cluster, two, "modules/other.toml")).unwrap();
    contains_all(&ends(&cluster, two, &["apply"], 4), &["module other runs on node1"]);
    cluster.must(one, &["stop", "other"]);
    cluster.must(one, &["wait", "other", "--for", "stopped"]);
    cluster.must(two, &["apply"]);
    assert!(!path(&cluster, one, "modules/other.toml").exists());
    assert!(cluster.status(one).unwrap()["modules"].get("other").is_none());
    cluster.wait_for(one, "protected", SYNC_PATIENCE);

    // What a replicator was told at its start.
    edit(&cluster, two, "[replication]\nack = \"fsync\"\n");
    let refused = ends(&cluster, two, &["apply"], 4);
    contains_all(&refused, &["module ledger runs on node1", "evenkeel stop ledger"]);
    contains_all(&ends(&cluster, two, &["plan"], 4), &["stopped meanwhile: ledger"]);
    let said = cluster.must(two, &["apply", "--restart-modules"]);
    contains_all(&said, &["configuration 3 is in use"]);
    cluster.wait_for(one, "protected", SYNC_PATIENCE);
    cluster.stop_and_compare();
}

/// A configuration like the present one of all nodes, as node1 would propose it.
fn proposal(cluster: &Cluster, id: &str, number: u64) -> Proposal {
    let content = |text: String| Content { text, executable: false };
    let mut files = Files::default();
    for file in ["cluster.toml", MODULE] {
        files.0.insert(file.to_owned(), content(read(cluster, NODES[0], file)));
    }
    let (base, digest) = (files.digests(), files.digest());
    let text = files.0.get_mut(MODULE).unwrap();
    text.text += &format!("[failover]\nmax_restarts = {number}\n");
    let from = NodeName::new(NODES[0]).unwrap();
    let origin = Origin::Applied;
    let version = Version { number, at_ms: 1, from, origin, files };
    let follows = Stand { number: number - 1, digest };
    let (id, without, overwrite) = (id.to_owned(), Vec::new(), false);
    Proposal { id, version, base, follows, without, overwrite }
}

fn say(cluster: &Cluster, node: &str, said: Configuring) -> Reply {
    let reply = ask(&cluster.host(node), Verb::Configuration { ask: said }).unwrap();
    assert_eq!(reply.outcome, Exit::Done, "{node}: {}", reply.sentence);
    reply
}

#[test]
fn a_coordinator_that_dies_leaves_all_nodes_with_the_same() {
    let cluster = Cluster::protected(ledger(""));
    let [one, two] = NODES;
    // It dies when all have agreed, before it has decided. A node says what a coordinator says.
    let proposed = proposal(&cluster, "first", 1);
    for node in NODES {
        let proposal = Box::new(proposed.clone());
        say(&cluster, node, Configuring::Prepare { proposal, dry_run: false });
    }
    // While it lives it is deciding, as far as node2 can know, and nobody else may.
    contains_all(&ends(&cluster, two, &["apply", "--overwrite"], 4), &["just being applied"]);
    kill_daemon(&cluster, one);
    until_reason(&cluster, two, "config-undecided");
    cluster.start_daemon(one);
    cluster.until("node2 is free again", PATIENCE, || reasons(&cluster, two).is_empty());
    assert_eq!(NODES.map(|node| number(&cluster, node)), [Some(0); 2]);

    // It dies right after its decision.
    let proposed = proposal(&cluster, "second", 1);
    let stand = proposed.version.stand();
    for node in NODES {
        let proposal = Box::new(proposed.clone());
        say(&cluster, node, Configuring::Prepare { proposal, dry_run: false });
    }
    // The other one hears nothing of it: it stands still until the first one is dead.
    cluster.daemon(two).kill(19).unwrap();
    say(&cluster, one, Configuring::Commit { id: "second".to_owned(), stand });
    kill_daemon(&cluster, one);
    cluster.daemon(two).kill(18).unwrap();
    until_reason(&cluster, two, "config-undecided");
    assert_eq!(number(&cluster, two), Some(0));
    cluster.start_daemon(one);
    for node in NODES {
        until_number(&cluster, node, 1);
        contains_all(&read(&cluster, node, MODULE), &["max_restarts = 1"]);
        cluster.until("nothing is left over", PATIENCE, || reasons(&cluster, node).is_empty());
    }
    cluster.wait_for(one, "protected", SYNC_PATIENCE);
}

#[test]
fn a_node_that_was_away_catches_up_and_edits_are_never_lost() {
    let cluster = Cluster::protected(ledger(""));
    let [one, two] = NODES;
    edit(&cluster, one, "# once\n");
    cluster.must(one, &["apply"]);
    kill_daemon(&cluster, two);
    edit(&cluster, one, "[failover]\nmax_restarts = 1\n");
    contains_all(&ends(&cluster, one, &["apply"], 5), &["node2", "evenkeel apply --without node2"]);
    contains_all(&cluster.must(one, &["apply", "--without", two]), &["node2 takes it when it is"]);
    // Meanwhile somebody edits another file there.
    write(&cluster, two, "modules/ledger/notes", "mine\n");
    cluster.start_daemon(two);
    until_number(&cluster, two, 2);
    assert_eq!(read(&cluster, two, MODULE), read(&cluster, one, MODULE));
    until_reason(&cluster, two, "config-edited");
    cluster.wait_for(one, "protected", SYNC_PATIENCE);

    // An edit on node2 stands in the way of node1's, until it is said that it does not count.
    edit(&cluster, two, "# theirs\n");
    let text = edit(&cluster, one, "restart_window = \"1h\"\n");
    let refused = ends(&cluster, one, &["apply"], 4);
    contains_all(
        &refused,
        &["edited on node2, and not applied: modules/ledger.toml", "--overwrite"],
    );
    assert_eq!(number(&cluster, one), Some(2));
    cluster.must(one, &["apply", "--overwrite"]);
    assert_eq!(NODES.map(|node| read(&cluster, node, MODULE)), [text.clone(), text]);
    assert!(!path(&cluster, two, "modules/ledger/notes").exists());
    let history = cluster.must(two, &["config", "history"]);
    let kept = history.split_whitespace().find(|word| word.starts_with("kept-")).unwrap();
    let shown = cluster.must(two, &["config", "show", kept]);
    contains_all(&shown, &["# theirs", "modules/ledger/notes\nmine"]);

    // What was not applied is not in use either, whatever is wrong with it.
    edit(&cluster, two, "nonsense\n");
    kill_daemon(&cluster, two);
    cluster.start_daemon(two);
    until_reason(&cluster, two, "config-edited");
    assert_eq!(number(&cluster, two), Some(3));
    ends(&cluster, two, &["rollback", "2"], 4);
    cluster.must(two, &["rollback", "2", "--overwrite"]);
    assert_eq!(NODES.map(|node| number(&cluster, node)), [Some(4); 2]);
    contains_all(&read(&cluster, one, MODULE), &["max_restarts = 1"]);
    cluster.wait_for(one, "protected", SYNC_PATIENCE);
}

#[test]
fn a_daemon_that_dies_in_an_apply_at_any_moment_leaves_both_with_the_same() {
    let cluster = Cluster::protected(ledger(""));
    let workload = cluster.workload(1);
    let pid = program(&cluster, cluster.primary());
    let [one, two] = NODES;
    let mut random = Random::from_environment();
    // Before the first one is applied, a daemon that starts anew takes its own files as they are.
    edit(&cluster, one, "# 0\n");
    cluster.must(one, &["apply"]);
    for round in 1..=8 {
        let victim = NODES[usize::from(random.below(2) == 0)];
        edit(&cluster, one, &format!("# {round}\n"));
        let words = [INSIDE, "--root", ROOT, "apply"];
        let applying = cluster.host(one).spawn(SpawnSpec::new(words).log("apply.log")).unwrap();
        random.moment(Duration::from_millis(120));
        kill_daemon(&cluster, victim);
        cluster.start_daemon(victim);
        applying.wait().unwrap();
        cluster.until("both have the same, and nothing is open", PATIENCE, || {
            let numbers = NODES.map(|node| number(&cluster, node));
            let open = NODES.iter().flat_map(|node| reasons(&cluster, node));
            let open = open.filter(|code| code != "config-edited").count();
            numbers[0].is_some() && numbers[0] == numbers[1] && open == 0
        });
    }
    cluster.must(one, &["apply"]);
    assert_eq!(read(&cluster, one, MODULE), read(&cluster, two, MODULE));
    for node in NODES {
        assert!(reasons(&cluster, node).is_empty(), "{:?}", reasons(&cluster, node));
    }
    cluster.progress(&workload);
    assert_eq!(program(&cluster, cluster.primary()), pid, "the application noticed nothing");
    cluster.wait_for(one, "protected", SYNC_PATIENCE);
}

#[test]
fn of_two_who_apply_at_once_one_goes_on() {
    let cluster = Cluster::protected(ledger(""));
    for round in 1..=4 {
        let before = number(&cluster, NODES[0]);
        // Each changes another thing, so that one of them cannot be right for both.
        for node in NODES {
            edit(&cluster, node, &format!("# {round} of {node}\n"));
        }
        let applying = NODES.map(|node| {
            let words = [INSIDE, "--root", ROOT, "apply", "--overwrite"];
            cluster.host(node).spawn(SpawnSpec::new(words).log("apply.log")).unwrap()
        });
        let ended = applying.map(|process| format!("{:?}", process.wait().unwrap()));
        cluster.until("both have the same", PATIENCE, || {
            let [first, second] = NODES.map(|node| number(&cluster, node));
            first.is_some() && first == second && first > before
        });
        let [first, second] = NODES.map(|node| read(&cluster, node, MODULE));
        assert_eq!(first, second, "{ended:?}");
        for node in NODES {
            cluster.until("nothing is left over", PATIENCE, || reasons(&cluster, node).is_empty());
        }
    }
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
}

#[test]
fn files_of_nodes_that_began_with_others_are_brought_together_by_the_first_apply() {
    let cluster = Cluster::build(ledger(""));
    let [one, two] = NODES;
    // Who does not know of `apply` yet edits a file and starts the daemon anew.
    let restart = |node: &str| {
        kill_daemon(&cluster, node);
        cluster.start_daemon(node);
    };
    let light = "module = \"gate\"\nkind = \"light\"\nnodes = [\"node1\"]\n[[command]]\nname = \
                 \"gate\"\nrun = [\"/bin/sleep\", \"100000\"]\n";
    write(&cluster, one, "modules/gate.toml", light);
    restart(one);
    cluster.until("the nodes hear each other", PATIENCE, || {
        cluster.must(one, &["plan"]).contains("node2 found other files at its start")
    });
    contains_all(&cluster.must(one, &["apply"]), &["configuration 1 is in use"]);
    for node in NODES {
        assert_eq!(number(&cluster, node), Some(1));
        assert_eq!(read(&cluster, node, "modules/gate.toml"), light);
    }
    contains_all(&cluster.must(two, &["apply"]), &["nothing is to be applied"]);
}

#[test]
fn of_files_that_differ_at_the_first_apply_none_is_lost() {
    let cluster = Cluster::build(ledger(""));
    let [one, two] = NODES;
    for (node, timeout) in [(one, "3s"), (two, "4s")] {
        edit(&cluster, node, &format!("[failover]\ntimeout = \"{timeout}\"\n"));
        kill_daemon(&cluster, node);
        cluster.start_daemon(node);
    }
    cluster.until("the nodes hear each other", PATIENCE, || {
        cluster.command(one, &["plan"]).status.code() == Some(4)
    });
    let said = ends(&cluster, one, &["apply"], 4);
    contains_all(&said, &["edited on node2, and not applied: modules/ledger.toml", "--overwrite"]);
    let text = read(&cluster, two, MODULE);
    assert!(text.contains("4s"), "nothing is changed");
    cluster.must(one, &["apply", "--overwrite"]);
    assert!(read(&cluster, two, MODULE).contains("3s"));
    contains_all(&cluster.must(two, &["config", "show", "0", MODULE]), &["4s"]);
}
