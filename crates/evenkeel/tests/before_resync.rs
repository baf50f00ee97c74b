//! The script that runs at the target before a resync changes its copy: what it keeps is the copy
//! as it was, nothing is changed as long as it fails, and a resync that was cut off does not make
//! it keep a mixture. What a resync brings over is tested in `resync` and `delta`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;
use std::path::PathBuf;

use self::support::applications::{Application, ledger, succeed};
use self::support::{Cluster, NODES, PATIENCE, ROOT, SYNC_PATIENCE, other};

/// Keeps the directory, as a snapshot would, and notes that it did.
const KEEP: &str = "set -e\n\
    rm -rf /mnt/state/kept\n\
    cp -a \"$EVENKEEL_DIRECTORIES\" /mnt/state/kept\n\
    echo \"$EVENKEEL_MODULE $EVENKEEL_SOURCE $EVENKEEL_COPY\" >> /mnt/state/runs\n";
/// Cannot keep anything.
const FAIL: &str = "echo tried >> /mnt/state/runs\necho no room for a snapshot >&2\nexit 3\n";
/// The file that is looked at.
const STORY: &str = "story";
/// More than a resync brings over in the time of a test, at `SLOW`.
const BULK_BYTES: usize = 64 << 20;
const SLOW: &str = "1MB/s";

#[test]
fn the_copy_is_kept_as_it_was_before_its_first_byte_changes() {
    let cluster = build();
    let secondary = other(cluster.primary());
    let noted = runs(&cluster, secondary);
    assert_eq!(noted, ["ledger node1 none"], "it runs before the first resync too");
    tell(&cluster, "old");
    leave(&cluster, "new");
    cluster.boot_node(secondary);
    cluster.wait_for(cluster.primary(), "protected", SYNC_PATIENCE);
    assert_eq!(kept(&cluster, secondary), "old");
    let replica = fs::read_to_string(cluster.replica(secondary).join(STORY)).unwrap();
    assert_eq!(replica, "new");
    assert_eq!(runs(&cluster, secondary)[1..], ["ledger node1 crashed"]);
    let events = cluster.must(secondary, &["events"]);
    assert!(events.contains("before-resync"), "{events}");
    assert!(runs(&cluster, cluster.primary()).is_empty(), "a source keeps nothing");
    cluster.stop_and_compare();
}

#[test]
fn no_resync_is_begun_as_long_as_the_script_fails() {
    let cluster = build();
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    tell(&cluster, "old");
    leave(&cluster, "new");
    cluster.lab().start(secondary).unwrap();
    cluster.hosts.write(secondary, "before.sh", FAIL);
    let before = runs(&cluster, secondary).len();
    cluster.start_daemon(secondary);
    cluster.until("the failure is told, and it is tried again", PATIENCE, || {
        let told = reasons(&cluster, secondary).contains("before-resync-failed");
        told && runs(&cluster, secondary).len() >= before + 2
    });
    cluster.until("the reason is explained", PATIENCE, || {
        let why = cluster.must(secondary, &["why", cluster.module()]);
        ["ended with exit status: 3", "it said: no room for a snapshot", "mend the script"]
            .iter()
            .all(|words| why.contains(words))
    });
    assert_eq!(cluster.role(secondary), "WAIT");
    assert_eq!(cluster.role(primary), "ALONE");
    assert_eq!(copy(&cluster, secondary), "crashed", "its record is what it was");
    let replica = fs::read_to_string(cluster.replica(secondary).join(STORY)).unwrap();
    assert_eq!(replica, "old", "nothing of the copy was changed");
    cluster.progress(&workload);

    // At once, for it may just be tried: half a script keeps half a copy.
    cluster.hosts.write(secondary, "before.new", KEEP);
    let [new, script] = ["before.new", "before.sh"].map(|file| format!("{ROOT}/{file}"));
    succeed(&cluster.host(secondary), &["mv", &new, &script]);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    assert_eq!(kept(&cluster, secondary), "old");
    assert!(!reasons(&cluster, secondary).contains("before-resync-failed"));
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.stop_and_compare();
}

#[test]
fn what_was_kept_before_a_resync_that_was_cut_off_is_not_replaced() {
    let cluster = build();
    let (primary, secondary) = cut_off(&cluster);
    let before = runs(&cluster, secondary);
    cluster.boot_node(primary);
    cluster.until("the rest is sent at full speed", PATIENCE, || {
        cluster.command(primary, &["resync-rate", cluster.module(), "unlimited"]).status.success()
    });
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    assert_eq!(runs(&cluster, secondary), before, "it must not keep a mixture");
    assert_eq!(kept(&cluster, secondary), "old");
    // The next one finds a copy that is worth keeping again.
    leave(&cluster, "newest");
    cluster.boot_node(secondary);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    assert_eq!(runs(&cluster, secondary).len(), before.len() + 1);
    assert_eq!(kept(&cluster, secondary), "new");
    cluster.stop_and_compare();
}

