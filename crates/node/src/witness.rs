//! The witness: a tiny register service on any third machine.
//!
//! What it answers is decided by `cluster::witness::Witness`; here are its file and its port. A
//! changed register is durable before its answer is sent.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::witness::{Register, Witness};
use model::ModuleName;
use serde::{Deserialize, Serialize};
use wire::witness::{Question, Reply, WITNESS_BYTES_MAX, put_reply, take_question};

use crate::connection;
use crate::durable;

/// A caller must have asked within this time.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Callers served at a time.
const CALLERS_MAX: usize = 64;

/// How to run a witness.
#[derive(Debug, Clone)]
pub struct WitnessOptions {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Directory of its registers.
    pub directory: PathBuf,
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

/// Serves until the process ends.
pub fn run(options: &WitnessOptions) -> io::Result<()> {
    let file = options.directory.join("registers.json");
    let kept: Vec<Kept> = durable::read(&file)?.unwrap_or_default();
    let registers: BTreeMap<_, _> =
        kept.into_iter().map(|kept| ((kept.cluster, kept.module), kept.register)).collect();
    let count = registers.len();
    let service = Arc::new(Mutex::new(Service { witness: Witness::new(registers), file }));
    let listener = TcpListener::bind(options.listen).map_err(|error| {
        let what = format!("cannot listen on {}: {error}", options.listen);
        io::Error::new(error.kind(), what)
    })?;
    eprintln!("witness: {count} registers, listening on {}", options.listen);
    let serving = Arc::new(());
    for stream in listener.incoming().flatten() {
        if Arc::strong_count(&serving) > CALLERS_MAX {
            continue;
        }
        let (service, serving) = (Arc::clone(&service), Arc::clone(&serving));
        std::thread::Builder::new().name("caller".to_owned()).spawn(move || {
            // What fails here is a connection that its caller gave up.
            let _ = answer(stream, &service);
            drop(serving);
        })?;
    }
    Ok(())
}

fn answer(mut stream: TcpStream, service: &Mutex<Service>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(QUESTION_TIMEOUT))?;
    stream.set_write_timeout(Some(QUESTION_TIMEOUT))?;
    let mut frame = Vec::new();
    let mut patient = connection::Until::within(QUESTION_TIMEOUT, &stream);
    connection::read_frame(&mut patient, WITNESS_BYTES_MAX, &mut frame)?;
    let reply = match take_question(&frame) {
        Ok(question) => service.lock().unwrap_or_else(PoisonError::into_inner).reply(question),
        Err(error) => Reply::Unable(error.to_string()),
    };
    let mut out = Vec::new();
    put_reply(&mut out, &reply);
    stream.write_all(&out)
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
            return Reply::Unable(format!("the register cannot be made durable: {error}"));
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
        durable::write(file, &kept)
    }
}
