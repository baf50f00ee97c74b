//! The health of modules for a balancer in front of the nodes: `/health/MODULE` and `/health`.
//!
//! Answered from what the main loop said last; nothing is looked at for a question. Who asks is not
//! asked for, so nothing but serving or not is told, and only where `[health]` is configured. It is
//! no API: one line is read, one is answered, and the connection is closed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster::status::{ModuleStatus, NodeStatus};
use model::{ModuleName, Time};

use crate::clock;
use crate::complaint::Complaints;
use crate::connection::Until;

/// Questions answered at a time; a balancer asks a few times in a second.
const ASKERS_MAX: usize = 32;
/// How long one may take to ask.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest question, in bytes; what follows the first line is not looked at.
const QUESTION_BYTES_MAX: usize = 4096;
/// Pause before the port is tried again, or after an asker could not be taken.
const PAUSE: Duration = Duration::from_secs(1);
/// What the main loop said counts for so long.
const STALE: Duration = Duration::from_secs(2);

/// What the main loop says of the modules.
#[derive(Clone, Default)]
pub(super) struct Health {
    /// None where nobody may ask.
    said: Option<Arc<Mutex<Said>>>,
}

#[derive(Default)]
struct Said {
    serving: BTreeMap<ModuleName, bool>,
    at: Time,
}

impl Health {
    /// Answers at this address, if there is one. That it cannot be listened at is told, and tried
    /// again: an address may come later.
    pub(super) fn start(address: Option<SocketAddr>) -> io::Result<Health> {
        let Some(address) = address else { return Ok(Health::default()) };
        let said = Arc::new(Mutex::new(Said::default()));
        let answering = Arc::clone(&said);
        std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || listen(address, &answering))?;
        Ok(Health { said: Some(said) })
    }

    /// Whether somebody may ask.
    pub(super) fn is_asked(&self) -> bool {
        self.said.is_some()
    }

    /// How the node is now.
    pub(super) fn tell(&self, now: Time, status: &NodeStatus) {
        let Some(said) = &self.said else { return };
        let each =
            |(name, module): (&ModuleName, &ModuleStatus)| (name.clone(), module.takes_clients);
        *lock(said) = Said { serving: status.modules.iter().map(each).collect(), at: now };
    }
}

fn listen(address: SocketAddr, said: &Arc<Mutex<Said>>) {
    let complaints = Complaints::default();
    let listener = loop {
        match TcpListener::bind(address) {
            Ok(listener) => break listener,
            Err(error) => {
                complaints.tell(&format_args!("health cannot be asked at {address}: {error}"));
                std::thread::sleep(PAUSE);
            }
        }
    };
    let asking = Arc::new(());
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            std::thread::sleep(PAUSE);
            continue;
        };
        if Arc::strong_count(&asking) > ASKERS_MAX {
            continue;
        }
        let (said, asking) = (Arc::clone(said), Arc::clone(&asking));
        // Whoever is not answered asks again.
        let _ = std::thread::Builder::new().name("asker".to_owned()).spawn(move || {
            // A connection that fails is its asker's matter.
            let _ = serve(&stream, &said);
            drop(asking);
        });
    }
}

fn serve(stream: &TcpStream, said: &Mutex<Said>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut socket = Until::within(PATIENCE, stream);
    let mut question = Vec::new();
    let mut chunk = [0; 512];
    // The whole head is read, or the asker might find its connection reset before the answer.
    while !is_whole(&question) && question.len() < QUESTION_BYTES_MAX {
        let length = socket.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        question.extend_from_slice(chunk.get(..length).unwrap_or_default());
    }
    let reply = reply(&question, &lock(said), clock::now());
    socket.write_all(&reply)?;
    socket.flush()
}

fn is_whole(question: &[u8]) -> bool {
    question.windows(4).any(|bytes| bytes == b"\r\n\r\n")
        || question.windows(2).any(|bytes| bytes == b"\n\n")
}

fn reply(question: &[u8], said: &Said, now: Time) -> Vec<u8> {
    let line = question.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let words: Vec<&str> = line.split_whitespace().collect();
    let (method, (status, body)) = match *words.as_slice() {
        [method @ ("GET" | "HEAD"), target, version] if version.starts_with("HTTP/1.") => {
            (method, answer(target, said, now))
        }
        [_, _, version] if version.starts_with("HTTP/1.") => (
            "GET",
            ("405 Method Not Allowed\r\nAllow: GET, HEAD", "only GET and HEAD are answered"),
        ),
        _ => ("GET", ("400 Bad Request", "this is no question of HTTP/1")),
    };
    let length = body.len() + 1;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    let body = if method == "HEAD" { String::new() } else { format!("{body}\n") };
    [head, body].concat().into_bytes()
}

fn answer(target: &str, said: &Said, now: Time) -> (&'static str, &'static str) {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let rest = path.strip_prefix("/health").unwrap_or("-");
    let serving = match rest.trim_end_matches('/').strip_prefix('/') {
        None if rest.is_empty() || rest == "/" => Some(said.serving.values().any(|serves| *serves)),
        None => None,
        Some(name) => {
            let name = ModuleName::new(name).ok();
            name.and_then(|name| said.serving.get(&name).copied())
        }
    };
    match serving {
        Some(true) if now.since(said.at) <= STALE => ("200 OK", "serving"),
        Some(true) => ("503 Service Unavailable", "the daemon does not tell"),
        Some(false) => ("503 Service Unavailable", "not serving"),
        None => ("404 Not Found", "no such module on this node"),
    }
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Said {
        let name = |text: &str| ModuleName::new(text).unwrap();
        let serving = BTreeMap::from([(name("web"), true), (name("shop"), false)]);
        Said { serving, at: Time::from_millis(10_000) }
    }

    fn asked(question: &str, now_ms: u64) -> String {
        let reply = reply(question.as_bytes(), &said(), Time::from_millis(now_ms));
        String::from_utf8(reply).unwrap()
    }

    #[test]
    fn a_module_is_answered_for_by_what_was_said_last() {
        for (target, status) in [
            ("/health/web", "200 OK"),
            ("/health/web?probe=1", "200 OK"),
            ("/health/shop", "503 Service Unavailable"),
            ("/health/other", "404 Not Found"),
            ("/health/../web", "404 Not Found"),
            ("/health", "200 OK"),
            ("/health/", "200 OK"),
            ("/healthweb", "404 Not Found"),
            ("/", "404 Not Found"),
        ] {
            let reply = asked(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 10_500);
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{target}: {reply}");
        }
        let stale = asked("GET /health/web HTTP/1.1\r\n\r\n", 12_001);
        assert!(stale.starts_with("HTTP/1.1 503 "), "{stale}");
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for (question, status) in [
            ("POST /health/web HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("GET /health/web\r\n\r\n", "400 Bad Request"),
            ("GET /health/web HTTP/2\r\n\r\n", "400 Bad Request"),
            ("", "400 Bad Request"),
        ] {
            let reply = asked(question, 10_500);
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{question}: {reply}");
        }
        let head = asked("HEAD /health/web HTTP/1.1\r\n\r\n", 10_500);
        assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Length: 8"), "{head}");
    }

    #[test]
    fn a_balancer_is_answered_and_the_connection_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut asker = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        asker.write_all(b"GET /health/shop HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        serve(&stream, &Mutex::new(said())).unwrap();
        drop(stream);
        let mut reply = String::new();
        asker.read_to_string(&mut reply).unwrap();
        assert!(reply.ends_with("\r\n\r\nnot serving\n"), "{reply}");
    }
}
