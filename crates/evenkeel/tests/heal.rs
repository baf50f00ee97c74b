//! A real split brain, made by cutting two nodes apart that have no witness, and its healing: one
//! side stays, and what the other one held alone is found in quarantine, byte for byte.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::support::applications::{ledger, succeed};
use self::support::{Cluster, NODES, PATIENCE, ROOT, SYNC_PATIENCE, other};

const REFUSED: i32 = 4;
/// Uses up the disk on which quarantine lies.
const FILLER: &str = "/mnt/state/filler";
/// So long before a cut it is not certain what has reached the other node: the timeout, and three
/// seconds.
const UNSURE: Duration = Duration::from_secs(12);

fn without_witness() -> Cluster {
    let cluster = Cluster::build_with(ledger(""), |hosts| hosts.without_witness(""));
    cluster.must(NODES[0], &["start", cluster.module()]);
    paired(&cluster);
    cluster
}

fn paired(cluster: &Cluster) {
    cluster.until("the pair is together", SYNC_PATIENCE, || {
        let roles = NODES.map(|node| cluster.role(node));
        roles.contains(&"PRIM".to_owned()) && roles.contains(&"SECOND".to_owned())
    });
}

fn shell(cluster: &Cluster, node: &str, script: &str) {
    succeed(&cluster.host(node), &["sh", "-ec", script]);
}

fn shows(cluster: &Cluster, node: &str, code: &str) -> bool {
    let status = cluster.module_status(node).unwrap_or_default();
    status["reasons"].as_array().into_iter().flatten().any(|reason| reason["code"] == code)
}

/// Where the files are that a node's given-up copy held alone.
fn quarantine(cluster: &Cluster, node: &str) -> PathBuf {
    let folder = format!("{ROOT}/var/lib/evenkeel/modules/ledger/quarantine");
    let folder = cluster.host(node).path(folder).unwrap();
    let all: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].join("files/srv/ledger")
}

