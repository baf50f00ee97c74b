//! Checks and recovery with real processes: an application that dies, does not start, does not
//! answer, or lacks something, and what the cluster does about it, with the facts shown. The rules
//! are told by the scenarios, each kind of check is tested with the node.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;

use lab::{Process, SpawnSpec};

use self::support::applications::{ledger, succeed};
use self::support::{
    CLIENT, Cluster, INSIDE, NETWORK, NODES, PATIENCE, ROOT, SYNC_PATIENCE, UNIT, other,
};

/// Kills the application's program.
fn kill_program(cluster: &Cluster, node: &str) {
    let host = cluster.host(node);
    let noted = host.read_file(format!("{ROOT}/run/evenkeel/ledger.programs.json")).unwrap();
    let noted: serde_json::Value = serde_json::from_str(&noted).unwrap();
    let pid = noted[0]["pid"].to_string();
    succeed(&host, &["kill", "-9", &pid]);
}

fn why(cluster: &Cluster, node: &str) -> String {
    cluster.must(node, &["why", cluster.module()])
}

fn contains_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in:\n{text}");
    }
}

fn has_reason(cluster: &Cluster, node: &str, code: &str) -> bool {
    let status = cluster.module_status(node).unwrap_or_default();
    status["reasons"].as_array().into_iter().flatten().any(|reason| reason["code"] == code)
}

/// Waits until the node has restarted the application so often, and it runs.
fn restarted(cluster: &Cluster, node: &str, times: usize) {
    cluster.until(&format!("restart {times} on {node}"), PATIENCE, || {
        let status = cluster.module_status(node).unwrap_or_default();
        let told = status["reasons"].as_array().into_iter().flatten().any(|reason| {
            let sentence = reason["sentence"].as_str().unwrap_or_default();
            sentence.contains(&format!("restarted {times} of"))
        });
        told && status["checks"]["ledger"]["state"] == "up"
    });
}

#[test]
fn a_program_that_dies_is_restarted_in_place_and_then_left_to_the_peer() {
    let cluster = Cluster::protected(ledger("[failover]\nmax_restarts = 2\n"));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let epoch = |node: &str| cluster.module_status(node).unwrap()["epoch"].clone();
    let before = epoch(primary);

    kill_program(&cluster, primary);
    restarted(&cluster, primary, 1);
    cluster.progress(&workload);
    assert_eq!((cluster.primary(), epoch(primary)), (primary, before), "nothing else changes");
    contains_all(&why(&cluster, primary), &["restarted 1 of 2 times", "signal: 9 (SIGKILL)"]);

    // The daemon that follows knows the program and the count.
    cluster.daemon(primary).kill(15).unwrap();
    cluster.daemon(primary).wait().unwrap();
    cluster.start_daemon(primary);
    kill_program(&cluster, primary);
    restarted(&cluster, primary, 2);
    cluster.progress(&workload);
    assert_eq!(cluster.primary(), primary);

    kill_program(&cluster, primary);
    let survivor = other(primary);
    cluster.until("the peer takes over", PATIENCE, || cluster.serves(survivor));
    cluster.progress(&workload);
    cluster.wait_for_role(primary, &["SECOND"]);
    let shown = why(&cluster, primary);
    contains_all(&shown, &["[failed-over,", "signal: 9 (SIGKILL)", "evenkeel start ledger --node"]);
    assert!(has_reason(&cluster, survivor, "peer-hindered"));
    let paused = cluster.must(primary, &["checks", "ledger"]);
    contains_all(&paused, &["check ledger", "paused"]);

    cluster.must(primary, &["start", "ledger", "--node", primary]);
    cluster.wait_for(survivor, "protected", PATIENCE);
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.stop_and_compare();
}

#[test]
fn a_start_ends_what_an_interrupted_stop_has_left() {
    // It notes itself and does not end when it is asked to.
    let script = format!("trap '' TERM; echo $$ >> {ROOT}/instances; while :; do sleep 1; done");
    let command = format!(
        "[[command]]\nname = \"stubborn\"\nstop_timeout = \"1h\"\n\
         run = [\"/bin/sh\", \"-c\", \"{script}\"]\n"
    );
    let cluster = Cluster::protected(ledger(&command));
    let primary = cluster.primary();
    let host = cluster.host(primary);
    let instances = || -> Vec<String> {
        let noted = host.read_file(format!("{ROOT}/instances")).unwrap_or_default();
        noted.lines().map(str::to_owned).collect()
    };
    let lives = |pid: &String| host.run(["kill", "-0", pid]).unwrap().status.success();
    cluster.until("the first one", PATIENCE, || instances().len() == 1);

    // What died is to be restarted; the stop before that waits for the stubborn one.
    kill_program(&cluster, primary);
    let running = format!("{ROOT}/run/evenkeel/ledger.running.json");
    cluster.until("a stop", PATIENCE, || {
        host.read_file(&running).is_ok_and(|text| text.contains("\"service\": false"))
    });
    cluster.daemon(primary).kill(9).unwrap();
    cluster.daemon(primary).wait().unwrap();
    assert!(lives(&instances()[0]), "the stop goes on for an hour");
    cluster.start_daemon(primary);
    cluster.until("the second one", PATIENCE, || instances().len() == 2);
    cluster.wait_for(primary, "protected", PATIENCE);
    cluster.until("only the second one lives", PATIENCE, || {
        instances().iter().map(lives).collect::<Vec<bool>>() == [false, true]
    });
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    assert_eq!(cluster.primary(), primary);
}

