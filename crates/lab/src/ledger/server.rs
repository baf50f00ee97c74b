//! The ledger's server: a line protocol over TCP in front of the books.
//!
//! Requests are one line each: `TRANSFER <id> <from> <to> <cents>` answers `OK <id>` once booked on
//! stable storage, `COUNT` and `BALANCE` answer `OK <number>`, `IDS <after>` answers one number per
//! line and then `END <count>`, `PING` answers `OK`, `RUN` answers `OK <host>/<run>`, which no
//! other server says. Anything else answers `ERR <why>` and changes nothing. There is neither
//! encryption nor a login: it is for demonstrations.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use signal_hook::consts::SIGTERM;

use super::ServerError;
use super::store::{FILE_NAME, Store, StoreError, Transfer};

/// Longest request, in bytes, with its end of line.
const LINE_LENGTH_MAX: u64 = 256;
/// How much of a longer one is skipped before the connection is given up, in bytes.
const SKIPPED_MAX: u64 = 1 << 20;
const CONNECTIONS_MAX: usize = 256;
const BACKLOG: i32 = 128;
/// A client that is silent for so long is disconnected.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Numbers read at once for `IDS`; transfers of others are booked in between.
const IDS_PER_READ: usize = 1000;

/// Serves the books in `data_dir` on an address, which may not be present yet, until SIGTERM.
///
/// # Errors
/// When the books cannot be opened or the address cannot be listened on.
pub fn run(data_dir: &Path, listen: SocketAddr) -> Result<(), ServerError> {
    let path = data_dir.join(FILE_NAME);
    let store = Store::open(data_dir).map_err(|source| ServerError::Open { path, source })?;
    let failed = |source| ServerError::Listen { address: listen, source };
    let stop = stop_signal().map_err(failed)?;
    let listener = bind(listen).map_err(failed)?;
    let server = Arc::new(Server {
        store: Mutex::new(Some(store)),
        connections: AtomicUsize::new(0),
        run: name_of_run().map_err(failed)?,
    });
    let result = accept_until(&listener, &stop, &server).map_err(failed);
    // Waits for a booking in progress; closing moves the journal into the database.
    drop(server.store().take());
    result
}

struct Server {
    /// `None` once the server has ended.
    store: Mutex<Option<Store>>,
    connections: AtomicUsize,
    /// What this server is called, and no other ever.
    run: String,
}

impl Server {
    fn store(&self) -> MutexGuard<'_, Option<Store>> {
        // A panic during a booking rolled it back, so the books are in order.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Host and a random number, for clients that ask who answers them.
fn name_of_run() -> io::Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(format!("{host}/{:016x}", u64::from_ne_bytes(bytes)))
}

/// A stream that becomes readable on SIGTERM.
pub(crate) fn stop_signal() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGTERM, writer)?;
    Ok(reader)
}

/// Listens on an address, which may not be present yet.
pub(crate) fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let family = if listen.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // The virtual address may come only after the application has been started.
    if listen.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true)?;
    } else {
        sockopt::set_ipv6_freebind(&socket, true)?;
    }
    rustix::net::bind(&socket, &listen)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn accept_until(listener: &TcpListener, stop: &UnixStream, server: &Arc<Server>) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        match listener.accept() {
            Ok((stream, _)) => start_connection(stream, server),
            // The client has gone again, or descriptors are short for the moment.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => eprintln!("ledger: cannot accept a connection: {error}"),
        }
    }
}

