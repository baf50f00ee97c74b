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

use model::NodeName;
use serde_json::json;
use wire::control::{Exit, LINE_BYTES_MAX, Reply, Request, SCHEMA};
use wire::hello::{Hello, Joint, Purpose, Welcome};
use wire::local;

use crate::connection::{self, PEER_PORT};
use crate::daemon::admit::Door;
use crate::daemon::event::{Event, Line};
use crate::daemon::membership::Membership;
use crate::stream::Stream;

/// Connections served at a time, over each entrance.
const CONNECTIONS_MAX: usize = 64;

/// Connections served at a time of those who are no nodes.
const STRANGERS_MAX: usize = 8;

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
    let limit = Limit::of(CONNECTIONS_MAX);
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

/// Listens for peers on all of this node's addresses, and for nodes that want to join.
pub(super) fn at_peer_port(door: &Arc<Door>, events: &Sender<Event>) -> io::Result<()> {
    let Membership { own, cluster, .. } = door.membership();
    let (limit, strangers) = (Limit::of(CONNECTIONS_MAX), Limit::of(STRANGERS_MAX));
    let addresses = cluster.node(own).map(|node| &node.addresses);
    for address in addresses.into_iter().flat_map(|addresses| addresses.values()) {
        let listener = TcpListener::bind((*address, PEER_PORT)).map_err(|error| {
            let what = format!("cannot listen on {address} TCP port {PEER_PORT}: {error}");
            io::Error::new(error.kind(), what)
        })?;
        let (events, door) = (events.clone(), Arc::clone(door));
        let (limit, strangers) = (limit.clone(), strangers.clone());
        std::thread::Builder::new().name("peers".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(from) = stream.peer_addr().map(|from| from.ip()) else { continue };
                let known = door.membership().at(from).cloned();
                if known.is_none() && !door.is_open() {
                    door.turn_away(&from, &"it is no address of a node");
                    continue;
                }
                let caller = Caller { from, known };
                let (events, door) = (events.clone(), Arc::clone(&door));
                let limit = if caller.known.is_some() { &limit } else { &strangers };
                limit.serve("peer", move || caller.serve(stream, &door, &events));
            }
        })?;
    }
    Ok(())
}

/// Somebody at the peer port.
struct Caller {
    from: IpAddr,
    /// The node that has this address.
    known: Option<NodeName>,
}

impl Caller {
    fn serve(self, stream: TcpStream, door: &Door, events: &Sender<Event>) -> io::Result<()> {
        let refuse = |stream, why: String| {
            door.turn_away(&self.from, &why);
            connection::welcome(&Stream::plain(stream), &Welcome::Refused(why))
        };
        let hello = match connection::greeted(&stream) {
            Ok(hello) => hello,
            Err(error) => {
                // Even one that does not understand this sees from it which version is spoken here.
                let _ = refuse(stream, error.to_string());
                return Err(error);
            }
        };
        if let Err(why) = self.judge(&hello, door.membership()) {
            return refuse(stream, why);
        }
        let keys = &door.membership().keys;
        let Hello { from, purpose, protection, .. } = hello.clone();
        match purpose {
            Purpose::Replication { module, session, joint } => {
                // Who knows the sessions welcomes the caller.
                let caller = local::Caller { from, session, joint, protection };
                let _ = events.send(Event::Connection { module, caller, stream });
                Ok(())
            }
            Purpose::Control => {
                if let Err(why) = keys.agree(protection, true) {
                    return refuse(stream, why);
                }
                let said = |again: &Hello| again.purpose == Purpose::Control;
                let stream = connection::proven(stream, keys, (&from, protection), said);
                let stream = stream.inspect_err(|error| door.turn_away(&self.from, error))?;
                let stream = connection::accept(&stream, Joint::default(), protection)?;
                stream.socket().set_read_timeout(Some(REQUEST_TIMEOUT))?;
                answer(&stream, &stream, events)
            }
            Purpose::Join if keys.exist() => {
                let heard = door.hear((&stream, self.from), &hello, events);
                heard.inspect_err(|error| door.turn_away(&self.from, error))
            }
            Purpose::Join => refuse(stream, "this node has no keys of a cluster".to_owned()),
        }
    }

    /// Whether a caller may say what it wants, for the place that it calls from.
    fn judge(&self, hello: &Hello, membership: &Membership) -> Result<(), String> {
        let (from, cluster) = (&hello.from, &membership.cluster.cluster);
        if hello.cluster != *cluster {
            return Err(format!("this node belongs to cluster {cluster}, not {}", hello.cluster));
        }
        match (&hello.purpose, &self.known) {
            (Purpose::Join, _) => Ok(()),
            (Purpose::Replication { .. } | Purpose::Control, Some(known)) if known == from => {
                Ok(())
            }
            (Purpose::Replication { .. } | Purpose::Control, _) => {
                Err(format!("{} is no address of a node {from} of this cluster", self.from))
            }
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
            Line::Last(reply, event) => {
                let said = write_line(&mut stream, &reply);
                let _ = events.send(*event);
                return said;
            }
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
#[derive(Clone)]
struct Limit {
    serving: Arc<AtomicUsize>,
    most: usize,
}

impl Limit {
    fn of(most: usize) -> Limit {
        Limit { serving: Arc::default(), most }
    }

    fn serve(&self, name: &str, work: impl FnOnce() -> io::Result<()> + Send + 'static) {
        if self.serving.fetch_add(1, Ordering::Relaxed) >= self.most {
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
