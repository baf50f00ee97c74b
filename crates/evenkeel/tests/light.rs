//! Light modules with real processes: on two nodes beside a mirror, and with an address on one of
//! them; they outlive their daemon, are restarted, and come back after a loss of power. The rules
//! are told by the scenarios.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use lab::SpawnSpec;
use serde_json::Value;

use self::support::applications::{ledger, succeed};
use self::support::{Cluster, INSIDE, NODES, PATIENCE, ROOT};

/// A light module of this name on these nodes; its program listens on this port.
fn light(name: &str, nodes: &str, port: u16, more: &str) -> String {
    format!(
        "module = \"{name}\"\nkind = \"light\"\nnodes = [{nodes}]\n[[command]]\nname = \
         \"{name}\"\nrun = [\"{INSIDE}\", \"ledger\", \"--data\", \"/tmp\", \"--listen\", \
         \"0.0.0.0:{port}\"]\n[[check]]\nkind = \"tcp\"\nname = \"port\"\nport = {port}\n{more}"
    )
}

fn write(cluster: &Cluster, node: &str, name: &str, text: &str) {
    cluster.hosts.write(node, &format!("etc/evenkeel/modules/{name}.toml"), text);
}

fn status(cluster: &Cluster, node: &str, name: &str) -> Value {
    cluster.status(node).unwrap_or_default()["modules"][name].clone()
}

/// Waits until the node shows the module in this role, entirely.
fn until_role(cluster: &Cluster, node: &str, name: &str, role: &str) {
    cluster.until(&format!("{name} is {role} on {node}"), PATIENCE, || {
        let status = status(cluster, node, name);
        status["role"] == role && status["phase"] == "ready"
    });
}

fn until_checked(cluster: &Cluster, node: &str, name: &str) {
    cluster.until(&format!("the port of {name} on {node} answers"), PATIENCE, || {
        status(cluster, node, name)["checks"]["port"]["state"] == "up"
    });
}

/// The module's program, which has to run.
fn program(cluster: &Cluster, node: &str, name: &str) -> String {
    let noted = format!("{ROOT}/run/evenkeel/{name}.programs.json");
    let noted: Value = serde_json::from_str(&cluster.host(node).read_file(noted).unwrap()).unwrap();
    let pid = noted[0]["pid"].to_string();
    succeed(&cluster.host(node), &["kill", "-0", &pid]);
    pid
}

fn kill_program(cluster: &Cluster, node: &str, name: &str) {
    let pid = program(cluster, node, name);
    succeed(&cluster.host(node), &["kill", "-9", &pid]);
}

fn kill_daemon(cluster: &Cluster, node: &str) {
    cluster.daemon(node).kill(9).unwrap();
    cluster.daemon(node).wait().unwrap();
}

fn has_reason(cluster: &Cluster, node: &str, name: &str, code: &str) -> bool {
    let status = status(cluster, node, name);
    status["reasons"].as_array().into_iter().flatten().any(|reason| reason["code"] == code)
}

fn holds(cluster: &Cluster, node: &str, number: usize) -> bool {
    let address = lab::virtual_address(0, number);
    cluster.host(node).addresses().unwrap_or_default().contains(&address)
}

fn refused(cluster: &Cluster, node: &str, words: &[&str], said: &[&str]) {
    let output = cluster.command(node, words);
    assert!(!output.status.success(), "{words:?} succeeds");
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    for word in said {
        assert!(told.contains(word), "`{word}` is missing in: {told}");
    }
}

#[test]
fn a_light_module_comes_runs_and_goes_while_a_mirror_serves() {
    let cluster = Cluster::protected(ledger(""));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let [one, two] = NODES;
    assert_eq!(cluster.primary(), one);
    write(&cluster, one, "web", &light("web", "\"node1\", \"node2\"", 7010, ""));
    assert!(cluster.must(one, &["plan"]).contains("module web"));
    cluster.must(one, &["apply"]);
    for node in NODES {
        until_role(&cluster, node, "web", "STOP");
    }
    cluster.must(two, &["start", "web"]);
    for node in NODES {
        until_role(&cluster, node, "web", "UP");
        until_checked(&cluster, node, "web");
        cluster.must(node, &["wait", "web", "--for", "serving"]);
        assert_eq!(status(&cluster, node, "web")["headline"], "runs");
        let entries = cluster.host(node).path(format!("{ROOT}/run/evenkeel")).unwrap();
        let socket = entries.join("web.replicator.sock");
        assert!(!socket.exists(), "nothing replicates it");
    }
    refused(&cluster, one, &["switchover", "web"], &["no node is primary of web"]);
    let force = ["force-primary", "web", "--node", one];
    refused(&cluster, one, &force, &["a light module", "no primary"]);
    refused(&cluster, one, &["wait", "web", "--for", "protected"], &["no other node takes over"]);
    assert!(cluster.must(one, &["status"]).contains("web        light"));

    // It dies on one node, and nothing happens on the other.
    let before = program(&cluster, two, "web");
    kill_program(&cluster, one, "web");
    cluster.until("it is restarted", PATIENCE, || has_reason(&cluster, one, "web", "restarted"));
    until_checked(&cluster, one, "web");
    assert!(cluster.must(one, &["why", "web"]).contains("restarted 1 of 3 times"));
    assert_eq!(program(&cluster, two, "web"), before);
    assert!(!has_reason(&cluster, two, "web", "restarted"));

    // A machine that comes back starts it, whatever becomes of the mirror.
    cluster.lab().power(two).unwrap();
    cluster.boot_node(two);
    until_role(&cluster, two, "web", "UP");
    until_checked(&cluster, two, "web");

    // It has to be stopped before it can go.
    cluster.host(one).run(["rm", &format!("{ROOT}/etc/evenkeel/modules/web.toml")]).unwrap();
    refused(&cluster, one, &["apply"], &["web"]);
    until_role(&cluster, one, "web", "UP");
    cluster.must(one, &["stop", "web"]);
    cluster.must(one, &["apply"]);
    cluster.until("it is gone", PATIENCE, || {
        let gone = |node| cluster.status(node).is_some_and(|all| all["modules"]["web"].is_null());
        NODES.into_iter().all(gone)
    });
    cluster.progress(&workload);
    cluster.wait_for(one, "protected", support::SYNC_PATIENCE);
    assert_eq!(cluster.primary(), one, "what becomes of a light module moves no mirror");
}

