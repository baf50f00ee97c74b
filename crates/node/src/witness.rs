//! The witness: a tiny register service on any third machine.
//!
//! What it answers is decided by `cluster::witness::Witness`; here are its file and its port. A
//! changed register is durable before its answer is sent. Who asks is found out by `enrolled`:
//! only nodes of clusters that were added are answered, unless the witness is open, as in labs
//! without keys.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::witness::{Register, Witness};
use model::{Fingerprint, ModuleName};
use serde::{Deserialize, Serialize};
use wire::witness::{Question, Reply, WITNESS_BYTES_MAX, put_reply, take_question};

use crate::callers::Callers;
use crate::complaint::Complaints;
use crate::connection::{self, Until};
use crate::durable;
use crate::enrolled::Enrolled;
use crate::keys;
use crate::room;

/// A caller must have asked within this time.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a caller could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Callers served at a time, and of one address: a node that has lost its peer asks for all of its
/// modules at once. It is done within milliseconds; one that finds no place asks again.
const CALLERS_MAX: usize = 256;
const CALLERS_OF_ONE_MAX: usize = 32;

/// How to run a witness.
#[derive(Debug, Clone)]
pub struct WitnessOptions {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Directory of its registers.
    pub directory: PathBuf,
    /// Whether to answer everybody, in the clear.
    pub open: bool,
}

/// A register as the file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    cluster: ModuleName,
    module: ModuleName,
    register: Register,
}

/// A witness and its file.
struct Service {
    witness: Witness,
    file: PathBuf,
}

/// Who is let in.
enum Door {
    Open,
    Guarded { enrolled: Enrolled, clusters: usize, fingerprint: Fingerprint, refused: Complaints },
}

/// Serves until the process ends.
pub fn run(options: &WitnessOptions) -> io::Result<()> {
    let file = options.directory.join("registers.json");
    let kept: Vec<Kept> = durable::read(&file)?.unwrap_or_default();
    let registers: BTreeMap<_, _> =
        kept.into_iter().map(|kept| ((kept.cluster, kept.module), kept.register)).collect();
    let count = registers.len();
    if let Err(error) = room::set_aside(&options.directory) {
        eprintln!("! no room can be set aside for a time when the disk is full: {error}");
    }
    let door = Arc::new(Door::new(options)?);
    let service = Arc::new(Mutex::new(Service { witness: Witness::new(registers), file }));
    let listener = TcpListener::bind(options.listen).map_err(|error| {
        let what = format!("cannot listen on {}: {error}", options.listen);
        io::Error::new(error.kind(), what)
    })?;
    eprintln!("witness: {count} registers, listening on {}; {door}", options.listen);
    answer_all(&listener, &door, &service);
    Ok(())
}

/// Answers whoever calls. It ends with the process.
fn answer_all(listener: &TcpListener, door: &Arc<Door>, service: &Arc<Mutex<Service>>) {
    let callers = Callers::new(CALLERS_MAX, CALLERS_OF_ONE_MAX);
    let unheard = Complaints::default();
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                unheard.tell(&format_args!("a caller cannot be heard: {error}"));
                // Such as without a free descriptor: the next attempt would fail as fast.
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let Ok(from) = stream.peer_addr().map(|from| from.ip()) else { continue };
        let Some(place) = callers.admit(from) else {
            unheard.tell(&format_args!("a caller from {from} finds all its places taken"));
            continue;
        };
        let (door, service) = (Arc::clone(door), Arc::clone(service));
        let thread = std::thread::Builder::new().name("caller".to_owned()).spawn(move || {
            door.answer(&stream, &service);
            drop(place);
        });
        // This caller sees the end of its connection and asks again; nobody else need notice.
        if let Err(error) = thread {
            unheard.tell(&format_args!("a caller cannot be answered: {error}"));
        }
    }
}

impl Door {
    fn new(options: &WitnessOptions) -> io::Result<Door> {
        if options.open {
            return Ok(Door::Open);
        }
        let enrolled = Enrolled::new(&options.directory);
        let (clusters, fingerprint) = (enrolled.clusters()?.len(), enrolled.fingerprint()?);
        Ok(Door::Guarded { enrolled, clusters, fingerprint, refused: Complaints::default() })
    }

