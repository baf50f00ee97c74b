//! Faults do what they say and nothing else. Needs root and says so.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{is_cut, one_disk, options, reaches, shell, two_nodes_and_a_client};
use lab::{Host, HostSpec, Lab, SpawnSpec};
use net::namespace::enter;

#[test]
fn cuts_hit_exactly_the_named_direction() {
    let lab = two_nodes_and_a_client("cut");
    let host = |name| lab.host(name).unwrap();
    let (node1, node2, client) = (host("node1"), host("node2"), host("client"));
    lab.cut("node1", "node2").unwrap();
    assert!(is_cut(&node1, &node2) && is_cut(&node2, &node1));
    for node in [&node1, &node2] {
        assert!(reaches(&client, node) && reaches(node, &client), "the client reaches both");
    }
    lab.restore("node2", "node1").unwrap();
    assert!(reaches(&node1, &node2) && reaches(&node2, &node1));
    lab.cut_one_way("node1", "node2").unwrap();
    assert!(is_cut(&node1, &node2));
    assert!(reaches(&node2, &node1), "the other direction stays");
    lab.heal().unwrap();
    assert!(reaches(&node1, &node2));
    lab.cut_network("node1", "lan0").unwrap();
    assert!(is_cut(&node1, &node2) && is_cut(&client, &node1));
    assert!(reaches(&client, &node2));
    lab.restore_network("node1", "lan0").unwrap();
    assert!(reaches(&node1, &node2));
    assert!(lab.cut("node1", "nobody").unwrap_err().to_string().contains("no host nobody"));
    assert!(lab.cut_network("node1", "wan").unwrap_err().to_string().contains("no network wan"));
}

#[test]
fn a_cut_of_datagrams_lets_connections_pass() {
    let lab = two_nodes_and_a_client("udp");
    let host = |name| lab.host(name).unwrap();
    let (node1, node2) = (host("node1"), host("node2"));
    lab.cut_datagrams("node1", "node2").unwrap();
    assert!(is_cut(&node1, &node2) && is_cut(&node2, &node1));
    assert!(reaches(&node1, &host("client")), "others are still reached");
    let address = SocketAddr::new(node2.address("lan0").unwrap(), 0);
    let inside = |host: &Host| host.netns().unwrap();
    let listener = enter(inside(&node2).as_fd(), || TcpListener::bind(address)).unwrap().unwrap();
    let target = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(10));
    enter(inside(&node1).as_fd(), connect).unwrap().unwrap();
    lab.restore("node2", "node1").unwrap();
    assert!(reaches(&node1, &node2) && reaches(&node2, &node1));
}

#[test]
fn a_host_boots_with_the_clock_that_was_set() {
    let lab = Lab::create(options("clock", vec![HostSpec::client("node1")])).unwrap();
    let node = lab.host("node1").unwrap();
    let uptime = || {
        let spec = SpawnSpec::new(["cat", "/proc/uptime"]).log("uptime.log");
        node.spawn(spec).unwrap().wait().unwrap();
        let log = node.log("uptime.log").unwrap();
        let last = log.lines().last().unwrap();
        last.split('.').next().unwrap().parse::<u64>().unwrap()
    };
    let before = uptime();
    lab.kill("node1").unwrap();
    lab.set_boot_clock("node1", 1_000_000).unwrap();
    lab.start("node1").unwrap();
    let ahead = uptime() - before;
    assert!((1_000_000..1_001_000).contains(&ahead), "{ahead} s ahead");
    lab.kill("node1").unwrap();
    lab.set_boot_clock("node1", 0).unwrap();
    lab.start("node1").unwrap();
    assert!(uptime() - before < 1000);
}

#[test]
fn cuts_and_pulled_cables_outlast_a_boot() {
    let lab = two_nodes_and_a_client("last");
    let host = |name| lab.host(name).unwrap();
    lab.cut("node1", "node2").unwrap();
    lab.cut_network("client", "lan0").unwrap();
    for name in ["node1", "client"] {
        lab.kill(name).unwrap();
        lab.start(name).unwrap();
    }
    assert!(is_cut(&host("node1"), &host("node2")));
    assert!(is_cut(&host("client"), &host("node2")));
    lab.heal().unwrap();
    assert!(reaches(&host("node1"), &host("node2")));
    assert!(reaches(&host("client"), &host("node2")));
}

