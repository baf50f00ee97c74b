//! Questions to other machines: to the witness, and requests passed on to a peer's daemon.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::Sender;
use std::time::Duration;

use cluster::witness::{Answer, Request};
use model::{Fingerprint, ModuleName, NodeName};
use wire::control::{self, Exit, LINE_BYTES_MAX, Reply, SCHEMA, Verb};
use wire::hello::{Hello, Protection, Purpose};
use wire::witness::{Question, WITNESS_BYTES_MAX, put_question, take_reply};

use crate::connection::{self, Callee, Until};
use crate::daemon::event::{Event, Line};
use crate::keys::Keys;

/// Within this time the witness must have answered.
const WITNESS_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest time a daemon may take over a request that was passed on to it.
const REMOTE_TIMEOUT: Duration = Duration::from_secs(600);

/// Where the witness is and how it is known.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    pub(crate) address: SocketAddr,
    /// Without one it is asked in the clear, where there are no keys.
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) keys: Keys,
}

/// Asks the witness on a thread of its own; the answer comes as an event.
pub(crate) fn witness(witness: Witness, question: Question, events: Sender<Event>) {
    let address = witness.address;
    let asking = move || {
        let result = witness.ask(&question).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("the witness at {address} does not answer within {WITNESS_TIMEOUT:?}")
            }
            _ => format!("the witness at {address} cannot be asked: {error}"),
        });
        let Question { module, request, .. } = question;
        let _ = events.send(Event::WitnessHeard { module, request, result });
    };
    // Without a thread the answer is missing, which the core takes for an unreachable witness.
    let _ = std::thread::Builder::new().name("ask-witness".to_owned()).spawn(asking);
}

impl Witness {
    fn ask(&self, question: &Question) -> io::Result<Answer> {
        let stream = TcpStream::connect_timeout(&self.address, WITNESS_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WITNESS_TIMEOUT))?;
        let mut socket = Until::within(WITNESS_TIMEOUT, &stream);
        match (self.keys.exist(), self.fingerprint) {
            (false, _) => exchange(&mut socket, question),
            (true, Some(fingerprint)) => {
                let mut tls = self.keys.calling_witness(fingerprint)?;
                exchange(&mut rustls::Stream::new(&mut tls, &mut socket), question)
            }
            // Whoever takes keys into use is told so at the daemon's start.
            (true, None) => Err(io::Error::other("[witness] in cluster.toml lacks `fingerprint`")),
        }
    }
}

fn exchange(stream: &mut (impl Read + Write), question: &Question) -> io::Result<Answer> {
    let mut out = Vec::new();
    put_question(&mut out, question);
    stream.write_all(&out)?;
    stream.flush()?;
    let mut frame = Vec::new();
    connection::read_frame(stream, WITNESS_BYTES_MAX, &mut frame)?;
    match take_reply(&frame).map_err(io::Error::other)? {
        wire::witness::Reply::Answer(answer) => Ok(answer),
        wire::witness::Reply::Unable(why) => Err(io::Error::other(why)),
    }
}

/// What is asked of the witness.
pub(crate) fn question(
    cluster: &ModuleName,
    module: &ModuleName,
    from: &NodeName,
    request: Request,
) -> Question {
    Question { cluster: cluster.clone(), module: module.clone(), from: from.clone(), request }
}

/// A peer's daemon to pass requests on to.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    callee: Callee,
    hello: Hello,
}

impl Peer {
    /// A peer, greeted as `from` of `cluster`.
    pub(crate) fn new(cluster: &ModuleName, from: &NodeName, callee: Callee) -> Peer {
        let (cluster, from) = (cluster.clone(), from.clone());
        // Filled in with each call.
        let protection = Protection::None;
        Peer { callee, hello: Hello { cluster, from, purpose: Purpose::Control, protection } }
    }

    /// Has the peer do something, telling its progress, and returns its reply.
    pub(crate) fn request(&self, verb: Verb, lines: &Sender<Line>) -> Reply {
        self.try_request(verb, lines).unwrap_or_else(|error| {
            let sentence = format!("{} cannot be reached: {error}", self.callee.name);
            Reply::new(Exit::Unreachable, sentence)
        })
    }

    fn try_request(&self, verb: Verb, lines: &Sender<Line>) -> io::Result<Reply> {
        let (mut stream, _) = connection::call(&self.callee, &self.hello)?;
        stream.socket().set_read_timeout(Some(REMOTE_TIMEOUT))?;
        let request = control::Request { schema: SCHEMA, verb };
        let mut line = serde_json::to_vec(&request).map_err(io::Error::other)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut reader = BufReader::new(stream);
        loop {
            match read_line(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)? {
                Answered::Progress(text) => {
                    let text = format!("{}: {text}", self.callee.name);
                    let _ = lines.send(Line::Progress(text));
                }
                Answered::Reply(reply) => return Ok(reply),
            }
        }
    }
}

/// A line of an answer.
enum Answered {
    Progress(String),
    Reply(Reply),
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Answered>> {
    let mut line = Vec::new();
    reader.take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let value: serde_json::Value = serde_json::from_slice(&line).map_err(io::Error::other)?;
    if let Some(text) = value.get("progress").and_then(serde_json::Value::as_str) {
        return Ok(Some(Answered::Progress(text.to_owned())));
    }
    serde_json::from_value(value).map(Answered::Reply).map(Some).map_err(io::Error::other)
}
