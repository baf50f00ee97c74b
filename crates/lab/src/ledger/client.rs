//! The client's side of the ledger, and what a workload needs of any application's client.
//!
//! A client is one connection: after an error it is thrown away, and the caller makes another one.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest answer, in bytes.
const ANSWER_LENGTH_MAX: u64 = 4096;

/// Accounts that money is sent around between.
const ACCOUNTS: u64 = 10;

/// A connection to an application that keeps transactions.
pub trait Client {
    /// Commits transaction `id`, and returns once the application has acknowledged it. Committing
    /// the same one again succeeds and changes nothing.
    ///
    /// # Errors
    /// When there is no acknowledgement in time; the transaction may have been committed or not.
    fn commit(&mut self, id: u64) -> Result<(), ClientError>;

    /// The transactions that the application has.
    ///
    /// # Errors
    /// When they cannot be read completely.
    fn ids(&mut self) -> Result<BTreeSet<u64>, ClientError>;
}

/// Why an application did not acknowledge.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached, has gone, or does not answer in time.
    #[error("no answer from {peer}: {source}")]
    Connection {
        /// Whom we spoke to.
        peer: String,
        /// What happened.
        source: io::Error,
    },
    /// It answered, but not with what was asked for.
    #[error("{peer} answers: {answer}")]
    Refused {
        /// Whom we spoke to.
        peer: String,
        /// What it said.
        answer: String,
    },
}

/// A connection to the ledger's server.
pub struct LedgerClient {
    stream: BufReader<TcpStream>,
    peer: SocketAddr,
}

impl LedgerClient {
    /// Connects; the timeout holds for connecting and later for each answer.
    ///
    /// # Errors
    /// When nobody accepts in time.
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, ClientError> {
        Self::connect_within(address, timeout, timeout)
    }

    /// Connects, with a timeout for connecting and another for each answer.
    ///
    /// # Errors
    /// When nobody accepts in time.
    pub fn connect_within(
        address: SocketAddr,
        connect: Duration,
        answer: Duration,
    ) -> Result<Self, ClientError> {
        let connect = || -> io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&address, connect)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(answer))?;
            stream.set_write_timeout(Some(answer))?;
            Ok(stream)
        };
        let stream = connect().map_err(|source| connection(address, source))?;
        Ok(Self { stream: BufReader::new(stream), peer: address })
    }

    /// Books a transfer whose accounts and amount follow from its number.
    ///
    /// # Errors
    /// When there is no acknowledgement in time; it may have been booked or not.
    pub fn transfer(&mut self, id: u64) -> Result<(), ClientError> {
        let from = id % ACCOUNTS;
        let to = (from + 1 + id / ACCOUNTS % (ACCOUNTS - 1)) % ACCOUNTS;
        let cents = 1 + id % 1000;
        let answer = self.ask(&format!("TRANSFER {id} {from} {to} {cents}"))?;
        if answer == format!("OK {id}") { Ok(()) } else { Err(self.refused(answer)) }
    }

    /// The numbers of all transfers.
    ///
    /// # Errors
    /// When they cannot be read completely.
    pub fn ids(&mut self) -> Result<BTreeSet<u64>, ClientError> {
        let mut ids = BTreeSet::new();
        let mut line = self.ask("IDS 0")?;
        loop {
            if let Ok(id) = line.parse() {
                ids.insert(id);
            } else if line == format!("END {}", ids.len()) {
                return Ok(ids);
            } else {
                return Err(self.refused(line));
            }
            line = self.answer()?;
        }
    }

    /// The sum of all accounts, in cents; anything but 0 means that money was made or lost.
    ///
    /// # Errors
    /// When the server does not answer or finds its books damaged.
    pub fn balance(&mut self) -> Result<i64, ClientError> {
        let answer = self.ask("BALANCE")?;
        let sum = answer.strip_prefix("OK ").and_then(|sum| sum.parse().ok());
        sum.ok_or_else(|| self.refused(answer))
    }

    /// Which server answers: its host, and a number of its own.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn run(&mut self) -> Result<String, ClientError> {
        let answer = self.ask("RUN")?;
        match answer.strip_prefix("OK ") {
            Some(run) => Ok(run.to_owned()),
            None => Err(self.refused(answer)),
        }
    }

    /// Sends any line and returns the first line of the answer.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub fn ask(&mut self, line: &str) -> Result<String, ClientError> {
        let sent = self.stream.get_mut().write_all(format!("{line}\n").as_bytes());
        sent.map_err(|source| connection(self.peer, source))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String, ClientError> {
        let mut line = String::new();
        let read = (&mut self.stream).take(ANSWER_LENGTH_MAX).read_line(&mut line);
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        read.and_then(|_| line.pop().filter(|last| *last == '\n').ok_or_else(end))
            .map_err(|source| connection(self.peer, source))?;
        Ok(line)
    }

    fn refused(&self, answer: String) -> ClientError {
        ClientError::Refused { peer: format!("the ledger at {}", self.peer), answer }
    }
}

impl Client for LedgerClient {
    fn commit(&mut self, id: u64) -> Result<(), ClientError> {
        self.transfer(id)
    }

    fn ids(&mut self) -> Result<BTreeSet<u64>, ClientError> {
        LedgerClient::ids(self)
    }
}

fn connection(peer: SocketAddr, source: io::Error) -> ClientError {
    ClientError::Connection { peer: format!("the ledger at {peer}"), source }
}
