//! Disks that fill up, run out of inodes, turn read-only or break, on either node. A secondary's
//! disk ends the mirror visibly, disturbs nobody, and comes back by itself once it is cured; a
//! primary's error is the application's if it is one of space, and its end if the disk is broken.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use lab::SpawnSpec;

use self::support::applications::{ledger, succeed};
use self::support::observer::Observer;
use self::support::{Cluster, NETWORK, NODES, PATIENCE, SYNC_PATIENCE, other};

/// What fills a disk from outside the replica.
const FILLER: &str = "/srv/filler";
/// More inodes than a disk of the lab has.
const INODES_MAX: u32 = 1 << 20;

/// All that a node shows of the module, as text.
fn shown(cluster: &Cluster, node: &str) -> String {
    cluster.module_status(node).unwrap_or_default().to_string() + &cluster.must(node, &["events"])
}

/// Writes a file through the mount, durably.
fn write(cluster: &Cluster, name: &str, bytes: usize) -> std::io::Result<()> {
    let place = cluster.host(cluster.primary()).path("/srv/ledger").unwrap();
    let mut file = File::create(place.join(name))?;
    file.write_all(&vec![7; bytes])?;
    file.sync_all()
}

/// The mirror has ended, one of the nodes says why, and the application goes on.
fn ended(cluster: &Cluster, words: &str) {
    let primary = cluster.primary();
    cluster.until(&format!("the mirror ends over {words}"), PATIENCE, || {
        // Whichever is quicker: the target's failure, or its leaving the session.
        let told = NODES.iter().any(|node| shown(cluster, node).contains(words));
        cluster.role(primary) == "ALONE" && told
    });
    write(cluster, "meanwhile", 4096).unwrap();
}

#[test]
fn a_secondary_without_room_or_without_leave_to_write_comes_back_when_cured() {
    let cluster = Cluster::protected(ledger(""));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let secondary = other(primary);

    cluster.lab().fill(secondary, FILLER).unwrap();
    write(&cluster, "large", 8 << 20).unwrap();
    ended(&cluster, "No space left");
    cluster.progress(&workload);
    cluster.lab().unfill(secondary, FILLER).unwrap();
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);

    let inodes = cluster.host(secondary).path("/srv/inodes").unwrap();
    use_up_inodes(&inodes);
    for index in 0..64 {
        write(&cluster, &format!("small-{index}"), 10).unwrap();
    }
    ended(&cluster, "No space left");
    cluster.progress(&workload);
    fs::remove_dir_all(&inodes).unwrap();
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);

    // A disk on which files are open for writing cannot turn read-only, so the link is cut first.
    // From the witness as well, or it might go on in the other one's place.
    cluster.lab().cut_network(secondary, NETWORK).unwrap();
    cluster.wait_for_role(primary, &["ALONE"]);
    let host = cluster.host(secondary);
    cluster.until("a read-only disk", PATIENCE, || {
        host.run(["mount", "-o", "remount,ro", "/srv"]).unwrap().status.success()
    });
    cluster.lab().heal().unwrap();
    cluster.until("the secondary tells of its disk", PATIENCE, || {
        shown(&cluster, secondary).contains("takes no changes")
    });
    assert_eq!(cluster.role(primary), "ALONE");
    cluster.progress(&workload);
    succeed(&host, &["mount", "-o", "remount,rw", "/srv"]);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);

    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.stop_and_compare();
}

#[test]
fn a_secondary_whose_disk_breaks_is_dropped_and_returns_after_a_boot() {
    let cluster = Cluster::protected(ledger(""));
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let secondary = other(primary);
    cluster.lab().fail_disk(secondary, "data").unwrap();
    ended(&cluster, "nput/output error");
    cluster.progress(&workload);
    cluster.until("the secondary tells of its disk", PATIENCE, || {
        shown(&cluster, secondary).contains("copy-failed")
    });
    // It tries again by itself now and then, until it is refused.
    cluster.until("it does not count as a copy", PATIENCE, || cluster.role(secondary) != "SECOND");
    cluster.lab().kill(secondary).unwrap();
    cluster.boot_node(secondary);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.stop_and_compare();
}

