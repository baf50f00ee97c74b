//! What two configurations differ in, and what has to stop for it.

use super::super::Content;
use super::*;

const CLUSTER: &str = r#"
cluster = "demo"
[[node]]
name = "a"
addresses = { lan0 = "10.0.0.1" }
[[node]]
name = "b"
addresses = { lan0 = "10.0.0.2" }
"#;
const SHOP: &str = r#"
module = "shop"
kind = "mirror"
replicate = ["/srv/shop"]
[[command]]
name = "web"
run = ["/bin/web"]
[[command]]
name = "db"
run = ["/bin/db"]
"#;

fn files(cluster: &str, others: &[(&str, &str)]) -> Files {
    let content = |text: &str| Content { text: text.to_owned(), executable: false };
    let mut all = Files::default();
    all.0.insert(CLUSTER_FILE.to_owned(), content(cluster));
    all.0.extend(others.iter().map(|(path, text)| ((*path).to_owned(), content(text))));
    all
}

/// Keys and effects from the plain configuration to another.
fn found(after: &Files) -> Vec<(String, ChangeEffect)> {
    let before = files(CLUSTER, &[("modules/shop.toml", SHOP)]);
    changes(&before, after).into_iter().map(|change| (change.key, change.effect)).collect()
}

fn check_module(text: &str, expected: &[(&str, ChangeEffect)]) {
    let shown = found(&files(CLUSTER, &[("modules/shop.toml", text)]));
    let shown: Vec<_> = shown.iter().map(|(key, effect)| (key.as_str(), *effect)).collect();
    assert_eq!(shown, expected, "{text}");
}

fn check_cluster(text: &str, expected: &[(&str, ChangeEffect)]) {
    let shown = found(&files(text, &[("modules/shop.toml", SHOP)]));
    let shown: Vec<_> = shown.iter().map(|(key, effect)| (key.as_str(), *effect)).collect();
    assert_eq!(shown, expected, "{text}");
}

#[test]
fn what_a_node_pings_and_what_watches_it_is_hot() {
    let text = format!("{CLUSTER}[isolation]\nping = ['10.0.0.9']\n");
    check_cluster(&text, &[("isolation.ping", ChangeEffect::Hot)]);
    let text = format!("{CLUSTER}[watchdog]\ntimeout = '10s'\n");
    check_cluster(&text, &[("watchdog.timeout", ChangeEffect::Hot)]);
}

#[test]
fn what_a_module_looks_at_each_time_is_hot_and_the_rest_is_not() {
    use ChangeEffect::{Hot, Nothing, Restart};
    check_module(SHOP, &[]);
    check_module(&format!("# why\n{SHOP}"), &[("", Nothing)]);
    let with = |more: &str| format!("{SHOP}{more}");
    check_module(&with("[failover]\ntimeout = '3s'"), &[("failover.timeout", Hot)]);
    check_module(&with("[failover]\ntimeout = '5s'"), &[("failover.timeout", Nothing)]);
    check_module(&with("[scripts]\nstop = 'true'"), &[("scripts.stop", Hot)]);
    check_module(
        &with("[replication]\nresync_rate = '1MB/s'"),
        &[("replication.resync_rate", Hot)],
    );
    check_module(&with("[replication]\nack = 'fsync'"), &[("replication.ack", Restart)]);
    check_module(&with("[replication]\nack = 'write'"), &[("replication.ack", Nothing)]);
    check_module(&with("[[check]]\nkind = 'tcp'\nport = 80"), &[("check.80", Hot)]);
    check_module(&with("[[vip]]\naddress = '10.0.0.9/24'"), &[("vip.10·0·0·9/24", Restart)]);
    check_module(&SHOP.replace("/srv/shop", "/srv/other"), &[("replicate", Restart)]);
    check_module(&SHOP.replace("/bin/web", "/bin/other"), &[("command.web.run", Restart)]);
    let patient = SHOP.replace("name = \"db\"", "name = \"db\"\nstop_timeout = '9s'");
    check_module(&patient, &[("command.db.stop_timeout", Hot)]);
    let (start, web) = SHOP.split_once("[[command]]").unwrap();
    let (web, db) = web.split_once("[[command]]").unwrap();
    let turned = format!("{start}[[command]]{db}[[command]]{web}");
    check_module(&turned, &[("command (order)", Restart)]);
    check_module(&format!("{start}[[command]]{web}"), &[("command.db", Restart)]);
}

