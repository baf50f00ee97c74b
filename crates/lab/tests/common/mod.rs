//! What the lab's tests share: options of small labs and a look at what a lab left behind.

#![allow(dead_code, reason = "each test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lab::{Disk, Host, HostSpec, Lab, LabOptions};

/// The binary with `lab-init` and `lab-enter`; cargo builds it before the tests.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("examples/lab_host");
    assert!(path.exists(), "{} is missing: cargo build -p lab --examples", path.display());
    path
}

/// A name that no other test uses at the same time.
pub fn fresh_name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn small(mut host: HostSpec) -> HostSpec {
    for disk in &mut host.disks {
        disk.bytes = 64 << 20;
    }
    host
}

pub fn options(what: &str, hosts: Vec<HostSpec>) -> LabOptions {
    LabOptions {
        name: fresh_name(what),
        binary: binary(),
        networks: vec!["lan0".into()],
        hosts: hosts.into_iter().map(small).collect(),
    }
}

pub fn two_nodes_and_a_client(what: &str) -> Lab {
    let hosts = vec![HostSpec::node("node1"), HostSpec::node("node2"), HostSpec::client("client")];
    Lab::create(options(what, hosts)).unwrap()
}

pub fn one_disk(name: &str) -> HostSpec {
    HostSpec { disks: vec![Disk::new("data", "/srv")], ..HostSpec::node(name) }
}

pub fn shell(host: &Host, script: &str) -> String {
    text(&host.run(["sh", "-c", script]).unwrap())
}

pub fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Whether datagrams from one host come to arrive at another; tried long enough for the address
/// resolution of a healed link to be repeated.
pub fn reaches(from: &Host, to: &Host) -> bool {
    arrives(from, to, 500)
}

/// Whether no datagram of many from one host arrives at another.
pub fn is_cut(from: &Host, to: &Host) -> bool {
    !arrives(from, to, 25)
}

fn arrives(from: &Host, to: &Host, tries: u32) -> bool {
    let receiver = bind(to);
    let sender = bind(from);
    let port = receiver.local_addr().unwrap().port();
    let target = SocketAddr::new(to.address("lan0").unwrap(), port);
    receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let source = sender.local_addr().unwrap();
    for _ in 0..tries {
        // A link that is down may refuse to send: that is the answer sought.
        let _ = sender.send_to(b"here", target);
        let mut buffer = [0; 16];
        if let Ok((_, address)) = receiver.recv_from(&mut buffer) {
            assert_eq!(address, source);
            return true;
        }
    }
    false
}

fn bind(host: &Host) -> std::net::UdpSocket {
    let address = SocketAddr::new(host.address("lan0").unwrap(), 0);
    let netns = host.netns().unwrap();
    net::namespace::enter(netns.as_fd(), || std::net::UdpSocket::bind(address)).unwrap().unwrap()
}

/// Everything on this machine that names the lab: mounts, loop devices, cgroups, processes, files.
pub fn leftovers(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(name) {
            found.push(format!("{:?} of {file}", entry.file_name()));
        }
    }
    for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        let dir = Path::new(root).join("evenkeel-lab").join(name);
        if dir.exists() {
            found.push(dir.display().to_string());
        }
    }
    let dir = lab::base_dir().join(name);
    if dir.exists() {
        found.push(dir.display().to_string());
    }
    found.extend(processes_of(name));
    found
}

fn processes_of(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().into_string().unwrap_or_default().parse::<u32>() else {
            continue;
        };
        if is_foreign_zombie(&entry.path()) {
            continue;
        }
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let ours = arguments.contains("lab-init") && arguments.contains(name);
        if ours || cgroup.contains(&format!("evenkeel-lab/{name}")) {
            found.push(format!("process {pid}: {arguments}"));
        }
    }
    found
}

/// A dead process that some other parent, the machine's init, has yet to reap.
fn is_foreign_zombie(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
    let own = std::process::id().to_string();
    field("State:").trim().starts_with('Z') && field("PPid:").trim() != own
}
