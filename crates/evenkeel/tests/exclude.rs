//! What is left out of the replication: it stays on its node, whatever happens; a file
//! can be renamed out of the replication, and nothing into it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use self::support::applications::ledger;
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE, other};

const EXCLUDE: &str = "[replication]\nexclude = [\"*.tmp\", \"cache\", \"x/var/local\"]\n";

/// Where the primary's application works, and the peer's copy.
fn places(cluster: &Cluster) -> (PathBuf, PathBuf) {
    let primary = cluster.primary();
    let mount = cluster.host(primary).path("/srv/ledger").unwrap();
    (mount.join("x"), cluster.replica(other(primary)).join("x"))
}

/// Both copies are the same but for what is left out.
fn compare(cluster: &Cluster) {
    let (mount, _) = places(cluster);
    File::open(mount.parent().unwrap()).unwrap().sync_all().unwrap();
    let [one, two] = NODES.map(|node| cluster.replica(node));
    let comparison = lab::compare::trees(&one, &two).unwrap();
    let left_out = |path: &str| {
        path.split(['/', ':']).any(|name| name.ends_with(".tmp") || name == "cache")
            || path.contains("/var/local")
            // What is left out changes a directory's times, and may be a further name of a file.
            || path.contains("modification time")
            || path.contains("number of names")
    };
    let told: Vec<String> = comparison.differences.iter().map(ToString::to_string).collect();
    let wrong: Vec<&String> = told.iter().filter(|told| !left_out(told)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn furnish(place: &Path) {
    for directory in ["cache/deep", "var/local", "var/shared", "plain"] {
        fs::create_dir_all(place.join(directory)).unwrap();
    }
    for file in ["a.tmp", "cache/deep/f", "var/local/f", "var/shared/f", "plain/f", "plain/b.tmp"] {
        fs::write(place.join(file), file).unwrap();
    }
}

#[test]
fn what_is_left_out_stays_where_it_is() {
    let cluster = Cluster::protected(ledger(EXCLUDE));
    let (mount, there) = places(&cluster);
    furnish(&mount);
    assert!(there.join("plain/f").exists() && there.join("var/shared/f").exists());
    for file in ["a.tmp", "cache", "var/local", "plain/b.tmp"] {
        assert!(!there.join(file).exists(), "{file} was replicated");
    }
    // It is a node's own.
    fs::create_dir(there.join("cache")).unwrap();
    fs::write(there.join("cache/own"), "own").unwrap();
    fs::write(there.join("plain/own.tmp"), "own").unwrap();
    let verified = cluster.must(cluster.primary(), &["verify", cluster.module()]);
    assert!(verified.contains("are equal"), "{verified}");
    // A resync touches it as little, after a crash and with everything compared.
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    cluster.lab().kill(secondary).unwrap();
    cluster.wait_for(primary, "alone", PATIENCE);
    fs::write(mount.join("cache/while-alone"), "x").unwrap();
    fs::write(mount.join("plain/while-alone"), "x").unwrap();
    fs::write(mount.join("plain/b.tmp"), "changed while alone").unwrap();
    cluster.boot_node(secondary);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let there = cluster.replica(secondary).join("x");
    assert!(there.join("cache/own").exists() && !there.join("cache/while-alone").exists());
    assert!(there.join("plain/own.tmp").exists() && there.join("plain/while-alone").exists());
    compare(&cluster);
    // It goes with the directory that holds it, where the application has removed that.
    fs::remove_dir_all(mount.join("plain")).unwrap();
    fs::create_dir(mount.join("new")).unwrap();
    assert!(!there.join("plain").exists());
    compare(&cluster);
    // The other node goes on with its own.
    cluster.lab().kill(primary).unwrap();
    cluster.wait_for(secondary, "alone", PATIENCE);
    let mount = cluster.host(secondary).path("/srv/ledger/x").unwrap();
    assert!(mount.join("cache/own").exists() && mount.join("new").exists());
    cluster.boot_node(primary);
    cluster.wait_for(secondary, "protected", SYNC_PATIENCE);
    compare(&cluster);
}

#[test]
fn files_go_out_and_nothing_comes_in() {
    let cluster = Cluster::protected(ledger(EXCLUDE));
    let (mount, there) = places(&cluster);
    furnish(&mount);
    let rename = |from: &str, to: &str| fs::rename(mount.join(from), mount.join(to));
    let crosses = |outcome: std::io::Result<()>, what: &str| {
        let error = outcome.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::CrossesDevices, "{what}: {error}");
    };
    let mut file = File::options().append(true).open(mount.join("plain/f")).unwrap();
    rename("plain/f", "cache/f").unwrap();
    assert!(!there.join("plain/f").exists());
    file.write_all(b"unseen").unwrap();
    file.sync_all().unwrap();
    // Not back in, be there a file or not, and no second name on the other side.
    crosses(rename("cache/f", "plain/f"), "in");
    crosses(rename("a.tmp", "var/shared/f"), "over a file");
    crosses(fs::hard_link(mount.join("a.tmp"), mount.join("linked")), "linked in");
    crosses(fs::hard_link(mount.join("var/shared/f"), mount.join("b.tmp")), "linked out");
    fs::hard_link(mount.join("a.tmp"), mount.join("b.tmp")).unwrap();
    fs::write(mount.join("b.tmp"), "by its other name").unwrap();
    assert_eq!(fs::read(there.join("var/shared/f")).unwrap(), b"var/shared/f");
    // A file that had no name, and was synced.
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::WRONLY;
    let place = File::open(&mount).unwrap();
    let unnamed = rustix::fs::openat(&place, ".", flags, rustix::fs::Mode::RUSR).unwrap();
    rustix::fs::fsync(&unnamed).unwrap();
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&unnamed));
    let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    rustix::fs::linkat(rustix::fs::CWD, &*link, &place, "c.tmp", follow).unwrap();
    rustix::fs::fsync(&unnamed).unwrap();
    assert!(!there.join("c.tmp").exists());
    for (from, to) in [("cache", "kept"), ("plain", "cache2/cache"), ("var", "var2")] {
        fs::create_dir_all(mount.join("cache2")).unwrap();
        let error = rename(from, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CrossesDevices, "{from} to {to}: {error}");
    }
    rename("var/shared", "var/renamed").unwrap();
    rename("cache/deep", "cache/deeper").unwrap();
    compare(&cluster);
    let verified = cluster.must(cluster.primary(), &["verify", cluster.module()]);
    assert!(verified.contains("are equal"), "{verified}");
    let told = cluster.must(cluster.primary(), &["events", cluster.module()]);
    assert!(!told.contains("resync-ended"), "the session was lost: {told}");
}

