//! Who may knock: the command line at the local socket, peers at the peer port.
//!
//! A connection is served by a thread of its own, limited in number, time and length of lines.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use model::ModuleName;
use serde_json::json;
use wire::control::{Exit, LINE_BYTES_MAX, Reply, Request, SCHEMA};
use wire::hello::{Hello, Joint, Purpose, Welcome};
use wire::local::Caller;

use crate::connection::{self, PEER_PORT};
use crate::daemon::event::{Event, Line};
use crate::keys::Keys;
use crate::stream::Stream;

/// Connections served at a time, over each entrance.
const CONNECTIONS_MAX: usize = 64;

/// Within this time a request must be complete.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Listens for the command line.
pub(crate) fn at_control_socket(path: &Path, events: &Sender<Event>) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let events = events.clone();
    let limit = Limit::default();
    std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let events = events.clone();
            limit.serve("command", move || {
                stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
                let reading = stream.try_clone()?;
                answer(reading, stream, &events)
            });
        }
    })?;
    Ok(())
}

/// Listens for peers on all of this node's addresses.
pub(crate) fn at_peer_port(
    addresses: &[IpAddr],
    cluster: &ModuleName,
    peers: &[IpAddr],
    keys: &Keys,
    events: &Sender<Event>,
) -> io::Result<()> {
    let limit = Limit::default();
    for address in addresses {
        let listener = TcpListener::bind((*address, PEER_PORT)).map_err(|error| {
            let what = format!("cannot listen on {address} TCP port {PEER_PORT}: {error}");
            io::Error::new(error.kind(), what)
        })?;
        let (events, limit, cluster) = (events.clone(), limit.clone(), cluster.clone());
        let keys = keys.clone();
        let peers = peers.to_vec();
        std::thread::Builder::new().name("peers".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let known = stream.peer_addr().is_ok_and(|from| peers.contains(&from.ip()));
                if !known {
                    continue;
                }
                let (events, cluster, keys) = (events.clone(), cluster.clone(), keys.clone());
                limit.serve("peer", move || peer(stream, &cluster, &keys, &events));
            }
        })?;
    }
    Ok(())
}

fn peer(
    stream: TcpStream,
    cluster: &ModuleName,
    keys: &Keys,
    events: &Sender<Event>,
) -> io::Result<()> {
    let refuse = |stream, why| connection::welcome(&Stream::plain(stream), &Welcome::Refused(why));
    let hello = match connection::greeted(&stream) {
        Ok(hello) => hello,
        Err(error) => {
            // Even one that does not understand this sees from it which version is spoken here.
            let _ = refuse(stream, error.to_string());
            return Err(error);
        }
    };
    if hello.cluster != *cluster {
        let why = format!("this node belongs to cluster {cluster}, not {}", hello.cluster);
        return refuse(stream, why);
    }
    let Hello { from, purpose, protection, .. } = hello;
    match purpose {
        Purpose::Replication { module, session, joint } => {
            // Who knows the sessions welcomes the caller.
            let caller = Caller { from, session, joint, protection };
            let _ = events.send(Event::Connection { module, caller, stream });
            Ok(())
        }
        Purpose::Control => {
            if let Err(why) = keys.agree(protection, true) {
                return refuse(stream, why);
            }
            let said = |again: &Hello| again.purpose == Purpose::Control;
            let stream = connection::proven(stream, keys, (&from, protection), said)?;
            let stream = connection::accept(&stream, Joint::default(), protection)?;
            stream.socket().set_read_timeout(Some(REQUEST_TIMEOUT))?;
            answer(&stream, &stream, events)
        }
    }
}

/// Reads one request and writes lines until its reply.
fn answer(reading: impl Read, mut stream: impl Write, events: &Sender<Event>) -> io::Result<()> {
    let mut line = Vec::new();
    BufReader::new(reading).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    let request = match serde_json::from_slice::<Request>(&line) {
        Ok(request) if request.schema == SCHEMA => request,
        Ok(request) => {
            let what = format!("schema {} is not spoken here, only {SCHEMA}", request.schema);
            return write_line(&mut stream, &Reply::new(Exit::Usage, what));
        }
        Err(error) => {
            let what = format!("the request was not understood: {error}");
            return write_line(&mut stream, &Reply::new(Exit::Usage, what));
        }
    };
    let (lines, received) = channel();
    if events.send(Event::Request { verb: request.verb, lines }).is_err() {
        return Ok(());
    }
    for line in received {
        match line {
            Line::Progress(text) => write_line(&mut stream, &json!({ "progress": text }))?,
            Line::Reply(reply) => return write_line(&mut stream, &reply),
        }
    }
    let ending = "the daemon ended before the outcome was known; ask for the status";
    write_line(&mut stream, &Reply::new(Exit::Failed, ending))
}

fn write_line<T: serde::Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    let mut text = serde_json::to_vec(message).map_err(io::Error::other)?;
    text.push(b'\n');
    stream.write_all(&text)
}

/// Limits how many connections are served at a time; the rest is closed at once.
#[derive(Clone, Default)]
struct Limit {
    serving: Arc<AtomicUsize>,
}

impl Limit {
    fn serve(&self, name: &str, work: impl FnOnce() -> io::Result<()> + Send + 'static) {
        if self.serving.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            self.serving.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let serving = Arc::clone(&self.serving);
        let thread = std::thread::Builder::new().name(name.to_owned());
        let spawned = thread.spawn(move || {
            // What fails here is a connection that its other end gave up.
            let _ = work();
            serving.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            self.serving.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
