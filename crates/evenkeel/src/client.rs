//! The command line's way to a daemon: one request over its local socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wire::control::{LINE_BYTES_MAX, Reply, Request, SCHEMA, Verb};

/// A daemon's socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon that listens at this socket.
    pub(crate) fn at(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// Asks, and waits for the reply however long that takes.
    pub(crate) fn request(
        &self,
        verb: Verb,
        on_progress: &mut dyn FnMut(&str),
    ) -> io::Result<Reply> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let mut line = serde_json::to_vec(&Request { schema: SCHEMA, verb })?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let value: Value = serde_json::from_slice(&line)?;
            match value.get("progress").and_then(Value::as_str) {
                Some(text) => on_progress(text),
                None => return Ok(serde_json::from_value(value)?),
            }
        }
    }
}
