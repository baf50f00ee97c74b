//! Bad configuration files and what people are shown for them, as whole texts.
//!
//! Each `tests/config/NAME.toml` is read as its first word says (`cluster-`, `module-`,
//! `together-`, `protected-`) and must give exactly `NAME.txt`. `EVENKEEL_BLESS=1` writes those
//! files anew; the difference is then reviewed like prose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panic")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use model::config::{self, ClusterConfig, Diagnostics, ModuleConfig, Source};

const CLUSTER: &str = r#"
cluster = "demo"
[[node]]
name = "node1"
addresses = { lan0 = "10.77.0.11" }
[[node]]
name = "node2"
addresses = { lan0 = "10.77.0.12" }
[witness]
address = "10.77.0.13"
"#;

#[test]
fn bad_files_are_explained() {
    let mut count = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            check(&path);
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} files in {}", folder().display());
}

#[test]
fn a_good_cluster_file_is_read_with_its_defaults() {
    let cluster = cluster();
    assert_eq!(cluster.networks.len(), 1);
    assert_eq!(cluster.networks[0].name.as_str(), "lan0");
    assert_eq!(cluster.witness, Some("10.77.0.13:7623".parse().unwrap()));
    let names: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["node1", "node2"]);
    assert_eq!(cluster.isolation, config::Isolation::Gateway);
    let with = |ping: &str| {
        let text = format!("{CLUSTER}[isolation]\nping = {ping}\n");
        config::parse_cluster(&Source { file: "cluster.toml", text: &text }).unwrap().isolation
    };
    assert_eq!(with("[]"), config::Isolation::Off);
    let landmarks = vec!["10.77.0.1".parse().unwrap()];
    assert_eq!(with("['10.77.0.1']"), config::Isolation::Landmarks(landmarks));
    assert_eq!(cluster.watchdog, None);
    let text = format!("{CLUSTER}[watchdog]\n");
    let watched = config::parse_cluster(&Source { file: "cluster.toml", text: &text }).unwrap();
    assert_ne!(config::cluster_digest(&watched), config::cluster_digest(&cluster));
    let watchdog = watched.watchdog.unwrap();
    assert_eq!(watchdog.device, Path::new("/dev/watchdog"));
    assert_eq!(watchdog.timeout.as_secs(), 15);
}

#[test]
fn a_light_module_needs_no_more_than_what_it_runs() {
    let text = "module = 'web'\nkind = 'light'\nservices = ['nginx']\n";
    let short = module("web.toml", text).unwrap();
    assert_eq!((short.kind, short.nodes.len()), (config::ModuleKind::Light, 2));
    assert!(short.replicate.is_empty() && short.farm.is_none());
    assert_eq!((short.failover.max_restarts, short.checks.len()), (3, 1));
    let vip = format!("{text}nodes = ['node2']\n[[vip]]\naddress = '10.77.0.60/24'\n");
    assert_eq!(module("web.toml", &vip).unwrap().vips.len(), 1);
}