#[test]
fn errors_of_space_at_the_primary_are_the_applications_and_change_nothing_else() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    cluster.lab().fill(primary, FILLER).unwrap();
    let error = write(&cluster, "large", 8 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    cluster.lab().unfill(primary, FILLER).unwrap();
    let inodes = cluster.host(primary).path("/srv/inodes").unwrap();
    use_up_inodes(&inodes);
    let error = (0..64).find_map(|i| write(&cluster, &format!("small-{i}"), 10).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    fs::remove_dir_all(&inodes).unwrap();
    // The limit of a process: the write is cut short, and the next one is refused.
    let script = "ulimit -f 8; trap '' XFSZ; \
                  dd if=/dev/zero of=/srv/ledger/limited bs=3000 count=5 2>/dev/null; \
                  test $(stat -c %s /srv/ledger/limited) -eq 8192 -o \
                       $(stat -c %s /srv/ledger/limited) -eq 4096";
    succeed(&cluster.host(primary), &["sh", "-c", script]);
    write(&cluster, "after", 1 << 20).unwrap();
    assert_eq!(cluster.role(primary), "PRIM", "{}", shown(&cluster, primary));
    cluster.stop_and_compare();
}

#[test]
fn a_primary_whose_disk_breaks_hands_over_and_nothing_is_read_from_it() {
    let cluster = Cluster::protected(ledger(""));
    let observer = Observer::start(&cluster);
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let survivor = other(primary);
    cluster.lab().fail_disk(primary, "data").unwrap();
    cluster.wait_for(survivor, "alone", PATIENCE);
    cluster.progress(&workload);
    assert!(!cluster.serves(primary), "{}", shown(&cluster, primary));
    assert!(shown(&cluster, primary).contains("copy-failed"), "{}", shown(&cluster, primary));
    cluster.lab().kill(primary).unwrap();
    cluster.boot_node(primary);
    cluster.wait_for(survivor, "protected", SYNC_PATIENCE);
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.books_balance();
    cluster.stop_and_compare();
    observer.finish();
}

/// Makes empty files until the file system has no inode left.
fn use_up_inodes(folder: &PathBuf) {
    fs::create_dir_all(folder).unwrap();
    for index in 0..INODES_MAX {
        match File::create(folder.join(index.to_string())) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("inode {index}: {error}"),
        }
    }
    panic!("the disk has more than {INODES_MAX} inodes");
}

#[test]
fn a_secondary_without_any_room_lets_its_peer_go_on_where_there_is_no_witness() {
    let cluster = Cluster::build_with(ledger(""), |hosts| hosts.without_witness(""));
    cluster.must(NODES[0], &["start", cluster.module()]);
    cluster.until("the pair is together", SYNC_PATIENCE, || {
        NODES.iter().any(|node| cluster.role(node) == "SECOND")
    });
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let secondary = other(primary);
    // Neither its data nor what it decides: yet it has to write down that its copy is not current.
    for filler in [FILLER, "/mnt/state/filler"] {
        cluster.lab().fill(secondary, filler).unwrap();
    }
    let rest = "i=0; while head -c 3000 /dev/urandom > /mnt/state/rest$i; do i=$((i+1)); done";
    succeed(&cluster.host(secondary), &["sh", "-c", rest]);
    // By a program that may be ended if it waits for ever.
    let large = ["sh", "-c", "head -c 8M /dev/zero > /srv/ledger/large"];
    let writer = cluster.host(primary).spawn(SpawnSpec::new(large)).unwrap();
    ended(&cluster, "No space left");
    writer.wait().unwrap();
    cluster.progress(&workload);
    for filler in [FILLER, "/mnt/state/filler"] {
        cluster.lab().unfill(secondary, filler).unwrap();
    }
    succeed(&cluster.host(secondary), &["sh", "-c", "rm /mnt/state/rest*"]);
    cluster.until("the pair is together again", SYNC_PATIENCE, || {
        cluster.role(primary) == "PRIM" && cluster.role(secondary) == "SECOND"
    });
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    cluster.stop_and_compare();
}
