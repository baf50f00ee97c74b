//! What is shown when a test fails: reasons, events and the ends of the logs of both nodes.
//!
//! Everything here is best effort, for the failure itself must be seen whatever is broken.

use std::fs;
use std::path::Path;

use serde_json::Value;
use wire::control::Verb;

use super::{Cluster, NODES, ROOT, WITNESS, ask};

const LOG_LINES: usize = 25;
const EVENTS: usize = 40;

pub fn print(cluster: &Cluster) {
    for node in NODES {
        eprintln!("\n==== {node}");
        match cluster.module_status(node) {
            Some(status) => print_status(&status),
            None => eprintln!("does not answer"),
        }
        print_events(cluster, node);
        let host = cluster.host(node);
        print_log("daemon.log", &host.dir().join("daemon.log"));
        if let Ok(path) = host.path(Path::new(ROOT).join("daemon.log")) {
            print_log("daemon.log of systemd", &path);
        }
        let state = format!("{ROOT}/var/lib/evenkeel/modules/{}", cluster.module());
        for log in ["replicator.log", "application.log"] {
            if let Ok(path) = host.path(Path::new(&state).join(log)) {
                print_log(log, &path);
            }
        }
    }
    print_log("witness.log", &cluster.host(WITNESS).dir().join("witness.log"));
}

fn print_status(status: &Value) {
    for key in ["headline", "role", "phase", "copy", "epoch", "started", "addresses", "service"] {
        eprint!("{key} {} ", status[key]);
    }
    eprintln!("\npeer {}\nsession {}", status["peer"], status["session"]);
    for reason in status["reasons"].as_array().into_iter().flatten() {
        eprintln!("  because {}: {}", reason["code"], reason["sentence"]);
        eprintln!("    evidence {} next {}", reason["evidence"], reason["next"]);
    }
}

fn print_events(cluster: &Cluster, node: &str) {
    let Ok(reply) = ask(&cluster.host(node), Verb::Events { module: None, limit: EVENTS }) else {
        return;
    };
    for event in reply.data["events"].as_array().into_iter().flatten() {
        eprintln!("  event {event}");
    }
}

fn print_log(name: &str, path: &Path) {
    let Ok(bytes) = fs::read(path) else { return };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("-- end of {name}");
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        eprintln!("  {line}");
    }
}
