//! TCP connections between nodes: the greeting, bounded reading of frames, limits of time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use wire::frame::{PREFIX_BYTES, frame_length};
use wire::hello::{
    HELLO_BYTES_MAX, Hello, Welcome, put_hello, put_welcome, take_hello, take_welcome,
};

/// Port of the peers, UDP for heartbeats and TCP for everything else.
pub(crate) const PEER_PORT: u16 = 7620;

/// Within this time a greeting must be complete.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// Calls the first address that answers, and greets it.
pub(crate) fn call(addresses: &[SocketAddr], hello: &Hello) -> io::Result<TcpStream> {
    let mut failures = Vec::new();
    for address in addresses {
        match call_one(address, hello) {
            Ok(stream) => return Ok(stream),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(io::Error::other(failures.join("; ")))
}

fn call_one(address: &SocketAddr, hello: &Hello) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(address, GREETING_TIMEOUT)?;
    prepare(&stream)?;
    let mut out = Vec::new();
    put_hello(&mut out, hello);
    stream.write_all(&out)?;
    match take_welcome(&read_short_frame(&mut stream)?).map_err(io::Error::other)? {
        Welcome::Accepted => stream.set_read_timeout(None).map(|()| stream),
        Welcome::Refused(why) => Err(io::Error::other(why)),
    }
}

/// Reads the greeting of a caller that just connected.
pub(crate) fn greeted(stream: &mut TcpStream) -> io::Result<Hello> {
    prepare(stream)?;
    take_hello(&read_short_frame(stream)?).map_err(io::Error::other)
}

/// Answers a greeting.
pub(crate) fn welcome(stream: &mut TcpStream, welcome: &Welcome) -> io::Result<()> {
    let mut out = Vec::new();
    put_welcome(&mut out, welcome);
    stream.write_all(&out)?;
    stream.set_read_timeout(None)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GREETING_TIMEOUT))?;
    stream.set_write_timeout(Some(GREETING_TIMEOUT))
}

fn read_short_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    read_frame(stream, HELLO_BYTES_MAX, &mut frame)?;
    Ok(frame)
}

/// Reads one frame of at most `limit` bytes, without its prefix, into `frame`.
pub(crate) fn read_frame(
    stream: &mut impl Read,
    limit: usize,
    frame: &mut Vec<u8>,
) -> io::Result<()> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix)?;
    let length = frame_length(prefix).map_err(io::Error::other)?;
    if length > limit {
        return Err(io::Error::other(wire::WireError::Length(length)));
    }
    frame.resize(length, 0);
    stream.read_exact(frame)
}