#[test]
fn a_kill_ends_everything_even_what_ignores_signals() {
    let lab = Lab::create(options("kill", vec![one_disk("node1")])).unwrap();
    let node = lab.host("node1").unwrap();
    let stubborn = "trap '' TERM INT HUP QUIT; (sleep 1000 & sleep 1000) & echo up; sleep 1000";
    let process = node.spawn(SpawnSpec::new(["setsid", "sh", "-c", stubborn])).unwrap();
    let mut command = node.command(["sh", "-c", "echo up; sleep 1000"]).unwrap();
    let mut entered = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 3];
    entered.stdout.take().unwrap().read_exact(&mut said).unwrap();
    lab.kill("node1").unwrap();
    assert!(!process.is_alive());
    assert!(!entered.wait().unwrap().success(), "what was run by entering ends too");
    assert!(node.init().is_err());
}

#[test]
fn a_host_that_is_killed_says_nothing_that_its_filter_kept_back() {
    let lab = two_nodes_and_a_client("silent");
    let port = 9;
    let target = SocketAddr::new(lab.host("node1").unwrap().address("lan0").unwrap(), port);
    let client = lab.host("client").unwrap().netns().unwrap();
    for _ in 0..3 {
        let node = lab.host("node1").unwrap();
        enter(client.as_fd(), || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(target).unwrap();
            // Nobody listens there: the kernel says so, as long as nothing keeps it from that.
            while socket.send(b"?").is_ok() {}
            filter(&node, port);
            let killed = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    // What the kernel said before there was a filter.
                    let _ = socket.take_error();
                    let mut more = 0;
                    while more < 20_000 {
                        more += u32::from(killed.load(Ordering::Relaxed));
                        socket.send(b"?")?;
                    }
                    Ok::<_, std::io::Error>(())
                });
                lab.kill("node1").unwrap();
                killed.store(true, Ordering::Relaxed);
                sender.join().unwrap().unwrap();
            });
        })
        .unwrap();
        lab.start("node1").unwrap();
    }
}

/// Has a host drop the datagrams for a port as they come from the device.
fn filter(host: &Host, port: u16) {
    shell(host, "nft add table netdev quiet");
    let hook = "{ type filter hook ingress device lan0 priority 0; }";
    shell(host, &format!("nft 'add chain netdev quiet in {hook}'"));
    shell(host, &format!("nft add rule netdev quiet in udp dport {port} drop"));
}

#[test]
fn power_loss_keeps_what_was_synced_and_nothing_else() {
    let lab = Lab::create(options("power", vec![HostSpec::node("node1")])).unwrap();
    let node = lab.host("node1").unwrap();
    // The journal commits by itself every few seconds: the unsynced part comes last, and power is
    // lost at once.
    shell(&node, "head -c 300000 /dev/urandom > /srv/old; sync");
    shell(&node, "echo safe > /srv/synced; sync /srv/synced; sync -f /srv/synced");
    shell(&node, "echo lost > /srv/unsynced; echo lost >> /srv/synced; echo x > /mnt/state/lost");
    lab.power("node1").unwrap();
    assert!(!node.is_up());
    lab.start("node1").unwrap();
    assert_eq!(shell(&node, "cat /srv/synced"), "safe");
    assert_eq!(shell(&node, "wc -c < /srv/old"), "300000");
    assert!(!shell(&node, "cat /srv/unsynced 2>&1 || true").contains("lost"));
    assert_eq!(shell(&node, "cat /mnt/state/lost 2>/dev/null || true"), "");
    shell(&node, "echo again > /srv/new; sync /srv/new");
}