fn text(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Both go on without the other, change the same files and other ones, and hear each other again.
fn go_apart(cluster: &Cluster, primary: &str, secondary: &str) {
    cluster.lab().cut(primary, secondary).unwrap();
    for node in NODES {
        cluster.wait_for_role(node, &["ALONE"]);
        cluster.until("it serves", PATIENCE, || cluster.serves(node));
    }
    shell(
        cluster,
        primary,
        "cd /srv/ledger; echo first > both; rm removed; rm -r folder wide; mkdir link2; \
         rm first; mv second first; echo more >> first; \
         truncate -s 3 cut-off; echo new > new",
    );
    shell(
        cluster,
        secondary,
        "cd /srv/ledger; echo second > both; echo more >> removed; echo deeper > folder/deeper; \
         echo mine > only-here; echo 1 >> first; echo 2 >> second; \
         ln -s nowhere pointer; \
         printf change | dd of=large bs=1 seek=9000000 conv=notrunc status=none; \
         cp large /tmp/large",
    );
    cluster.lab().heal().unwrap();
    for node in NODES {
        cluster.until("the split is told", PATIENCE, || shows(cluster, node, "split-brain"));
    }
}

/// What each side did is told before one of them is chosen, from either node, and in pages.
fn what_differs_is_told(cluster: &Cluster, primary: &str, secondary: &str) {
    let files = |asked: &str, options: &[&str]| -> serde_json::Value {
        let said =
            cluster.must(asked, &[&["--json", "heal", "ledger", "--files"], options].concat());
        let reply: serde_json::Value = serde_json::from_str(&said).unwrap();
        reply["data"]["files"].clone()
    };
    let told = files(primary, &["5000"]);
    let listed = told["listed"].as_array().unwrap();
    let what = |name: &str| {
        let path = format!("/srv/ledger/{name}");
        let found = listed.iter().find(|one| one["path"] == path.as_str());
        found.map_or("equal", |one| one["what"].as_str().unwrap()).to_owned()
    };
    for (name, expected) in [
        ("both", "changed on both".to_owned()),
        // Both changed the directory: whether it was made on one or removed on the other is not
        // known of what one has changed.
        ("removed", format!("only on {secondary}")),
        // The other one changed the directory in which it lies: it may have been renamed there.
        ("folder/deep", format!("only on {secondary}")),
        ("wide/1", format!("removed on {primary}")),
        ("cut-off", format!("changed on {primary}")),
        ("large", format!("changed on {secondary}")),
        ("new", format!("only on {primary}")),
        ("only-here", format!("only on {secondary}")),
        ("pointer", format!("only on {secondary}")),
        ("second", format!("only on {secondary}")),
        // A link to it before, which the primary replaced and the secondary wrote through.
        ("first", format!("changed on {primary}")),
        ("statements/1.csv", format!("changed on {secondary}")),
        ("same", "equal".to_owned()),
        ("link", "equal".to_owned()),
    ] {
        assert_eq!(what(name), expected, "{name}: {told}");
    }
    let total = told["differ"].as_u64().unwrap();
    assert_eq!(listed.len() as u64, total);
    let page = files(primary, &["3", "--skip", "2"]);
    assert_eq!(page["listed"].as_array().unwrap()[..], listed[2..5]);
    assert_eq!(page["differ"], total);
    // The other node says the same; applications write meanwhile, and change no number of files.
    let there = files(secondary, &["0"]);
    assert_eq!((&there["counts"], &there["differ"]), (&told["counts"], &told["differ"]));
    assert_eq!(there["listed"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_split_brain_is_healed_and_nothing_is_thrown_away() {
    let cluster = without_witness();
    let primary = cluster.primary();
    let secondary = other(primary);
    shell(
        &cluster,
        primary,
        "cd /srv/ledger; echo shared > same; echo shared > both; echo shared > removed; \
         echo shared > cut-off; echo one > first; echo two > second; mkdir folder wide; \
         (cd wide; seq 2000 | xargs touch); echo deep > folder/deep; ln -s same link; \
         dd if=/dev/urandom of=large bs=1M count=24 status=none",
    );
    // Of what was changed just before a cut it is not told who did it.
    let made = Instant::now();
    cluster.until("that is some time ago", PATIENCE, || made.elapsed() > UNSURE);
    go_apart(&cluster, primary, secondary);
    let sides = cluster.must(primary, &["heal", "ledger"]);
    assert!(sides.contains("each went on without the other"), "{sides}");
    assert!(sides.contains("The last epoch that both know"), "{sides}");

    what_differs_is_told(&cluster, primary, secondary);
    let keep = ["heal", "ledger", "--keep", primary];
    let refused = cluster.command(primary, &keep);
    assert_eq!(refused.status.code(), Some(REFUSED), "{refused:?}");
    cluster.must(primary, &["stop", "ledger", "--node", secondary]);
    cluster.must(primary, &keep);
    paired(&cluster);
    assert_eq!(cluster.primary(), primary);

    let kept = quarantine(&cluster, secondary);
    assert_eq!(text(&kept, "both"), "second\n");
    assert_eq!(text(&kept, "removed"), "shared\nmore\n");
    assert_eq!(text(&kept, "cut-off"), "shared\n");
    assert_eq!(text(&kept, "folder/deep"), "deep\n");
    assert_eq!(text(&kept, "folder/deeper"), "deeper\n");
    assert_eq!(text(&kept, "only-here"), "mine\n");
    assert_eq!(fs::read_link(kept.join("pointer")).unwrap(), Path::new("nowhere"));
    // Two files may have had one path, one after the other: neither takes the place of the other.
    let mut both = [("first", "one\n1\n"), ("second", "two\n2\n")].map(|(name, content)| {
        let places = [name.to_owned(), "first.2".to_owned(), "first".to_owned()];
        let found = places.iter().filter_map(|name| fs::read_to_string(kept.join(name)).ok());
        (name, found.into_iter().any(|found| found == content))
    });
    both.sort_unstable();
    assert_eq!(both, [("first", true), ("second", true)]);
    assert_eq!(fs::read_dir(kept.join("wide")).unwrap().count(), 2000);
    let large = cluster.host(secondary).path("/tmp/large").unwrap();
    assert!(fs::read(kept.join("large")).unwrap() == fs::read(large).unwrap(), "large differs");
    for name in ["same", "link", "new", "link2"] {
        assert!(kept.join(name).symlink_metadata().is_err(), "{name} was never overwritten");
    }
    cluster.stop_and_compare();
    for (name, content) in [("both", "first\n"), ("cut-off", "sha"), ("new", "new\n")] {
        assert_eq!(text(&cluster.replica(secondary), name), content);
    }
}

#[test]
fn what_has_no_room_in_quarantine_is_not_overwritten() {
    let cluster = without_witness();
    let primary = cluster.primary();
    let secondary = other(primary);
    let write =
        "cd /srv/ledger; dd if=/dev/urandom of=large bs=1M count=24 status=none; sync large";
    shell(&cluster, primary, write);
    cluster.lab().cut(primary, secondary).unwrap();
    for node in NODES {
        cluster.wait_for_role(node, &["ALONE"]);
        cluster.until("it serves", PATIENCE, || cluster.serves(node));
        shell(&cluster, node, write);
    }
    let held = fs::read(cluster.replica(secondary).join("large")).unwrap();
    cluster.lab().heal().unwrap();
    for node in NODES {
        cluster.until("the split is told", PATIENCE, || shows(&cluster, node, "split-brain"));
    }
    cluster.lab().fill(secondary, FILLER).unwrap();
    cluster.must(primary, &["stop", "ledger", "--node", secondary]);
    std::thread::scope(|scope| {
        // It waits until all is well, which takes room.
        scope.spawn(|| cluster.must(primary, &["heal", "ledger", "--keep", primary]));
        for node in NODES {
            cluster.until(&format!("{node} tells why it does not go on"), PATIENCE, || {
                let why = cluster.command(node, &["why", "ledger"]).stdout;
                let why = String::from_utf8_lossy(&why).into_owned();
                why.contains("quarantine") && why.contains("No space left")
            });
        }
        assert!(cluster.serves(primary));
        let present = fs::read(cluster.replica(secondary).join("large")).unwrap();
        assert!(present == held, "it was overwritten and not kept");
        cluster.lab().unfill(secondary, FILLER).unwrap();
    });
    paired(&cluster);
    let kept = fs::read(quarantine(&cluster, secondary).join("large")).unwrap();
    assert!(kept == held, "it was not kept whole");
    assert_eq!(cluster.primary(), primary);
    cluster.stop_and_compare();
}

#[test]
fn nothing_is_healed_where_nothing_is_split() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    let said = cluster.must(primary, &["heal", "ledger"]);
    assert!(said.contains("have not gone apart"), "{said}");
    for keep in NODES {
        let refused = cluster.command(primary, &["heal", "ledger", "--keep", keep]);
        assert_eq!(refused.status.code(), Some(REFUSED), "{refused:?}");
    }
    cluster.wait_for(primary, "protected", PATIENCE);
    assert_eq!(cluster.primary(), primary);
}