#[test]
fn a_change_of_what_is_left_out_is_no_change_out_of_band() {
    let cluster = Cluster::protected(ledger(EXCLUDE));
    let (mount, _) = places(&cluster);
    furnish(&mount);
    let primary = cluster.primary();
    cluster.must(primary, &["stop", cluster.module()]);
    for node in NODES {
        cluster.wait_for(node, "stopped", PATIENCE);
    }
    fs::write(cluster.replica(primary).join("x/a.tmp"), "changed").unwrap();
    fs::write(cluster.replica(primary).join("x/cache/deep/f"), "changed").unwrap();
    let told = cluster.start_in_sync();
    assert!(!told.contains("out-of-band"), "{told}");
}

#[test]
fn what_is_not_left_out_any_more_is_compared() {
    let cluster = Cluster::protected(ledger(EXCLUDE));
    let (mount, _) = places(&cluster);
    furnish(&mount);
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    fs::create_dir(cluster.replica(secondary).join("x/cache")).unwrap();
    fs::write(cluster.replica(secondary).join("x/cache/own"), "own").unwrap();
    cluster.must(primary, &["stop", cluster.module()]);
    for node in NODES {
        cluster.wait_for(node, "stopped", PATIENCE);
        let file = "etc/evenkeel/modules/ledger.toml";
        let path = cluster.host(node).path(format!("/mnt/state/{file}")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(", \"cache\"", "")).unwrap();
        cluster.daemon(node).kill(15).unwrap();
        cluster.daemon(node).wait().unwrap();
        cluster.start_daemon(node);
    }
    cluster.until("they have found each other", PATIENCE, || {
        NODES.iter().all(|node| {
            let status = cluster.module_status(node).unwrap_or_default();
            status["peer"]["contact"] == "alive" && !status.to_string().contains("config-differs")
        })
    });
    cluster.must(primary, &["start", cluster.module()]);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let told = cluster.must(primary, &["events", cluster.module()]);
    assert!(told.contains("what is left out of the replication was changed"), "{told}");
    let there = cluster.replica(secondary).join("x/cache");
    assert!(there.join("deep/f").exists() && !there.join("own").exists());
    assert!(!cluster.replica(secondary).join("x/a.tmp").exists());
}