#[test]
fn a_frozen_host_stands_still_and_goes_on_when_thawed() {
    let lab = Lab::create(options("freeze", vec![one_disk("node1")])).unwrap();
    let node = lab.host("node1").unwrap();
    let count = "i=0; while :; do i=$((i+1)); echo $i > /srv/.n; mv /srv/.n /srv/count; done";
    let counter = node.spawn(SpawnSpec::new(["sh", "-c", count])).unwrap();
    // A shell under the name of our daemon: stopped by signal, not by the freezer alone.
    shell(&node, "mkdir -p /srv/bin; cp /bin/sh /srv/bin/evenkeel");
    let spin = ["/srv/bin/evenkeel", "-c", "while :; do :; done", "daemon"];
    let daemon = node.spawn(SpawnSpec::new(spin)).unwrap().outside.unwrap().pid;
    let read = || node.read_file("/srv/count").unwrap_or_default();
    // Before it is that program it has another name.
    let is_it = || std::fs::read(format!("/proc/{daemon}/cmdline")).unwrap().starts_with(b"/srv/");
    while read().is_empty() || !is_it() {
        std::thread::yield_now();
    }
    lab.freeze("node1").unwrap();
    let (first, ticks) = (read(), cpu_ticks(counter.outside.unwrap().pid));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(read(), first, "nothing moves");
    assert_eq!(cpu_ticks(counter.outside.unwrap().pid), ticks);
    assert_eq!(state(daemon), "T");
    lab.thaw("node1").unwrap();
    assert_ne!(state(daemon), "T");
    while read() == first {
        std::thread::yield_now();
    }
    lab.freeze("node1").unwrap();
    lab.power("node1").unwrap();
    lab.start("node1").unwrap();
    shell(&node, "true");
    lab.freeze("node1").unwrap();
    lab.kill("node1").unwrap();
    lab.start("node1").unwrap();
    shell(&node, "true");
}

#[test]
fn a_host_freezes_and_dies_while_a_process_waits_for_fuse() {
    let lab = Lab::create(options("stuck", vec![one_disk("node1")])).unwrap();
    let node = lab.host("node1").unwrap();
    shell(&node, "mkdir /srv/mnt");
    let server = ["/run/lab/evenkeel", "stuck-mount", "/srv/mnt", "daemon"];
    let server = node.spawn(SpawnSpec::new(server).log("server.log")).unwrap();
    let said = || node.log("server.log").unwrap();
    while said() != "mounted\n" {
        assert!(server.is_alive(), "{}", said());
        std::thread::yield_now();
    }
    let waiting = node.spawn(SpawnSpec::new(["touch", "/srv/mnt/file"])).unwrap();
    let (server, waiting) = (server.outside.unwrap(), waiting.outside.unwrap());
    while !kernel_stack(waiting.pid).contains("fuse") {
        assert!(waiting.is_alive(), "it waits until the file system answers, which is never");
        std::thread::yield_now();
    }
    lab.freeze("node1").unwrap();
    assert_eq!(state(server.pid), "T");
    lab.thaw("node1").unwrap();
    assert_ne!(state(server.pid), "T");
    lab.freeze("node1").unwrap();
    lab.power("node1").unwrap();
    assert!(!server.is_alive() && !waiting.is_alive());
    lab.start("node1").unwrap();
}

#[test]
fn a_full_disk_refuses_and_takes_again() {
    let lab = Lab::create(options("fill", vec![one_disk("node1")])).unwrap();
    let node = lab.host("node1").unwrap();
    assert!(lab.fill("node1", "/srv/ballast").unwrap() > 1 << 20);
    let full = node.run(["sh", "-c", "head -c 100000 /dev/zero > /srv/more"]).unwrap();
    assert!(!full.status.success());
    assert!(String::from_utf8_lossy(&full.stderr).contains("No space left"));
    lab.unfill("node1", "/srv/ballast").unwrap();
    shell(&node, "head -c 100000 /dev/zero > /srv/more");
}

fn cpu_ticks(pid: i32) -> String {
    stat(pid)[11..13].join(" ")
}

fn kernel_stack(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/stack")).unwrap()
}

fn state(pid: i32) -> String {
    stat(pid)[0].clone()
}

/// The fields of `/proc/PID/stat` from the state on.
fn stat(pid: i32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = text.rsplit_once(')').unwrap().1.split_ascii_whitespace();
    fields.map(str::to_owned).collect()
}
