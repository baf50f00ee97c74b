//! Users that have other numbers on the other node are found when it joins, and named.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;
use std::os::unix::fs::chown;

use self::support::applications::{ledger, succeed};
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE};

/// A user and a group that every Debian has.
const NAME: &str = "www-data";

#[test]
fn an_owner_with_another_number_is_named_until_it_is_mended() {
    let cluster = Cluster::build_with(ledger(""), |hosts| {
        let place = hosts.host(NODES[0]).path("/srv/ledger/theirs").unwrap();
        fs::create_dir(&place).unwrap();
        chown(&place, Some(33), Some(33)).unwrap();
        // On the second node the user has another number, and there is no such group.
        let second = hosts.host(NODES[1]);
        let changed = |file: &str| fs::read_to_string(file).unwrap();
        let users =
            changed("/etc/passwd").replace(&format!("{NAME}:x:33:"), &format!("{NAME}:x:999:"));
        let groups = changed("/etc/group").replace(&format!("{NAME}:x:33:"), "other:x:33:");
        for (file, text) in [("passwd", users), ("group", groups)] {
            second.write_file(format!("/mnt/state/{file}"), text).unwrap();
            let bind = ["mount", "--bind", &format!("/mnt/state/{file}"), &format!("/etc/{file}")];
            succeed(&second, &bind);
        }
    });
    cluster.must(NODES[0], &["start", cluster.module()]);
    cluster.wait_for(NODES[0], "protected", SYNC_PATIENCE);
    let reasons = |node: &str| cluster.module_status(node).unwrap()["reasons"].to_string();
    cluster.until("the owner is named", PATIENCE, || reasons(NODES[1]).contains("owners-differ"));
    let told = reasons(NODES[1]);
    assert!(told.contains("user www-data is 33 on node1 and 999 here"), "{told}");
    assert!(told.contains("group www-data, 33 on node1, does not exist here"), "{told}");
    for file in ["passwd", "group"] {
        succeed(&cluster.host(NODES[1]), &["umount", &format!("/etc/{file}")]);
    }
    cluster.must(NODES[0], &["stop", cluster.module()]);
    for node in NODES {
        cluster.wait_for(node, "stopped", PATIENCE);
    }
    cluster.must(NODES[0], &["start", cluster.module()]);
    for node in NODES {
        cluster.wait_for(node, "protected", SYNC_PATIENCE);
    }
    assert!(!reasons(NODES[1]).contains("owners-differ"), "{}", reasons(NODES[1]));
}
