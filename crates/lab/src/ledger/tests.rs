//! The ledger over loopback, its server in a process of its own that can be killed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the test's failure")]

use std::collections::BTreeSet;
use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use net::link::Netlink;
use net::namespace::{NetNs, enter};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const DIRECTORY: &str = "LEDGER_TEST_DIRECTORY";
const LISTEN: &str = "LEDGER_TEST_LISTEN";

/// A directory that goes with its owner.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("ledger-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server process; killed with its owner.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(directory: &Path, address: SocketAddr) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::serve_as_a_process", "--ignored"])
            .env(DIRECTORY, directory)
            .env(LISTEN, address.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, address };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "the server does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn client(&self) -> LedgerClient {
        LedgerClient::connect(self.address, Duration::from_secs(5)).unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
#[ignore = "no test: the server process of the others"]
fn serve_as_a_process() {
    let (Some(directory), Ok(listen)) = (env::var_os(DIRECTORY), env::var(LISTEN)) else {
        return;
    };
    server::run(Path::new(&directory), listen.parse().unwrap()).unwrap();
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let directory = Directory::new("kill");
    let mut server = Server::start(&directory.0, free_address());
    let address = server.address;
    let workload = Workload::ledger(address, 1, None).unwrap();
    for _ in 0..5 {
        assert!(
            workload.wait_for_progress(Instant::now(), PATIENCE),
            "{:?}",
            workload.last_error()
        );
        thread::sleep(Duration::from_millis(100));
        let mark = Instant::now();
        server.kill();
        thread::sleep(Duration::from_millis(150));
        server = Server::start(&directory.0, address);
        assert!(
            workload.wait_for_progress(Instant::now(), PATIENCE),
            "{:?}",
            workload.last_error()
        );
        let outage = workload.outages_since(mark);
        assert!(outage.length >= Duration::from_millis(150) && !outage.ongoing, "{outage:?}");
    }
    let acknowledged = workload.stop();
    let expected: Vec<u64> = (1..=acknowledged.len() as u64).collect();
    assert_eq!(acknowledged, expected, "a number is tried until it is acknowledged");
    let mut client = server.client();
    let present = client.ids().unwrap();
    assert!(acknowledged.iter().all(|id| present.contains(id)));
    assert!(present.len() - acknowledged.len() <= 1, "at most one was under way at the end");
    assert_eq!(client.balance().unwrap(), 0);
    assert_eq!(client.ask("COUNT").unwrap(), format!("OK {}", present.len()));
}

#[test]
fn the_same_number_is_booked_once() {
    let directory = Directory::new("twice");
    let server = Server::start(&directory.0, free_address());
    let mut client = server.client();
    assert_eq!(client.ask("TRANSFER 7 1 2 300").unwrap(), "OK 7");
    assert_eq!(client.ask("TRANSFER 7 1 2 300").unwrap(), "OK 7");
    let answer = client.ask("TRANSFER 7 1 2 301").unwrap();
    assert_eq!(answer, "ERR number 7 was booked with other content");
    assert_eq!(client.ask("COUNT").unwrap(), "OK 1");
    assert_eq!(client.ids().unwrap(), BTreeSet::from([7]));
}

#[test]
fn hostile_lines_are_refused_and_change_nothing() {
    let directory = Directory::new("hostile");
    let server = Server::start(&directory.0, free_address());
    let mut client = server.client();
    client.transfer(1).unwrap();
    let long = "x".repeat(5000);
    let long_transfer = format!("TRANSFER 2 1 2 {}3", "0".repeat(300));
    for line in [
        "",
        " ",
        "garbage",
        "TRANSFER",
        "TRANSFER 2 1 2",
        "TRANSFER 2 1 2 3 4",
        "TRANSFER  2 1 2 3",
        "TRANSFER -2 1 2 3",
        "TRANSFER +2 1 2 3",
        "TRANSFER 0 1 2 3",
        "TRANSFER 2 1 2 -3",
        "TRANSFER 2 1 2 0",
        "TRANSFER 2 1 1 3",
        "TRANSFER 2 1 2 9223372036854775808",
        "TRANSFER 9223372036854775808 1 2 3",
        "TRANSFER 2 4294967296 2 3",
        "TRANSFER 2 1 2 3; DROP TABLE transfer",
        "transfer 2 1 2 3",
        "IDS",
        "IDS -1",
        "COUNT 1",
        "\u{7f}\u{0}\u{1b}[2J",
        "é",
        long.as_str(),
        long_transfer.as_str(),
    ] {
        let answer = client.ask(line).unwrap();
        assert!(answer.starts_with("ERR "), "{line:?} was answered with {answer:?}");
    }
    let mut raw = TcpStream::connect(server.address).unwrap();
    raw.write_all(b"\xff\xfe\nTRANSFER 2 1 2 3").unwrap();
    raw.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "ERR not text\n", "a line without an end is not carried out");
    assert_eq!(client.ask("PING").unwrap(), "OK");
    assert_eq!(client.ids().unwrap(), BTreeSet::from([1]));
    assert_eq!(client.balance().unwrap(), 0);
}