#[test]
fn a_good_module_file_is_read_with_its_defaults() {
    let short = "module = 'shop'\nkind = 'mirror'\nreplicate = ['/srv/shop']\n";
    let short = module("shop.toml", short).unwrap();
    assert_eq!(short.nodes.len(), 2);
    assert_eq!(short.failover.timeout.as_millis(), 2000);
    assert_eq!((short.failover.max_restarts, short.checks.len()), (3, 0));
    let full = module(
        "shop.toml",
        r#"
module = "shop"
kind = "mirror"
nodes = ["node2", "node1"]
replicate = ["/srv/shop", "/srv/shopping"]
services = ["postgresql@15-main.service", "nginx"]
[[vip]]
address = "fd00::50/64"
interface = "eth0"
[[command]]
name = "ledger"
run = ["/usr/bin/ledger", "--port", "80"]
user = "www-data"
stop_signal = "INT"
stop_timeout = "2m"
[scripts]
start = "true"
stop = "true"
before_resync = "/usr/local/sbin/keep-copy"
[replication]
ack = "write"
[failover]
timeout = "500ms"
mode = "manual"
prefer = "node1"
without_witness = "wait"
max_restarts = 5
restart_window = "1h"
[[check]]
kind = "process"
command = "ledger"
action = "failover"
[[check]]
kind = "tcp"
port = 5432
[[check]]
kind = "exec"
run = ["/usr/local/bin/Look-at", "it"]
action = "wait"
"#,
    )
    .unwrap();
    assert_eq!(full.nodes[0].as_str(), "node2");
    assert_eq!(full.replicate[1], PathBuf::from("/srv/shopping"));
    assert_eq!((full.vips[0].prefix, full.vips[0].interface.as_deref()), (64, Some("eth0")));
    assert_eq!(full.commands[0].stop_signal, config::StopSignal::Int);
    assert_eq!(full.commands[0].stop_timeout.as_secs(), 120);
    assert_eq!(full.scripts.before_resync.as_deref(), Some("/usr/local/sbin/keep-copy"));
    check_failover(&full.failover);
    check_checks(&full.checks);
}

fn check_failover(failover: &config::FailoverConfig) {
    assert_eq!(failover.timeout.as_millis(), 500);
    assert_eq!(failover.mode, config::FailoverMode::Manual);
    assert_eq!(failover.prefer.as_ref().map(model::NodeName::as_str), Some("node1"));
    assert_eq!((failover.max_restarts, failover.restart_window.as_secs()), (5, 3600));
}

fn check_checks(checks: &[config::CheckConfig]) {
    let named: Vec<(&str, config::CheckAction, u64)> = checks
        .iter()
        .map(|check| (check.name.as_str(), check.action, check.grace.as_secs()))
        .collect();
    let expected = [
        ("ledger", config::CheckAction::Failover, 30),
        ("tcp-5432", config::CheckAction::Restart, 30),
        ("look-at", config::CheckAction::Wait, 0),
        ("postgresql-15-main", config::CheckAction::Restart, 30),
        ("nginx", config::CheckAction::Restart, 30),
    ];
    assert_eq!(named, expected);
    let local = config::CheckKind::Tcp("127.0.0.1:5432".parse().unwrap());
    assert_eq!(checks[1].kind, local);
}

#[test]
fn a_good_farm_file_is_read_with_its_defaults() {
    let short = module("web.toml", "module = 'web'\nkind = 'farm'\nnodes = ['node2']\n").unwrap();
    let farm = short.farm.unwrap();
    assert_eq!((farm.pulse.as_millis(), farm.timeout.as_millis()), (50, 200));
    assert_eq!(farm.delivery, config::Delivery::Directed);
    assert_eq!((farm.weight(&short.nodes[0]), farm.weights.len(), farm.balance.len()), (100, 1, 0));
    let full = r#"
module = "web"
kind = "farm"
services = ["nginx"]
vip = [{ address = "10.0.0.50/24" }]
balance = [{ port = 443, affinity = "client-ip" }, { port = 53, protocol = "udp" }]
[farm]
delivery = "multicast"
pulse = "20ms"
timeout = "60ms"
weights = { node2 = 0 }
[failover]
max_restarts = 5
"#;
    let full = module("web.toml", full).unwrap();
    let farm = full.farm.unwrap();
    assert_eq!(farm.delivery, config::Delivery::Multicast);
    let weights: Vec<u32> = full.nodes.iter().map(|node| farm.weight(node)).collect();
    assert_eq!(weights, [100, 0]);
    assert_eq!((farm.pulse.as_millis(), farm.timeout.as_millis()), (20, 60));
    let rules: Vec<_> =
        farm.balance.iter().map(|rule| (rule.port, rule.protocol, rule.affinity)).collect();
    let expected = [
        (443, config::Protocol::Tcp, config::Affinity::ClientIp),
        (53, config::Protocol::Udp, config::Affinity::ClientIpPort),
    ];
    assert_eq!(rules, expected);
    assert_eq!(full.failover.max_restarts, 5);
}

