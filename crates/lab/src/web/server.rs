//! The server: answers every `GET` with the name of its host, over connections that are kept.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::http;
use crate::ledger::server::{bind, stop_signal};

const CONNECTIONS_MAX: usize = 4096;
/// A visitor that is silent for so long is disconnected.
const READ_TIMEOUT: Duration = Duration::from_secs(600);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves an address, which may not be present yet, until SIGTERM.
///
/// # Errors
/// When the address cannot be listened on.
pub fn run(listen: SocketAddr) -> io::Result<()> {
    let stop = stop_signal()?;
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    serve(&bind(listen)?, &stop, &name)
}

/// Serves until `stop` becomes readable.
pub(super) fn serve(listener: &TcpListener, stop: &UnixStream, name: &str) -> io::Result<()> {
    let connections = Arc::new(AtomicUsize::new(0));
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
            Ok((stream, _)) => start_connection(stream, name.to_owned(), &connections),
            // The visitor has gone again, or descriptors are short for the moment.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => eprintln!("web: cannot accept a connection: {error}"),
        }
    }
}

fn start_connection(stream: TcpStream, name: String, connections: &Arc<AtomicUsize>) {
    let connections = Arc::clone(connections);
    let work = move || {
        if connections.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_MAX {
            // That a visitor goes away in the middle is its own affair.
            let _ = converse(&stream, &name);
        }
        connections.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(error) = thread::Builder::new().name("web".into()).spawn(work) {
        eprintln!("web: cannot start a thread for a connection: {error}");
    }
}

fn converse(mut stream: &TcpStream, name: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = http::read_head(&mut reader)? {
        let known = head.first.starts_with("GET ") && head.length == 0;
        let status = if known { "200 OK" } else { "400 Bad Request" };
        let close = head.close || !known;
        let connection = if close { "close" } else { "keep-alive" };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: {connection}\r\n\r\n{name}\n",
            name.len() + 1
        );
        stream.write_all(answer.as_bytes())?;
        if close {
            return Ok(());
        }
    }
    Ok(())
}
