//! Hosts that run a real systemd. Needs root and an installed systemd and says so.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use common::{leftovers, one_disk, options, reaches, shell};
use lab::{HostSpec, Lab};

#[test]
fn a_systemd_host_boots_answers_serves_and_leaves_nothing() {
    let hosts = vec![HostSpec::node("node1").systemd(), one_disk("node2")];
    let lab = Lab::create(options("sysd", hosts)).unwrap();
    let name = lab.name();
    let (node1, node2) = (lab.host("node1").unwrap(), lab.host("node2").unwrap());
    node1.wait_ready().unwrap();
    assert_eq!(shell(&node1, "cat /proc/1/comm"), "systemd");
    assert_eq!(shell(&node1, "hostname"), "node1");
    assert!(reaches(&node1, &node2) && reaches(&node2, &node1));

    let unit = "[Service]\nExecStart=/bin/sleep 1000\n";
    node1.write_file("/etc/systemd/system/sleeper.service", unit).unwrap();
    assert!(!std::path::Path::new("/etc/systemd/system/sleeper.service").exists());
    shell(&node1, "systemctl daemon-reload && systemctl start sleeper");
    assert_eq!(shell(&node1, "systemctl is-active sleeper"), "active");
    shell(&node1, "systemd-run --quiet --wait true");
    lab.freeze("node1").unwrap();
    lab.thaw("node1").unwrap();
    assert_eq!(shell(&node1, "systemctl is-active sleeper"), "active");

    let identity = shell(&node1, "cat /etc/machine-id");
    let boot_id = shell(&node1, "cat /proc/sys/kernel/random/boot_id");
    shell(&node1, "echo safe > /srv/safe; sync -f /srv/safe; echo lost > /srv/lost");
    lab.power("node1").unwrap();
    lab.start("node1").unwrap();
    node1.wait_ready().unwrap();
    assert_eq!(shell(&node1, "cat /srv/safe; ls /srv/lost 2>/dev/null || true"), "safe");
    assert_eq!(shell(&node1, "cat /etc/machine-id"), identity);
    assert_ne!(shell(&node1, "cat /proc/sys/kernel/random/boot_id"), boot_id);
    drop(lab);
    assert_eq!(leftovers(&name), Vec::<String>::new());
}

#[test]
fn a_kept_systemd_host_outlives_its_owner_and_is_removed() {
    let lab = Lab::create(options("sysk", vec![HostSpec::client("node1").systemd()])).unwrap();
    let lab = lab.keep().unwrap();
    let node = lab.host("node1").unwrap();
    node.wait_ready().unwrap();
    let name = lab.name();
    drop(lab);
    assert!(node.is_up());
    Lab::remove(&name).unwrap();
    assert_eq!(leftovers(&name), Vec::<String>::new());
}
