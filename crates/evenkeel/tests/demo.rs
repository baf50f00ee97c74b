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