    fn answer(&self, stream: &TcpStream, service: &Mutex<Service>) {
        let from = stream.peer_addr().map_or_else(|_| "?".to_owned(), |at| at.ip().to_string());
        let answered = prepare(stream).and_then(|mut socket| match self {
            // What fails here is a connection that its caller gave up.
            Door::Open => serve(&mut socket, service, Ok).map(|()| None),
            Door::Guarded { enrolled, .. } => answer_guarded(&mut socket, enrolled, service),
        });
        let refusal = match answered {
            Ok(None) => return,
            Ok(Some(refusal)) => refusal,
            Err(error) => error.to_string(),
        };
        if let Door::Guarded { refused, .. } = self {
            refused.tell(&format_args!("a caller from {from} was turned away: {refusal}"));
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Door::Open => write!(f, "open to everybody"),
            Door::Guarded { clusters, fingerprint, .. } => {
                write!(f, "{clusters} clusters; its fingerprint is {fingerprint}")
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<Until<'_>> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(QUESTION_TIMEOUT))?;
    Ok(Until::within(QUESTION_TIMEOUT, stream))
}

/// Answers a node that has shown who it is; else says to it, and here, why not.
fn answer_guarded(
    socket: &mut Until<'_>,
    enrolled: &Enrolled,
    service: &Mutex<Service>,
) -> io::Result<Option<String>> {
    let mut caller = enrolled.shake_hands(socket)?;
    let shown = caller.shown();
    let mut refusal = None;
    let mut stream = rustls::Stream::new(&mut caller.tls, socket);
    serve(&mut stream, service, |question| {
        let known = match (&caller.cluster, shown) {
            (Err(cluster), _) => Err(format!(
                "this witness does not know the cluster {cluster}; copy its ca.pem to the \
                 witness's machine, and there: evenkeel witness add ca.pem"
            )),
            (Ok(cluster), Some(shown)) => keys::is_for(&shown, &question.from).map(|()| cluster),
            (Ok(_), None) => Err("it has shown no certificate".to_owned()),
        };
        match known {
            // Two clusters may have the same name; their authorities differ.
            Ok(cluster) => Ok(Question { cluster: cluster.clone(), ..question }),
            Err(why) => {
                refusal = Some(why.clone());
                Err(why)
            }
        }
    })?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(refusal)
}

/// Reads a question and answers it, if it may be asked.
fn serve(
    stream: &mut (impl Read + Write),
    service: &Mutex<Service>,
    admit: impl FnOnce(Question) -> Result<Question, String>,
) -> io::Result<()> {
    let mut frame = Vec::new();
    connection::read_frame(stream, WITNESS_BYTES_MAX, &mut frame)?;
    let question = take_question(&frame).map_err(|error| error.to_string());
    let reply = match question.and_then(admit) {
        Ok(question) => service.lock().unwrap_or_else(PoisonError::into_inner).reply(question),
        Err(why) => Reply::Unable(why),
    };
    let mut out = Vec::new();
    put_reply(&mut out, &reply);
    stream.write_all(&out)?;
    stream.flush()
}

impl Service {
    fn reply(&mut self, question: Question) -> Reply {
        let key = (question.cluster, question.module);
        let before = self.witness.clone();
        let (changed, answer) = self.witness.handle(&key, &question.from, question.request);
        if changed.is_some()
            && let Err(error) = self.keep(&self.file)
        {
            self.witness = before;
            let file = self.file.display();
            return Reply::Unable(format!(
                "it cannot write {file} on its machine, and grants nothing that it would forget: \
                 {error}"
            ));
        }
        Reply::Answer(answer)
    }

    fn keep(&self, file: &Path) -> io::Result<()> {
        let kept: Vec<Kept> = self
            .witness
            .registers()
            .into_iter()
            .map(|((cluster, module), register)| Kept { cluster, module, register })
            .collect();
        durable::write(file, &kept)?;
        // What was used up is set aside again once there is plenty.
        file.parent().map(room::set_aside).and_then(Result::ok);
        Ok(())
    }
}

#[cfg(test)]
#[path = "witness_tests.rs"]
mod tests;