#[test]
fn a_light_module_outlives_its_daemon_and_keeps_its_address() {
    let vip = format!("[[vip]]\naddress = \"{}/{}\"\n", lab::virtual_address(0, 1), lab::PREFIX);
    let cluster = Cluster::build_with(ledger(""), |hosts| {
        for node in NODES {
            let text = light("gate", "\"node1\"", 7011, &vip);
            hosts.write(node, "etc/evenkeel/modules/gate.toml", &text);
        }
    });
    let [one, two] = NODES;
    // The other node knows of it, and can be told what is wanted of it.
    assert!(status(&cluster, two, "gate").is_null());
    cluster.must(two, &["start", "gate"]);
    until_checked(&cluster, one, "gate");
    assert!(holds(&cluster, one, 1) && !holds(&cluster, two, 1));
    refused(&cluster, two, &["start", "gate", "--node", two], &["has no node"]);
    refused(&cluster, two, &["wait", "gate", "--for", "serving"], &["is not run on node2"]);

    let pid = program(&cluster, one, "gate");
    kill_daemon(&cluster, one);
    assert!(holds(&cluster, one, 1), "the address stays");
    cluster.start_daemon(one);
    until_role(&cluster, one, "gate", "UP");
    until_checked(&cluster, one, "gate");
    assert_eq!(program(&cluster, one, "gate"), pid, "the same program goes on");
    assert!(!has_reason(&cluster, one, "gate", "restarted"));

    // It dies while no daemon sees it.
    kill_daemon(&cluster, one);
    succeed(&cluster.host(one), &["kill", "-9", &pid]);
    cluster.start_daemon(one);
    until_checked(&cluster, one, "gate");
    assert_ne!(program(&cluster, one, "gate"), pid);
    assert!(holds(&cluster, one, 1));

    cluster.must(one, &["pause", "gate"]);
    cluster.must(one, &["maintenance", "on", one]);
    for code in ["paused", "maintenance"] {
        assert!(has_reason(&cluster, one, "gate", code), "{code}");
    }
    assert_eq!(status(&cluster, one, "gate")["headline"], "at-risk");
    cluster.must(one, &["resume", "gate"]);
    cluster.must(one, &["maintenance", "off", one]);

    // Stopped it stays, also across a daemon.
    let pid = program(&cluster, one, "gate");
    cluster.must(two, &["stop", "gate"]);
    until_role(&cluster, one, "gate", "STOP");
    assert!(!holds(&cluster, one, 1));
    let ended = !cluster.host(one).run(["kill", "-0", &pid]).unwrap().status.success();
    assert!(ended, "the program is gone");
    kill_daemon(&cluster, one);
    cluster.start_daemon(one);
    until_role(&cluster, one, "gate", "STOP");
    assert!(!holds(&cluster, one, 1));
}

#[test]
fn a_start_that_was_under_way_as_the_daemon_died_begins_anew() {
    const SCRIPTS: &str = "[scripts]\nstart = \"echo begun >>/tmp/starts; while [ ! -e /tmp/go ]; \
                           do sleep 0.1; done; echo done >>/tmp/starts\"\n";
    let cluster = Cluster::build_with(ledger(""), |hosts| {
        for node in NODES {
            let text = light("gate", "\"node1\"", 7012, SCRIPTS);
            hosts.write(node, "etc/evenkeel/modules/gate.toml", &text);
        }
    });
    let [one, _] = NODES;
    let host = cluster.host(one);
    let lines = || {
        let output = host.run(["cat", "/tmp/starts"]).unwrap().stdout;
        String::from_utf8(output).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    host.spawn(SpawnSpec::new([INSIDE, "--root", ROOT, "start", "gate"]).log("start.log")).unwrap();
    cluster.until("the start is under way", PATIENCE, || lines() == ["begun"]);
    let pid = program(&cluster, one, "gate");
    kill_daemon(&cluster, one);
    cluster.start_daemon(one);
    cluster.until("it begins anew", PATIENCE, || lines() == ["begun", "begun"]);
    cluster.until("what had begun is ended", PATIENCE, || {
        !host.run(["kill", "-0", &pid]).unwrap().status.success()
    });
    succeed(&host, &["touch", "/tmp/go"]);
    until_role(&cluster, one, "gate", "UP");
    until_checked(&cluster, one, "gate");
    assert_eq!(lines(), ["begun", "begun", "done"], "the first start did not go on");

    // Once it has ended, the next daemon takes it over as it is.
    let pid = program(&cluster, one, "gate");
    kill_daemon(&cluster, one);
    cluster.start_daemon(one);
    until_role(&cluster, one, "gate", "UP");
    assert_eq!(program(&cluster, one, "gate"), pid);
    assert_eq!(lines().len(), 3);
}