#[test]
fn a_module_comes_while_others_run_and_goes_once_it_is_stopped() {
    use ChangeEffect::{Hot, Stop};
    let other = SHOP.replace("shop", "other");
    let both = files(CLUSTER, &[("modules/shop.toml", SHOP), ("modules/other.toml", &other)]);
    assert_eq!(found(&both), [(String::new(), Hot)]);
    assert_eq!(found(&files(CLUSTER, &[])), [(String::new(), Stop)]);
    // By another file it is the same module still.
    let moved = found(&files(CLUSTER, &[("modules/a.toml", SHOP)]));
    assert_eq!(moved, [(String::new(), ChangeEffect::Nothing)]);
    // One that is called otherwise is another one.
    let renamed = found(&files(CLUSTER, &[("modules/shop.toml", &other)]));
    assert_eq!(renamed, [(String::new(), Stop), (String::new(), Hot)]);
}

#[test]
fn a_change_says_what_it_is_about() {
    let before = files(CLUSTER, &[("modules/shop.toml", SHOP)]);
    let text = format!("{SHOP}[failover]\ntimeout = '3s'");
    let shop = [("modules/shop.toml", text.as_str()), ("modules/shop/run.sh", "true")];
    let found = changes(&before, &files(CLUSTER, &shop));
    let [timeout, script] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(timeout.after.as_deref(), Some("\"3s\""));
    assert_eq!((timeout.before.as_deref(), timeout.modules[0].as_str()), (None, "shop"));
    assert_eq!(timeout.nodes, [NodeName::new("a").unwrap(), NodeName::new("b").unwrap()]);
    assert_eq!((script.file.as_str(), script.effect), ("modules/shop/run.sh", ChangeEffect::Hot));
    assert_eq!((script.before.as_deref(), script.after.as_deref()), (None, Some("4 bytes")));
}

#[test]
fn of_the_cluster_only_networks_come_and_go_while_modules_run() {
    use ChangeEffect::{Hot, Never, Nothing, Restart};
    check_cluster(&format!("{CLUSTER}# end"), &[("", Nothing)]);
    check_cluster(&CLUSTER.replace("demo", "other"), &[("cluster", Never)]);
    let moved = CLUSTER.replace("10.0.0.2", "10.0.0.3");
    check_cluster(&moved, &[("node.b.addresses.lan0", Restart)]);
    let third = "[[node]]\nname = 'c'\naddresses = { lan0 = '10.0.0.3' }";
    check_cluster(&format!("{CLUSTER}{third}"), &[("node.c", Never)]);
    let without = CLUSTER.split("[[node]]\nname = \"b\"").next().unwrap();
    check_cluster(without, &[("node.b", Never)]);
    let witness = "[witness]\naddress = '10.0.0.9'";
    check_cluster(&format!("{CLUSTER}{witness}"), &[("witness.address", Restart)]);
    let networks = CLUSTER
        .replace("lan0 = \"10.0.0.1\"", "lan0 = \"10.0.0.1\", lan1 = \"10.1.0.1\"")
        .replace("lan0 = \"10.0.0.2\"", "lan0 = \"10.0.0.2\", lan1 = \"10.1.0.2\"");
    let networks = format!("{networks}[[network]]\nname = 'lan0'\n[[network]]\nname = 'lan1'\n");
    let expected = [
        ("node.a.addresses.lan1", Hot),
        ("node.b.addresses.lan1", Hot),
        ("network.lan0", Hot),
        ("network.lan1", Hot),
    ];
    check_cluster(&networks, &expected);
    let before = files(CLUSTER, &[("modules/shop.toml", SHOP)]);
    let found = changes(&before, &files(&moved, &[("modules/shop.toml", SHOP)]));
    assert_eq!(found[0].modules[0].as_str(), "shop", "which has to be stopped");
}
