//! PostgreSQL as the workload's application, through a long-running `psql`.
//!
//! The table is `ledger(id)`; a transaction is an insert of one number. No passwords: the server
//! has to trust the client's address. A `psql` that fails or does not answer in time is killed.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::client::{Client, ClientError};

/// How long a start of `psql` with its connection may take.
const START_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an acknowledgement may take before the process is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long reading all numbers may take.
const IDS_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest complaint of `psql` that is passed on, in bytes.
const COMPLAINT_MAX: u64 = 1000;

const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY);";
/// Follows an answer of several lines.
const END: &str = "end";

/// Where a PostgreSQL server is and how to reach it.
#[derive(Debug, Clone)]
pub struct Psql {
    /// Address of the server.
    pub host: IpAddr,
    /// Its port.
    pub port: u16,
    /// The role to be.
    pub user: String,
    /// The database.
    pub database: String,
    /// Network namespace to start `psql` in; the calling thread's when absent.
    pub namespace: Option<Arc<OwnedFd>>,
}

impl Psql {
    /// Starts `psql` and waits until it is connected.
    ///
    /// # Errors
    /// When it is not installed (package `postgresql-client`) or does not connect within a second.
    pub fn connect(&self) -> Result<PsqlClient, ClientError> {
        let mut child = self.spawn().map_err(|source| self.failed(source))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(self.failed(io::ErrorKind::BrokenPipe.into()));
        };
        let lines = Lines { stdout, buffer: Vec::new() };
        let mut client = PsqlClient { psql: self.clone(), child, stdin, lines };
        client.run(&format!("SELECT '{END}';"), START_TIMEOUT)?;
        Ok(client)
    }

    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new("psql");
        command
            .args(["-qAtXw", "-v", "ON_ERROR_STOP=1", "-d", &self.connection_string()])
            .env("PGCONNECT_TIMEOUT", "1")
            .env("PGOPTIONS", "--client-min-messages=error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match &self.namespace {
            None => command.spawn(),
            // A process begins in the namespace of the thread that starts it.
            Some(namespace) => {
                let spawned = net::namespace::enter(namespace.as_fd(), || command.spawn());
                spawned.map_err(io::Error::other)?
            }
        }
    }

    /// A dead server shall be noticed within about a second, by lack of acknowledgements while
    /// something is under way and by probes while nothing is.
    fn connection_string(&self) -> String {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        format!(
            "host={} port={} user='{}' dbname='{}' connect_timeout=1 tcp_user_timeout=1000 \
             keepalives_idle=1 keepalives_interval=1 keepalives_count=1",
            self.host,
            self.port,
            quote(&self.user),
            quote(&self.database)
        )
    }

    fn peer(&self) -> String {
        format!("PostgreSQL at {} port {}", self.host, self.port)
    }

    fn failed(&self, source: io::Error) -> ClientError {
        let source = match source.kind() {
            io::ErrorKind::NotFound => {
                io::Error::other("psql is not installed; install the package postgresql-client")
            }
            _ => source,
        };
        ClientError::Connection { peer: self.peer(), source }
    }
}

/// A running, connected `psql`.
pub struct PsqlClient {
    psql: Psql,
    child: Child,
    stdin: ChildStdin,
    lines: Lines,
}

impl PsqlClient {
    /// Creates the table unless it exists.
    ///
    /// # Errors
    /// When the server refuses or does not answer in time.
    pub fn create_table(&mut self) -> Result<(), ClientError> {
        self.run(&format!("{CREATE_TABLE} SELECT '{END}';"), IDS_TIMEOUT).map(drop)
    }

    /// Sends statements whose last answer is `end` and returns the lines before it.
    fn run(&mut self, statements: &str, timeout: Duration) -> Result<Vec<String>, ClientError> {
        let until = Instant::now() + timeout;
        self.send(statements)?;
        let mut lines = Vec::new();
        loop {
            match self.line(until)? {
                line if line == END => return Ok(lines),
                line => lines.push(line),
            }
        }
    }

    fn send(&mut self, statements: &str) -> Result<(), ClientError> {
        let sent = self.stdin.write_all(format!("{statements}\n").as_bytes());
        sent.map_err(|error| self.give_up(error))
    }

    fn line(&mut self, until: Instant) -> Result<String, ClientError> {
        self.lines.next(until).map_err(|error| self.give_up(error))
    }

    /// Kills the process and makes an error of what it complained about last, if anything.
    fn give_up(&mut self, source: io::Error) -> ClientError {
        self.kill();
        let mut complaint = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            // The process is dead, so the pipe ends; what cannot be read is no complaint.
            let _ = stderr.take(COMPLAINT_MAX).read_to_end(&mut complaint);
        }
        let complaint = String::from_utf8_lossy(&complaint).trim().replace('\n', " ");
        if complaint.is_empty() {
            self.psql.failed(source)
        } else {
            ClientError::Refused { peer: self.psql.peer(), answer: complaint }
        }
    }

    fn kill(&mut self) {
        // Both fail only when the process has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client for PsqlClient {
    fn commit(&mut self, id: u64) -> Result<(), ClientError> {
        let until = Instant::now() + ANSWER_TIMEOUT;
        // Each statement commits by itself, so the number comes only after its insert is durable.
        self.send(&format!(
            "INSERT INTO ledger(id) VALUES ({id}) ON CONFLICT DO NOTHING; SELECT {id};"
        ))?;
        match self.line(until)? {
            line if line == id.to_string() => Ok(()),
            answer => Err(ClientError::Refused { peer: self.psql.peer(), answer }),
        }
    }

    fn ids(&mut self) -> Result<BTreeSet<u64>, ClientError> {
        let lines = self.run(&format!("SELECT id FROM ledger; SELECT '{END}';"), IDS_TIMEOUT)?;
        let parse = |line: String| {
            let refused = |_| ClientError::Refused { peer: self.psql.peer(), answer: line.clone() };
            line.parse().map_err(refused)
        };
        lines.into_iter().map(parse).collect()
    }
}

impl Drop for PsqlClient {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Lines from a pipe, each with a time until which it has to come.
struct Lines {
    stdout: ChildStdout,
    buffer: Vec<u8>,
}

impl Lines {
    fn next(&mut self, until: Instant) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.buffer.drain(..=end).take(end).collect();
                return String::from_utf8(line).map_err(io::Error::other);
            }
            self.fill(until)?;
        }
    }

    fn fill(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let left = Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut chunk = [0; 1 << 14];
        match self.stdout.read(&mut chunk) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.buffer.extend(&chunk[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}
