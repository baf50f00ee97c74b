//! What is wrong is refused where it is written, with what to do about it, exit code 2, and nothing
//! changed: mistakes in files, and machines that cannot do what the files want.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::path::Path;
use std::process::Output;

use lab::SpawnSpec;

use self::support::applications::{ledger, succeed};
use self::support::{Cluster, Hosts, INSIDE, NODES, PATIENCE, ROOT, WITNESS, cluster_file};

const NODE: &str = NODES[0];

/// Mistakes in files: name, cluster's file, module's file, place, and words of the message.
struct Mistake {
    name: &'static str,
    cluster: String,
    modules: Vec<(&'static str, String)>,
    place: &'static str,
    words: &'static [&'static str],
}

fn module(name: &str, directory: &str, more: &str) -> String {
    format!(
        "module = \"{name}\"\nkind = \"mirror\"\nreplicate = [\"{directory}\"]\n{more}\n\
         [[command]]\nname = \"{name}\"\nrun = [\"{INSIDE}\", \"ledger\", \"--data\", \
         \"{directory}\", \"--listen\", \"0.0.0.0:7000\"]\n"
    )
}

fn mistakes(good: &str) -> Vec<Mistake> {
    let of = |name, more: &str, place, words| Mistake {
        name,
        cluster: good.to_owned(),
        modules: vec![("shop", module("shop", "/srv/shop", more))],
        place,
        words,
    };
    let two = |name, first: &str, second: &str, place, words| Mistake {
        name,
        cluster: good.to_owned(),
        modules: vec![("a", module("a", first, "")), ("b", module("b", second, ""))],
        place,
        words,
    };
    let directory = |name, directory: &str, words| Mistake {
        name,
        cluster: good.to_owned(),
        modules: vec![("shop", module("shop", directory, ""))],
        place: "modules/shop.toml:3:14",
        words,
    };
    vec![
        of("unknown-key", "replicat = 1", "modules/shop.toml:4:1", &["replicat", "replicate"]),
        of("wrong-type", "services = 7", "modules/shop.toml:4:12", &["services"]),
        of(
            "no-prefix",
            "[[vip]]\naddress = \"10.77.0.200\"",
            "modules/shop.toml:5:11",
            &["10.77.0.200", "/24"],
        ),
        of(
            "bad-timeout",
            "[failover]\ntimeout = \"2\"",
            "modules/shop.toml:5:11",
            &["timeout", "unit"],
        ),
        two("nested", "/srv/shop", "/srv/shop/inner", "modules/b.toml:3:14", &["module `a`"]),
        two("same", "/srv/shop", "/srv/shop", "modules/b.toml:3:14", &["module `a`"]),
        directory("missing", "/srv/absent", &["/srv/absent", "mkdir"]),
        directory("file", "/srv/plain-file", &["/srv/plain-file", "directory"]),
        Mistake {
            name: "cluster-key",
            cluster: format!("{good}colour = \"red\"\n"),
            modules: vec![],
            place: "cluster.toml:",
            words: &["colour"],
        },
    ]
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Names of everything below a directory of a node.
fn listing(hosts: &Hosts, directory: &str) -> String {
    succeed(&hosts.host(NODE), &["find", directory, "-printf", "%p %y %s %T@\n"])
}

fn refused(what: &str, output: &Output, words: &[&str]) {
    let said = text(output);
    assert_eq!(output.status.code(), Some(2), "{what}: {said}");
    for word in words {
        assert!(said.contains(word), "{what}: {word:?} is not in: {said}");
    }
}

#[test]
fn mistakes_in_files_are_refused_where_they_are() {
    let hosts = Hosts::boot();
    let host = hosts.host(NODE);
    for directory in ["/srv/shop/inner", "/srv/other"] {
        succeed(&host, &["mkdir", "-p", directory]);
    }
    host.write_file("/srv/plain-file", "x").unwrap();
    let good = cluster_file(&hosts.lab);
    let mut wrong = Vec::new();
    for mistake in mistakes(&good) {
        let root = format!("{ROOT}/{}", mistake.name);
        let write = |file: &str, text: &str| {
            host.write_file(Path::new(&root).join("etc/evenkeel").join(file), text).unwrap();
        };
        write("cluster.toml", &mistake.cluster);
        for (name, text) in &mistake.modules {
            write(&format!("modules/{name}.toml"), text);
        }
        let before = [listing(&hosts, &root), listing(&hosts, "/srv")];
        // A daemon starts without a directory: its disk may be mounted later, and other modules
        // have theirs.
        let of_files = !matches!(mistake.name, "missing" | "file");
        for command in ["check", "daemon"].into_iter().take(1 + usize::from(of_files)) {
            let what = format!("{command}, {}", mistake.name);
            let words = [&[mistake.place], mistake.words].concat();
            let output = hosts.host(NODE).run(["timeout", "60", INSIDE, "--root", &root, command]);
            let output = output.unwrap();
            let said = text(&output);
            let told = words.iter().all(|word| said.contains(word));
            if output.status.code() != Some(2) || !told {
                wrong.push(format!("{what}: {:?} without {words:?}: {said}", output.status));
            }
        }
        let after = [listing(&hosts, &root), listing(&hosts, "/srv")];
        if before != after {
            wrong.push(format!("{}: changed {before:?} to {after:?}", mistake.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn without_fuse_or_privileges_no_daemon_starts() {
    let hosts = Hosts::boot();
    let host = hosts.host(NODE);
    succeed(&host, &["mkdir", "-p", "/srv/shop"]);
    hosts.write(NODE, "etc/evenkeel/cluster.toml", &cluster_file(&hosts.lab));
    hosts.write(NODE, "etc/evenkeel/modules/shop.toml", &module("shop", "/srv/shop", ""));
    assert_eq!(hosts.command(NODE, &["check"]).status.code(), Some(0));
    let before = [listing(&hosts, ROOT), listing(&hosts, "/srv")];
    // In a mount namespace of its own, for the host goes on using its devices.
    let hidden = format!("mount -t tmpfs none /dev && exec {INSIDE} --root {ROOT} daemon");
    let output = host.run(["timeout", "60", "unshare", "-m", "sh", "-c", &hidden]).unwrap();
    refused("no fuse", &output, &["/dev/fuse", "modprobe fuse"]);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let daemon = ["timeout", "60", INSIDE, "--root", ROOT, "daemon"];
    let output = host.run([&nobody[..], &daemon].concat()).unwrap();
    refused("no privileges", &output, &["as root"]);
    let after = [listing(&hosts, ROOT), listing(&hosts, "/srv")];
    assert_eq!(before, after, "something was changed");
}

#[test]
fn a_stranger_may_not_command_a_daemon() {
    let cluster = Cluster::build(ledger(""));
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let words = [&nobody[..], &[INSIDE, "--root", ROOT, "start", "ledger"]].concat();
    let output = cluster.host(NODE).run(words).unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("as root"), "{}", text(&output));
    assert_eq!(cluster.role(NODE), "STOP", "a stranger changed something");
}

#[test]
fn nodes_with_different_configuration_do_not_start_together() {
    let cluster = Cluster::build_with(ledger(""), |hosts| {
        let other = ledger("[failover]\ntimeout = \"7s\"\n").configuration;
        hosts.write(NODES[1], "etc/evenkeel/modules/ledger.toml", &other);
    });
    cluster.until("the nodes hear each other", PATIENCE, || {
        NODES.into_iter().all(|node| {
            cluster.module_status(node).is_some_and(|status| status["peer"]["contact"] == "alive")
        })
    });
    let output = cluster.command(NODE, &["start", "ledger"]);
    refused("start", &output, &["failover"]);
    for node in NODES {
        assert_eq!(cluster.role(node), "STOP", "{node} was changed");
        assert!(!cluster.holds_address(node));
    }
    assert!(cluster.host(WITNESS).is_up());
}

#[test]
fn a_directory_that_has_gone_is_refused_at_the_start() {
    let cluster = Cluster::build_with(ledger(""), |hosts| {
        succeed(&hosts.host(NODE), &["rm", "-r", "/srv/ledger"]);
    });
    let output = cluster.command(NODE, &["start", "ledger"]);
    refused("start", &output, &["/srv/ledger"]);
    assert_eq!(cluster.role(NODE), "STOP");
}

/// Waits until the node runs `sleep`: what was done before is done.
fn until_sleeps(cluster: &Cluster) {
    cluster.until("a program sleeps", PATIENCE, || {
        cluster.host(NODE).run(["pgrep", "-x", "sleep"]).unwrap().status.success()
    });
}

#[test]
fn a_directory_in_use_is_refused_at_the_start() {
    let cluster = Cluster::build(ledger(""));
    let host = cluster.host(NODE);
    let script = "exec 7>> /srv/ledger/private; exec sleep 1000";
    let writer = host.spawn(SpawnSpec::new(["sh", "-c", script])).unwrap();
    until_sleeps(&cluster);
    let output = cluster.command(NODE, &["start", "ledger", "--node", NODE]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    for word in ["sleep (pid ", "writes to /srv/ledger/private", "in_use = \"allow\""] {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert_eq!(cluster.role(NODE), "STOP");
    writer.kill(9).unwrap();
    writer.wait().unwrap();
    cluster.must(NODE, &["start", "ledger"]);
}

#[test]
fn another_way_to_a_directory_is_refused_at_the_start() {
    let cluster = Cluster::build(ledger(""));
    let host = cluster.host(NODE);
    let start = || cluster.command(NODE, &["start", "ledger", "--node", NODE]);
    succeed(&host, &["sh", "-ec", "mkdir -p /srv/way; mount --bind /srv/ledger /srv/way"]);
    let output = start();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("it is mounted at /srv/way too"), "{said}");
    succeed(&host, &["umount", "/srv/way"]);
    // A program in a mount namespace of its own, which sees nothing of what is mounted here later.
    let argv = ["unshare", "--mount", "--propagation", "private", "sleep", "1000"];
    let apart = host.spawn(SpawnSpec::new(argv)).unwrap();
    until_sleeps(&cluster);
    let said = text(&start());
    assert!(said.contains("in a mount namespace of its own, has it at /srv/ledger"), "{said}");
    assert_eq!(cluster.role(NODE), "STOP");
    apart.kill(9).unwrap();
    apart.wait().unwrap();
    cluster.must(NODE, &["start", "ledger"]);
}