#[test]
fn the_shell_can_place_a_mistake_of_its_own() {
    let source = Source { file: "shop.toml", text: "replicate = [\"/a\", \"/b\"]\n" };
    let found = config::Diagnostic::at(&source, &["replicate", "1"], "/b is a file", None);
    assert_eq!((found.line, found.column), (1, 20));
    let nowhere = config::Diagnostic::at(&source, &["vip", "0"], "wrong", None);
    assert_eq!(nowhere.to_string(), "shop.toml:1:1: wrong\n");
}

#[test]
fn no_text_however_broken_is_too_much() {
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (end, _) in text.char_indices().step_by(3) {
            for broken in [&text[..end], &text[end..]] {
                let source = Source { file: "broken.toml", text: broken };
                let lines = broken.lines().count().max(1);
                let found =
                    [config::parse_cluster(&source).err(), module(source.file, broken).err()];
                for diagnostic in found.into_iter().flatten().flat_map(|found| found.0) {
                    let end_of_file = diagnostic.line == lines + 1 && broken.ends_with('\n');
                    assert!(
                        diagnostic.line <= lines || end_of_file,
                        "{path:?} cut at {end}: {diagnostic}"
                    );
                }
            }
        }
    }
}

fn check(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let shown = match stem.split('-').next().unwrap() {
        "cluster" => config::parse_cluster(&Source { file: "cluster.toml", text: &text }).err(),
        "module" => module("shop.toml", &text).err(),
        "together" => together(&text).err(),
        "protected" => protected(&text).err(),
        kind => panic!("{stem}: no way to read a file called `{kind}-...`"),
    };
    let mut shown = shown.map_or_else(String::new, |found| found.to_string());
    if shown.is_empty() {
        let _ = writeln!(shown, "no mistake found");
    }
    let expected_path = path.with_extension("txt");
    #[allow(clippy::disallowed_methods, reason = "the switch that refreshes expected texts")]
    if std::env::var_os("EVENKEEL_BLESS").is_some() {
        fs::write(&expected_path, shown).unwrap();
        return;
    }
    let expected = fs::read_to_string(&expected_path).unwrap_or_default();
    assert_eq!(shown, expected, "{stem} (EVENKEEL_BLESS=1 accepts the new text)");
}

/// Reads several modules from one text, each after a line `# file NAME`.
fn together(text: &str) -> Result<(), Diagnostics> {
    let parts: Vec<(&str, &str)> = text
        .split("# file ")
        .skip(1)
        .map(|part| part.split_once('\n').expect("a name and a content"))
        .collect();
    let sources: Vec<Source<'_>> = parts.iter().map(|(file, text)| Source { file, text }).collect();
    let cluster = cluster();
    let modules: Vec<ModuleConfig> =
        sources.iter().map(|source| config::parse_module(source, &cluster).unwrap()).collect();
    let pairs: Vec<(&Source<'_>, &ModuleConfig)> = sources.iter().zip(&modules).collect();
    config::check_together(&pairs)
}

fn protected(text: &str) -> Result<(), Diagnostics> {
    let module = module("shop.toml", text).unwrap();
    let source = Source { file: "shop.toml", text };
    let state = [Path::new("/var/lib/evenkeel"), Path::new("/etc/evenkeel")];
    config::check_protected(&source, &module, &state)
}

fn module(file: &str, text: &str) -> Result<ModuleConfig, Diagnostics> {
    config::parse_module(&Source { file, text }, &cluster())
}

fn cluster() -> ClusterConfig {
    config::parse_cluster(&Source { file: "cluster.toml", text: CLUSTER }).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}