#[test]
fn what_was_kept_can_be_made_the_modules_data_when_the_source_is_lost() {
    let cluster = build();
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let (_, secondary) = cut_off(&cluster);
    drop(workload);
    // What the page on resync says.
    let host = cluster.host(secondary);
    cluster.must(secondary, &["stop", cluster.module(), "--node", secondary]);
    let daemon = cluster.daemon(secondary);
    daemon.kill(15).unwrap();
    daemon.wait().unwrap();
    let restore = format!(
        "rm -rf /srv/ledger && cp -a {ROOT}/kept /srv/ledger && \
         rm -r {ROOT}/var/lib/evenkeel/modules/ledger"
    );
    succeed(&host, &["sh", "-c", &restore]);
    // The marker is one of what was kept too.
    let root = host.path("/srv/ledger").unwrap();
    rustix::fs::removexattr(root, "trusted.evenkeel").unwrap();
    cluster.start_daemon(secondary);
    cluster.must(secondary, &["force-primary", cluster.module(), "--node", secondary]);
    cluster.wait_for_role(secondary, &["ALONE"]);
    let workload = cluster.workload(1_000_000);
    cluster.progress(&workload);
    let story = cluster.host(secondary).path("/srv/ledger").unwrap().join(STORY);
    assert_eq!(fs::read_to_string(story).unwrap(), "old");
}

fn build() -> Cluster {
    let cluster = Cluster::build_with(application(), |hosts| {
        for node in NODES {
            hosts.write(node, "before.sh", KEEP);
        }
    });
    cluster.must(NODES[0], &["start", cluster.module()]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    cluster
}

fn application() -> Application {
    ledger(&format!("[scripts]\nbefore_resync = \"sh {ROOT}/before.sh\"\n"))
}

/// Kills the source in the middle of a resync.
fn cut_off(cluster: &Cluster) -> (&'static str, &'static str) {
    let (primary, secondary) = (cluster.primary(), other(cluster.primary()));
    tell(cluster, "old");
    leave(cluster, "new");
    let bulk = cluster.host(primary).path("/srv/ledger/bulk").unwrap();
    fs::write(&bulk, vec![7; BULK_BYTES]).unwrap();
    cluster.must(primary, &["resync-rate", cluster.module(), SLOW]);
    cluster.boot_node(secondary);
    let copied = cluster.replica(secondary).join("bulk");
    cluster.until("the resync is in the middle", SYNC_PATIENCE, || {
        fs::metadata(&copied).is_ok_and(|bulk| bulk.len() > 0)
    });
    cluster.lab().kill(primary).unwrap();
    cluster.wait_for_role(secondary, &["WAIT"]);
    assert_eq!(copy(cluster, secondary), "inconsistent");
    assert_eq!(kept(cluster, secondary), "old");
    (primary, secondary)
}

/// Has both nodes hold this story, durably.
fn tell(cluster: &Cluster, story: &str) {
    let place = cluster.host(cluster.primary()).path("/srv/ledger").unwrap();
    fs::write(place.join(STORY), story).unwrap();
    let replica = cluster.replica(other(cluster.primary())).join(STORY);
    cluster.until("the story is on both", PATIENCE, || {
        fs::read_to_string(&replica).is_ok_and(|text| text == story)
    });
}

/// The secondary goes, and the story goes on without it.
fn leave(cluster: &Cluster, story: &str) {
    let primary = cluster.primary();
    cluster.lab().kill(other(primary)).unwrap();
    cluster.wait_for_role(primary, &["ALONE"]);
    let place = cluster.host(primary).path("/srv/ledger").unwrap();
    fs::write(place.join(STORY), story).unwrap();
}

fn of(cluster: &Cluster, node: &str, path: &str) -> PathBuf {
    cluster.host(node).path(PathBuf::from(ROOT).join(path)).unwrap()
}

/// What the script noted on a node, run by run.
fn runs(cluster: &Cluster, node: &str) -> Vec<String> {
    let noted = fs::read_to_string(of(cluster, node, "runs")).unwrap_or_default();
    noted.lines().map(str::to_owned).collect()
}

/// The story as it was kept.
fn kept(cluster: &Cluster, node: &str) -> String {
    fs::read_to_string(of(cluster, node, "kept").join(STORY)).unwrap()
}

fn reasons(cluster: &Cluster, node: &str) -> String {
    cluster.module_status(node).unwrap_or_default()["reasons"].to_string()
}

fn copy(cluster: &Cluster, node: &str) -> String {
    cluster.module_status(node).unwrap()["copy"].as_str().unwrap().to_owned()
}
