//! The command line itself: its verbs, its JSON, its exit codes. What the verbs do to a cluster is
//! tested elsewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use serde_json::Value;

use self::support::applications::ledger;
use self::support::{Cluster, NODES, run};

#[test]
fn the_help_lists_every_verb() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    let verbs = [
        "demo",
        "status",
        "why",
        "checks",
        "events",
        "start",
        "stop",
        "switchover",
        "force-primary",
        "wait",
        "init",
        "token",
        "join",
        "leave",
        "rotate-key",
        "check",
        "mount",
        "lab",
        "daemon",
        "witness",
    ];
    for verb in verbs {
        let listed = help.lines().any(|line| line.split_whitespace().next() == Some(verb));
        assert!(listed, "{verb} is not in the help:\n{help}");
        let output = run(&[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{verb} --help");
    }
}

#[test]
fn wrong_words_are_usage_errors() {
    for words in [&["no-such-verb"][..], &["start"], &["wait", "x", "--timeout", "5"], &[]] {
        assert_eq!(run(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn without_a_daemon_the_answer_is_unreachable() {
    let root = std::env::temp_dir().join(format!("evenkeel-none-{}", std::process::id()));
    let root = root.to_str().unwrap();
    for verb in [&["status"][..], &["start", "shop"], &["stop", "shop"], &["wait", "shop"]] {
        let output = run(&[&["--root", root][..], verb].concat());
        assert_eq!(output.status.code(), Some(5), "{verb:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("control.sock") && said.contains("daemon"), "{said}");
        let output = run(&[&["--json", "--root", root][..], verb].concat());
        let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(reply["outcome"], "unreachable", "{verb:?}");
    }
}

#[test]
fn a_cluster_answers_in_json_and_with_the_frozen_exit_codes() {
    let cluster = Cluster::build(ledger(""));
    let code = |words: &[&str]| cluster.command(NODES[0], words).status.code();
    let json = |words: &[&str]| -> Value {
        let output = cluster.command(NODES[0], &[&["--json"], words].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for verb in ["status", "why", "checks", "start", "stop", "switchover", "wait"] {
        assert_eq!(code(&[verb, "nothing"]), Some(2), "{verb} of an unknown module");
    }
    assert_eq!(code(&["start", "ledger", "--node", "node7"]), Some(2));
    assert_eq!(code(&["switchover", "ledger"]), Some(4), "without a primary");
    let timeout = ["wait", "ledger", "--for", "protected", "--timeout", "1ms"];
    assert_eq!(code(&timeout), Some(3));
    assert_eq!(json(&["status"])["data"]["modules"]["ledger"]["role"], "STOP");

    cluster.must(NODES[0], &["start", "ledger"]);
    cluster.must(NODES[0], &["wait", "ledger"]);
    let status = json(&["status"]);
    assert_eq!(status["schema"], 1);
    assert_eq!(status["outcome"], "done");
    assert_eq!(status["data"]["modules"]["ledger"]["headline"], "protected");
    let checks = json(&["checks"]);
    assert_eq!(checks["data"]["checks"]["ledger"]["ledger"]["state"], "up", "{checks}");
    let text = cluster.must(NODES[0], &["checks", "ledger"]);
    assert!(text.contains("check ledger") && text.contains("process of command"), "{text}");
    assert!(json(&["why", "ledger"])["data"]["reasons"].as_array().unwrap().is_empty());
    assert!(!json(&["events"])["data"]["events"].as_array().unwrap().is_empty());
    let text = cluster.must(NODES[0], &["status"]);
    assert!(text.contains("PROTECTED") && text.contains("ledger"), "{text}");
    cluster.stop_and_compare();
}