#[test]
fn an_overflowing_account_is_refused() {
    let directory = Directory::new("overflow");
    let server = Server::start(&directory.0, free_address());
    let mut client = server.client();
    let most = i64::MAX;
    assert_eq!(client.ask(&format!("TRANSFER 1 1 2 {most}")).unwrap(), "OK 1");
    let answer = client.ask(&format!("TRANSFER 2 3 2 {most}")).unwrap();
    assert!(answer.starts_with("ERR "), "{answer}");
    assert_eq!(client.ask("COUNT").unwrap(), "OK 1");
    assert_eq!(client.balance().unwrap(), 0);
}

#[test]
fn an_endless_line_ends_the_connection_only() {
    let directory = Directory::new("endless");
    let server = Server::start(&directory.0, free_address());
    let mut raw = TcpStream::connect(server.address).unwrap();
    let chunk = [b'x'; 1 << 16];
    // Fails once the server has closed; far more than fits into socket buffers.
    let cut = (0..1000).any(|_| raw.write_all(&chunk).is_err());
    assert!(cut, "the server reads a line without end");
    assert_eq!(server.client().ask("PING").unwrap(), "OK");
}

#[test]
fn many_numbers_are_streamed() {
    let directory = Directory::new("many");
    let mut store = store::Store::open(&directory.0).unwrap();
    for id in 1..=2500 {
        store.book(store::Transfer { id, from: 1, to: 2, cents: 1 }).unwrap();
    }
    drop(store);
    let server = Server::start(&directory.0, free_address());
    assert_eq!(server.client().ids().unwrap(), (1..=2500).collect());
    assert_eq!(server.client().ask("IDS 2500").unwrap(), "END 0");
}

#[test]
fn sigterm_ends_it_cleanly_with_clients_connected() {
    let directory = Directory::new("term");
    let mut server = Server::start(&directory.0, free_address());
    let mut client = server.client();
    client.transfer(1).unwrap();
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(server.child.wait().unwrap().success());
    assert!(client.transfer(2).is_err());
    let left: Vec<_> = std::fs::read_dir(&directory.0).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(left.len(), 1, "closing merges the journal: {left:?}");
}

#[test]
fn a_second_server_on_the_same_books_is_refused() {
    let directory = Directory::new("second");
    let _server = Server::start(&directory.0, free_address());
    let error = server::run(&directory.0, free_address()).unwrap_err().to_string();
    assert!(error.contains("ledger.db") && error.contains("locked"), "{error}");
}

