//! Databases on the mount: SQLite in both journal modes, and a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::Fixture;
use rusqlite::Connection;

#[test]
fn sqlite_works_in_both_journal_modes() {
    let mut fixture = Fixture::new("sqlite");
    for mode in ["WAL", "DELETE"] {
        let name = format!("{mode}.db");
        insert(&fixture.view.join(&name), mode, 0);
        let second = {
            let path = fixture.view.join(&name);
            std::thread::spawn(move || insert(&path, mode, 1000))
        };
        insert(&fixture.view.join(&name), mode, 2000);
        second.join().unwrap();
    }
    fixture.detach();
    for mode in ["WAL", "DELETE"] {
        let database = Connection::open(fixture.source.join(format!("{mode}.db"))).unwrap();
        let check: String = database.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
        let rows: i64 = database.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!((check.as_str(), rows), ("ok", 300));
    }
}

/// Commits 100 rows one by one, next to others who may be doing the same.
fn insert(path: &Path, mode: &str, first: i64) {
    let database = Connection::open(path).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    let set: String =
        database.query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0)).unwrap();
    assert_eq!(set.to_uppercase(), mode);
    database.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY)", []).unwrap();
    for id in first..first + 100 {
        database.execute("INSERT INTO t VALUES (?1)", [id]).unwrap();
    }
}

#[test]
fn postgresql_runs_pgbench() {
    let programs = Path::new("/usr/lib/postgresql/15/bin");
    assert!(programs.join("initdb").exists(), "apt-get install postgresql (version 15) first");
    let mut fixture = Fixture::new("postgresql");
    let user = Command::new("id").args(["-u", "postgres"]).output().unwrap();
    let user: u32 = String::from_utf8(user.stdout).unwrap().trim().parse().unwrap();
    std::os::unix::fs::chown(&fixture.view, Some(user), Some(user)).unwrap();
    let data = fixture.view.join("data");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(programs.join(program));
        let done = command.args(arguments).uid(user).gid(user).current_dir("/").output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{program} {arguments:?}: {text}{errors}");
        text
    };
    let data = data.to_str().unwrap();
    // The path of a socket is short.
    let sockets = format!("/tmp/evenkeel-mount-test-{}", std::process::id());
    std::fs::create_dir(&sockets).unwrap();
    std::os::unix::fs::chown(&sockets, Some(user), Some(user)).unwrap();
    run("initdb", &["-D", data, "-A", "trust"]);
    let options = format!("-k {sockets} -c listen_addresses=''");
    let log = format!("{data}/log");
    run("pg_ctl", &["-w", "-D", data, "-o", &options, "-l", &log, "start"]);
    run("pgbench", &["-h", &sockets, "-i", "postgres"]);
    let figures = run("pgbench", &["-h", &sockets, "-c", "4", "-T", "5", "postgres"]);
    run("pg_ctl", &["-w", "-D", data, "-m", "fast", "stop"]);
    assert!(figures.contains("number of failed transactions: 0"), "{figures}");
    fixture.detach();
    let checksum = fixture.source.join("data");
    run("pg_controldata", &["-D", checksum.to_str().unwrap()]);
    std::fs::remove_dir_all(&sockets).unwrap();
}
