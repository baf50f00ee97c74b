//! What of HTTP/1.1 the server and the visitors speak: `GET`, and answers with a length.
//!
//! No bodies of requests, no chunks, no encryption. Whatever arrives is bounded.

use std::io::{self, BufRead, Read};

/// Longest head of a request or an answer, in bytes.
const HEAD_MAX: u64 = 16 << 10;
/// Longest body that is read, in bytes.
const BODY_MAX: u64 = 1 << 20;

/// What a head says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its first line.
    pub(super) first: String,
    /// Whether the connection ends after this.
    pub(super) close: bool,
    /// How long the body is.
    pub(super) length: u64,
}

/// Reads a head; `None` when the other end has closed before it.
pub(super) fn read_head(from: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut limited = from.take(HEAD_MAX);
    let mut head = Head { first: String::new(), close: false, length: 0 };
    let mut line = Vec::new();
    loop {
        line.clear();
        limited.read_until(b'\n', &mut line)?;
        if line.is_empty() && head.first.is_empty() && limited.limit() > 0 {
            return Ok(None);
        }
        if line.pop_if(|last| *last == b'\n').is_none() {
            // Cut off in the middle, or too long.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.pop_if(|last| *last == b'\r');
        let text = String::from_utf8_lossy(&line);
        if head.first.is_empty() {
            head.first = text.into_owned();
        } else if text.is_empty() {
            return Ok(Some(head));
        } else if let Some((name, value)) = text.split_once(':') {
            let value = value.trim();
            if name.eq_ignore_ascii_case("connection") {
                head.close = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("content-length") {
                head.length = value.parse().map_err(|_| io::ErrorKind::InvalidData)?;
            }
        }
    }
}

/// Reads an answer and returns its body, of a successful one only.
pub(super) fn read_answer(from: &mut impl BufRead) -> io::Result<String> {
    let head = read_head(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.length > BODY_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = Vec::new();
    from.take(head.length).read_to_end(&mut body)?;
    if (body.len() as u64) < head.length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if !head.first.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("answered `{}`", head.first)));
    }
    Ok(String::from_utf8_lossy(&body).trim().to_owned())
}
