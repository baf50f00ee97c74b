//! Quotas of btrfs, on either node. At the primary, what goes beyond is refused to the application
//! as natively, and the copies stay equal; at the secondary, the mirror ends visibly, disturbs
//! nobody, and comes back by itself once the limit is lifted. Full disks are for `faults`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use lab::{Disk, FsType};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use self::support::applications::{Application, ledger, succeed};
use self::support::{Cluster, Hosts, NODES, PATIENCE, SYNC_PATIENCE, other};

/// Where a node has the disk, and where it stays in sight when the module covers the directory.
const DISK: &str = "/mnt/quota";
const UNCOVERED: &str = "/run/lab/disk/quota";
/// The replicated directory, a subvolume, on which the limit is.
const DIRECTORY: &str = "/mnt/quota/data";
const DISK_BYTES: u64 = 512 << 20;
const LIMIT: &str = "16M";
/// More than the limit allows, and less than the disk has room for.
const LARGE_BYTES: usize = 64 << 20;
const CHUNK_BYTES: usize = 1 << 20;

/// The ledger with a second directory on btrfs.
fn limited() -> Application {
    let mut application = ledger("");
    let (one, both) = ("[\"/srv/ledger\"]", "[\"/srv/ledger\", \"/mnt/quota/data\"]");
    assert!(application.configuration.contains(one));
    application.configuration = application.configuration.replace(one, both);
    let disk = Disk { bytes: DISK_BYTES, fs: FsType::Btrfs, ..Disk::new("quota", DISK) };
    application.disks = vec![disk];
    application
}

/// Makes the subvolume on both nodes, and counts what it takes.
fn furnish(hosts: &Hosts) {
    for node in NODES {
        succeed(&hosts.host(node), &["btrfs", "subvolume", "create", DIRECTORY]);
        succeed(&hosts.host(node), &["btrfs", "quota", "enable", DISK]);
    }
}

/// A protected pair, with this limit at one of its nodes from then on.
fn protected() -> Cluster {
    let cluster = Cluster::build_with(limited(), furnish);
    cluster.must(NODES[0], &["start", cluster.module()]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    cluster
}

/// Sets the limit of the subvolume at a node, or lifts it by `none`.
fn limit(cluster: &Cluster, node: &str, limit: &str) {
    let host = cluster.host(node);
    let shown = succeed(&host, &["btrfs", "inspect-internal", "rootid", &subvolume()]);
    let group = format!("0/{}", shown.trim());
    succeed(&host, &["btrfs", "qgroup", "limit", limit, &group, UNCOVERED]);
}

fn subvolume() -> String {
    Path::new(UNCOVERED).join("data").display().to_string()
}

/// Writes a file piece by piece below a directory of the primary, durably; answers how much of it
/// was taken, and the error that ended it.
fn write(cluster: &Cluster, path: &str, bytes: usize) -> (usize, io::Result<()>) {
    let path = cluster.host(cluster.primary()).path(path).unwrap();
    let mut file = File::create(path).unwrap();
    let chunk: Vec<u8> = (0..CHUNK_BYTES).map(|index| (index / 7) as u8).collect();
    let mut done = 0;
    while done < bytes {
        let length = chunk.len().min(bytes - done);
        match file.write(&chunk[..length]) {
            Ok(count) => done += count,
            Err(error) => return (done, Err(error)),
        }
    }
    (done, file.sync_all())
}

fn is_over_quota(outcome: &io::Result<()>) -> bool {
    let errno = outcome.as_ref().err().and_then(io::Error::raw_os_error);
    errno == Some(Errno::DQUOT.raw_os_error())
}

/// All that a node shows of the module, as text.
fn shown(cluster: &Cluster, node: &str) -> String {
    cluster.module_status(node).unwrap_or_default().to_string() + &cluster.must(node, &["events"])
}

fn stop_and_compare(cluster: &Cluster) {
    cluster.stop_and_compare();
    let [one, two] = NODES.map(|node| cluster.host(node).disk_path("quota").unwrap().join("data"));
    let comparison = lab::compare::trees(&one, &two).unwrap();
    assert!(comparison.is_identical(), "{:?}", comparison.differences);
    assert!(comparison.entries > 1, "there was nothing to compare");
}

#[test]
fn a_quota_at_the_primary_is_the_applications_and_changes_nothing_else() {
    let cluster = protected();
    let primary = cluster.primary();
    limit(&cluster, primary, LIMIT);

    write(&cluster, "/mnt/quota/data/first", 8 << 20).1.unwrap();
    let (taken, outcome) = write(&cluster, "/mnt/quota/data/large", LARGE_BYTES);
    assert!(is_over_quota(&outcome), "{taken} bytes were taken");
    assert!(taken > 0 && taken < LARGE_BYTES, "{taken} bytes were taken");
    let place = cluster.host(primary).path(DIRECTORY).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(place.join("large")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), taken as u64, "no more than was acknowledged");
    // The same for a whole region at once, and for a write across the end of what there is.
    let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, LARGE_BYTES as u64);
    assert_eq!(allocated, Err(Errno::DQUOT));
    let across = file.write_all_at(&vec![9; LARGE_BYTES], taken as u64 - 100);
    assert!(is_over_quota(&across), "a write across the end");
    drop(file);
    // Names take room too: btrfs refuses these as well, unless something is left for them.
    for outcome in [
        fs::write(place.join("small"), "small"),
        fs::create_dir(place.join("directory")),
        fs::rename(place.join("large"), place.join("renamed")),
    ] {
        assert!(outcome.is_ok() || is_over_quota(&outcome), "{outcome:?}");
    }
    // Other directories have other limits.
    write(&cluster, "/srv/ledger/other", 1 << 20).1.unwrap();
    assert_eq!(cluster.role(primary), "PRIM", "{}", shown(&cluster, primary));
    assert_eq!(cluster.role(other(primary)), "SECOND", "{}", shown(&cluster, primary));

    // What is removed makes room, and so does another limit.
    fs::remove_file(place.join("first")).unwrap();
    // A moment later: its last descriptor is closed behind the application's back.
    cluster.until("there is room again", PATIENCE, || {
        write(&cluster, "/mnt/quota/data/second", 2 << 20).1.is_ok()
    });
    limit(&cluster, primary, "none");
    write(&cluster, "/mnt/quota/data/after", LARGE_BYTES).1.unwrap();
    assert_eq!(cluster.role(primary), "PRIM", "{}", shown(&cluster, primary));
    stop_and_compare(&cluster);
}

#[test]
fn a_quota_at_the_secondary_ends_the_mirror_until_it_is_lifted() {
    let cluster = protected();
    let workload = cluster.workload(1);
    cluster.progress(&workload);
    let primary = cluster.primary();
    let secondary = other(primary);
    limit(&cluster, secondary, LIMIT);

    let (_, outcome) = write(&cluster, "/mnt/quota/data/large", LARGE_BYTES);
    outcome.unwrap();
    cluster.until("the mirror ends over the quota", PATIENCE, || {
        let told = NODES.iter().any(|node| shown(&cluster, node).contains("quota exceeded"));
        cluster.role(primary) == "ALONE" && told
    });
    write(&cluster, "/mnt/quota/data/meanwhile", 4096).1.unwrap();
    cluster.progress(&workload);

    limit(&cluster, secondary, "none");
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    write(&cluster, "/mnt/quota/data/after", 1 << 20).1.unwrap();
    let acknowledged = workload.stop();
    cluster.nothing_lost(&acknowledged);
    stop_and_compare(&cluster);
}
