//! The demo as a newcomer runs it: it passes, and its last line is one object with the figures.
//! How long anything takes is not judged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use serde_json::Value;

#[test]
fn the_demo_loses_nothing_and_says_so() {
    check("ledger");
}

#[test]
fn the_demo_runs_a_real_postgresql() {
    check("postgresql");
}

#[test]
fn the_farm_breaks_nothing_but_what_died_with_its_node() {
    let _only = support::only_lab();
    let output = support::run(&["--json", "demo", "farm", "--name", "demo-farm-test"]);
    let (out, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the demo ends with {}: {out}{said}", output.status);
    let report: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    for none in ["broken_others", "broken_drain", "lost_drain", "broken_join", "lost_join"] {
        assert_eq!(report[none], 0, "{none} in {report}");
    }
    assert_eq!(report["broken_kill"], report["kept_by_killed"]);
    assert!(report["outage_kill_ms"].is_number(), "{report}");
    let shares = report["shares"].as_object().unwrap();
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["node1", "node2", "node3"]);
    println!("{report}");
}

fn check(app: &str) {
    let _only = support::only_lab();
    let output = support::run(&["demo", "--json", "--name", "demo-test", "--app", app]);
    let (out, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the demo ends with {}: {out}{said}", output.status);
    let report: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(report["lost"], 0);
    assert_eq!(report["identical"], true);
    assert!(report["acknowledged"].as_u64().unwrap() > 0);
    let figures = ["detection_ms", "outage_failover_ms", "outage_switchover_ms", "resync_seconds"];
    for figure in figures {
        assert!(report[figure].is_number(), "{figure} is missing from {report}");
    }
    println!("{report}");
}