#[test]
fn the_address_may_come_later_and_the_workload_may_be_in_a_namespace() {
    let namespace = NetNs::create().expect("network namespaces need root");
    NetNs::set_loopback_up(namespace.as_fd()).unwrap();
    let directory = Directory::new("later");
    let address: SocketAddr = "10.9.9.9:4000".parse().unwrap();
    let child = enter(namespace.as_fd(), || {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::serve_as_a_process", "--ignored"])
            .env(DIRECTORY, &directory.0)
            .env(LISTEN, address.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    });
    let _server = Server { child: child.unwrap(), address };
    let inside = namespace.try_clone().unwrap();
    let workload = Workload::ledger(address, 1, Some(inside)).unwrap();
    assert!(!workload.wait_for_progress(Instant::now(), Duration::from_millis(300)));
    assert!(workload.outages_since(Instant::now()).ongoing);
    assert!(workload.last_error().unwrap().contains("10.9.9.9:4000"));
    enter(namespace.as_fd(), || {
        Netlink::open().unwrap().add_address("lo", address.ip(), 32, None).unwrap();
    })
    .unwrap();
    assert!(workload.wait_for_progress(Instant::now(), PATIENCE), "{:?}", workload.last_error());
    assert!(!workload.stop().is_empty());
}

#[test]
fn psql_without_a_server_fails_fast() {
    let namespace = NetNs::create().expect("network namespaces need root");
    NetNs::set_loopback_up(namespace.as_fd()).unwrap();
    let start = Instant::now();
    let error = psql_in(Arc::new(namespace)).connect().map(drop).unwrap_err().to_string();
    assert!(error.starts_with("PostgreSQL at 127.0.0.1 port 5432 answers: "), "{error}");
    assert!(error.contains("refused"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_killed_postgresql_loses_nothing_acknowledged() {
    let namespace = Arc::new(NetNs::create().expect("network namespaces need root"));
    NetNs::set_loopback_up(namespace.as_fd()).unwrap();
    let directory = Directory::new("postgresql");
    let programs = postgresql_programs();
    let account = std::fs::read_to_string("/etc/passwd").unwrap();
    let account = account.lines().find_map(|line| line.strip_prefix("postgres:x:"));
    let mut ids = account.expect("the user postgres").split(':').map(|id| id.parse().unwrap_or(0));
    let (uid, gid) = (ids.next().unwrap(), ids.next().unwrap());
    std::os::unix::fs::chown(&directory.0, Some(uid), Some(gid)).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(programs.join(program));
        command.args(arguments).arg("-D").arg(directory.0.join("data")).uid(uid).gid(gid);
        command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        enter(namespace.as_fd(), || command.spawn().unwrap()).unwrap()
    };
    assert!(run("initdb", &["-A", "trust", "-N"]).wait().unwrap().success());
    let start = || run("postgres", &["-h", "127.0.0.1", "-k", ""]);

    let mut server = Server { child: start(), address: "127.0.0.1:5432".parse().unwrap() };
    let psql = psql_in(Arc::clone(&namespace));
    let end = Instant::now() + PATIENCE;
    while let Err(error) = psql.connect().and_then(|mut client| client.create_table()) {
        assert!(Instant::now() < end, "{error}");
        thread::sleep(Duration::from_millis(50));
    }
    let connect = psql.clone();
    let connect =
        move || -> Result<Box<dyn Client>, ClientError> { Ok(Box::new(connect.connect()?)) };
    let workload = Workload::start(1, None, Box::new(connect)).unwrap();
    assert!(workload.wait_for_progress(Instant::now(), PATIENCE), "{:?}", workload.last_error());
    server.kill();
    // The server's processes notice by themselves that their parent is gone.
    let end = Instant::now() + PATIENCE;
    server = loop {
        let mut child = start();
        thread::sleep(Duration::from_millis(300));
        if child.try_wait().unwrap().is_none() {
            break Server { child, address: server.address };
        }
        assert!(Instant::now() < end, "PostgreSQL does not start again");
    };
    assert!(workload.wait_for_progress(Instant::now(), PATIENCE), "{:?}", workload.last_error());
    let acknowledged = workload.stop();
    let mut client = psql.connect().unwrap();
    let present = client.ids().unwrap();
    assert!(acknowledged.len() > 1 && acknowledged.iter().all(|id| present.contains(id)));

    // As after a power failure: nothing answers, nothing refuses.
    enter(namespace.as_fd(), || Netlink::open().unwrap().set_down("lo")).unwrap().unwrap();
    let start = Instant::now();
    assert!(client.commit(u64::from(u32::MAX)).is_err());
    assert!(start.elapsed() < Duration::from_secs(2));
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(server.child.wait().unwrap().success());
}

fn psql_in(namespace: Arc<OwnedFd>) -> Psql {
    Psql {
        host: "127.0.0.1".parse().unwrap(),
        port: 5432,
        user: "postgres".into(),
        database: "postgres".into(),
        namespace: Some(namespace),
    }
}

/// Where Debian has the newest installed PostgreSQL.
fn postgresql_programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.expect("this test needs the package postgresql");
    let newest = versions.map(|entry| entry.unwrap().path()).max();
    newest.expect("this test needs the package postgresql").join("bin")
}