#[test]
fn an_application_of_units_alone_is_found_by_the_daemon_that_follows() {
    let mut application = ledger("").below_systemd();
    let (head, _) = application.configuration.split_once("[[command]]").unwrap();
    let started = format!("{ROOT}/started");
    let services = "services = [\"ledger.service\"]\n[[vip]]";
    let scripts = format!("[scripts]\nstart = \"echo once >> {started}\"\n");
    application.configuration = head.replace("[[vip]]", services) + &scripts;
    let unit =
        format!("[Service]\nExecStart={INSIDE} ledger --data /srv/ledger --listen 0.0.0.0:7000\n");
    let cluster = Cluster::build_with(application, |hosts| {
        for node in NODES {
            let place = "/etc/systemd/system/ledger.service";
            hosts.host(node).write_file(place, &unit).unwrap();
        }
    });
    cluster.must(NODES[0], &["start", "ledger"]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let host = cluster.host(primary);
    let main = || succeed(&host, &["systemctl", "show", "-P", "MainPID", "ledger.service"]);
    let before = main();
    let daemon = || succeed(&host, &["systemctl", "show", "-P", "MainPID", UNIT]);
    let former = daemon();
    succeed(&host, &["systemctl", "kill", "--signal=KILL", "--kill-who=main", UNIT]);
    cluster.until("another daemon", PATIENCE, || {
        daemon() != former && cluster.module_status(primary).is_some()
    });
    cluster.wait_for(primary, "protected", PATIENCE);
    cluster.progress(&workload);
    assert_eq!((cluster.primary(), main()), (primary, before));
    assert_eq!(host.read_file(&started).unwrap(), "once\n", "it was not started again");
    // Its death is noticed by that daemon too.
    succeed(&host, &["systemctl", "kill", "--signal=KILL", "ledger.service"]);
    cluster.until("a restart", PATIENCE, || {
        host.read_file(&started).is_ok_and(|text| text == "once\nonce\n")
    });
    cluster.progress(&workload);
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.stop_and_compare();
}

#[test]
fn an_application_that_starts_nowhere_is_tried_on_both_nodes_and_then_stopped() {
    let script =
        format!("[scripts]\nstart = \"test -e {ROOT}/fit || {{ echo no licence; exit 3; }}\"\n");
    let cluster = Cluster::build(ledger(&(script + "[failover]\nmax_restarts = 1\n")));
    cluster.command(NODES[0], &["start", "ledger"]);
    cluster.until("both give up", SYNC_PATIENCE, || {
        NODES
            .iter()
            .any(|node| has_reason(&cluster, node, "gave-up") && cluster.role(node) == "STOP")
    });
    let stopped = *NODES.iter().find(|node| cluster.role(node) == "STOP").unwrap();
    contains_all(
        &why(&cluster, stopped),
        &["exit status: 3", "it said: no licence", "evenkeel start ledger"],
    );
    for node in NODES {
        cluster.hosts.write(node, "fit", "");
    }
    cluster.must(NODES[0], &["start", "ledger"]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    assert!(!NODES.iter().any(|node| has_reason(&cluster, node, "gave-up")));
    cluster.stop_and_compare();
}

#[test]
fn a_program_that_looks_after_the_application_moves_it() {
    let check = format!(
        "[[check]]\nkind = \"exec\"\nname = \"health\"\naction = \"failover\"\n\
         interval = \"200ms\"\n\
         run = [\"/bin/sh\", \"-c\", \"test ! -e {ROOT}/sick || {{ echo feverish; exit 7; }}\"]\n"
    );
    let cluster = Cluster::protected(ledger(&check));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    cluster.hosts.write(primary, "sick", "");
    let survivor = other(primary);
    cluster.until("the peer takes over", PATIENCE, || cluster.serves(survivor));
    cluster.progress(&workload);
    contains_all(
        &why(&cluster, primary),
        &["check health is down", "exit status: 7", "it said: feverish"],
    );
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.stop_and_compare();
}

#[test]
fn an_application_waits_for_what_it_needs_and_starts_by_itself() {
    let cluster = Cluster::build_with(ledger(""), |hosts| {
        let address = hosts.host(CLIENT).address(NETWORK).unwrap();
        let check = format!(
            "[[check]]\nkind = \"tcp\"\nname = \"directory\"\naddress = \"{address}\"\n\
             port = 9000\n\
             action = \"wait\"\ninterval = \"200ms\"\ntimeout = \"1s\"\n"
        );
        let path = format!("{ROOT}/etc/evenkeel/modules/ledger.toml");
        for node in NODES {
            let text = hosts.host(node).read_file(&path).unwrap();
            hosts.host(node).write_file(&path, text + &check).unwrap();
        }
    });
    let needed = serve_directory(&cluster);
    cluster.must(NODES[0], &["start", "ledger"]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);

    needed.kill(9).unwrap();
    cluster.until("both wait", PATIENCE, || {
        NODES.iter().all(|node| cluster.role(node) == "WAIT")
            && NODES.iter().all(|node| has_reason(&cluster, node, "check-waits"))
    });
    for node in NODES {
        contains_all(&why(&cluster, node), &["directory", "refused"]);
        assert!(!cluster.holds_address(node));
    }
    let _needed = serve_directory(&cluster);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    assert!(!NODES.iter().any(|node| has_reason(&cluster, node, "check-waits")));
    cluster.stop_and_compare();
}

/// Something that listens, on the client's host.
fn serve_directory(cluster: &Cluster) -> Process {
    let host = cluster.host(CLIENT);
    fs::create_dir_all(host.path("/tmp/directory").unwrap()).unwrap();
    let argv = [INSIDE, "ledger", "--data", "/tmp/directory", "--listen", "0.0.0.0:9000"];
    host.spawn(SpawnSpec::new(argv).log("directory.log")).unwrap()
}