fn start_connection(stream: TcpStream, server: &Arc<Server>) {
    let server = Arc::clone(server);
    let serve = move || {
        let others = server.connections.fetch_add(1, Ordering::Relaxed);
        // That a client goes away in the middle is its own affair.
        let _ = converse(&stream, &server, others < CONNECTIONS_MAX);
        server.connections.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(error) = thread::Builder::new().name("ledger".into()).spawn(serve) {
        eprintln!("ledger: cannot start a thread for a connection: {error}");
    }
}

fn converse(stream: &TcpStream, server: &Server, admitted: bool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    let mut writer = BufWriter::new(stream);
    if !admitted {
        writeln!(writer, "ERR too many connections")?;
        return writer.flush();
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        match read_line(&mut reader, &mut line)? {
            Line::End => return Ok(()),
            Line::TooLong => writeln!(writer, "ERR line longer than {LINE_LENGTH_MAX} bytes")?,
            Line::Whole => match parse(&line) {
                Ok(request) => answer(request, server, &mut writer)?,
                Err(why) => writeln!(writer, "ERR {why}")?,
            },
        }
        writer.flush()?;
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads a line without its end. What has no end of line was not meant to be complete.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    reader.take(LINE_LENGTH_MAX).read_until(b'\n', line)?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
        return Ok(Line::Whole);
    }
    if (line.len() as u64) < LINE_LENGTH_MAX {
        return Ok(Line::End);
    }
    let mut rest = reader.take(SKIPPED_MAX);
    rest.skip_until(b'\n')?;
    if rest.limit() == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Line::TooLong)
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Transfer(Transfer),
    Count,
    Ids { after: i64 },
    Balance,
    Ping,
    Run,
}

fn parse(line: &[u8]) -> Result<Request, &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "not text")?;
    let words: Vec<_> = text.split(' ').collect();
    match words[..] {
        ["TRANSFER", id, from, to, cents] => {
            let transfer = Transfer {
                id: number(id)?,
                from: number(from)?,
                to: number(to)?,
                cents: number(cents)?,
            };
            match transfer {
                Transfer { id: 0, .. } => Err("the number must be positive"),
                Transfer { cents: 0, .. } => Err("the amount must be positive"),
                Transfer { from, to, .. } if from == to => Err("the accounts must differ"),
                transfer => Ok(Request::Transfer(transfer)),
            }
        }
        ["IDS", after] => Ok(Request::Ids { after: number(after)? }),
        ["COUNT"] => Ok(Request::Count),
        ["BALANCE"] => Ok(Request::Balance),
        ["PING"] => Ok(Request::Ping),
        ["RUN"] => Ok(Request::Run),
        _ => Err("unknown request"),
    }
}

/// A decimal number without a sign.
fn number<N: FromStr>(word: &str) -> Result<N, &'static str> {
    if !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("not a number without a sign");
    }
    word.parse().map_err(|_| "number missing or too large")
}

fn answer(request: Request, server: &Server, writer: &mut impl Write) -> io::Result<()> {
    let with_store = |work: &dyn Fn(&mut Store) -> Result<i64, StoreError>| {
        let mut store = server.store();
        let store = store.as_mut().ok_or_else(|| "the server is ending".to_owned())?;
        // One line, whatever SQLite's message contains.
        work(store).map_err(|error| error.to_string().replace(['\n', '\r'], " "))
    };
    let result = match request {
        Request::Ping => return writeln!(writer, "OK"),
        Request::Run => return writeln!(writer, "OK {}", server.run),
        Request::Ids { after } => return stream_ids(after, server, writer),
        Request::Transfer(transfer) => {
            with_store(&|store| store.book(transfer).map(|()| transfer.id))
        }
        Request::Count => with_store(&|store| store.count()),
        Request::Balance => with_store(&|store| store.balance()),
    };
    match result {
        Ok(number) => writeln!(writer, "OK {number}"),
        Err(why) => writeln!(writer, "ERR {why}"),
    }
}

fn stream_ids(mut after: i64, server: &Server, writer: &mut impl Write) -> io::Result<()> {
    let mut count = 0;
    loop {
        let ids = match server.store().as_ref().map(|store| store.ids(after, IDS_PER_READ)) {
            Some(Ok(ids)) => ids,
            Some(Err(error)) => return writeln!(writer, "ERR {error}"),
            None => return writeln!(writer, "ERR the server is ending"),
        };
        let Some(last) = ids.last() else { return writeln!(writer, "END {count}") };
        after = *last;
        count += ids.len();
        for id in ids {
            writeln!(writer, "{id}")?;
        }
    }
}
