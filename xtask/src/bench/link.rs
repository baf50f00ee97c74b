//! The link between two hosts, as the limit of whatever is replicated over it: round trips of small
//! messages, and a stream of large ones.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::burst::{each, nanoseconds, noise};

const ROUND_TRIPS: usize = 3000;
/// Messages of a stream for each of which a time is taken, all of 1 MiB.
const STREAM: usize = 64;
const ANSWER_BYTES: usize = 16;

/// Measures round trips and the stream against [`echo`] at an address.
pub(super) fn measure(address: &str, show: &mut dyn FnMut(&str, Vec<u64>)) -> io::Result<()> {
    for (series, bytes) in [("round-trip-16b", 16), ("round-trip-4k", 4 << 10)] {
        let mut stream = connect(address, bytes, 1)?;
        let message = noise(bytes);
        let mut answer = [0; ANSWER_BYTES];
        let times = each(ROUND_TRIPS, |_| {
            stream.write_all(&message)?;
            stream.read_exact(&mut answer)
        });
        show(series, times?);
    }
    let mut stream = connect(address, 1 << 20, STREAM)?;
    let message = noise(1 << 20);
    let mut answer = [0; ANSWER_BYTES];
    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        (0..STREAM).try_for_each(|_| stream.write_all(&message))?;
        stream.read_exact(&mut answer)?;
        times.push(nanoseconds(start) / STREAM as u64);
    }
    show("stream-1m", times);
    Ok(())
}

/// Answers whoever connects, one after the other, for ever.
pub(super) fn echo(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening");
    for stream in listener.incoming() {
        // Whoever measures notices what went wrong.
        let _ = stream.and_then(answer);
    }
    Ok(())
}

fn connect(address: &str, bytes: usize, answered_every: usize) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(&(bytes as u64).to_le_bytes())?;
    stream.write_all(&(answered_every as u64).to_le_bytes())?;
    Ok(stream)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut number = [0; 8];
    stream.read_exact(&mut number)?;
    let bytes = usize::try_from(u64::from_le_bytes(number)).map_err(io::Error::other)?;
    stream.read_exact(&mut number)?;
    let every = u64::from_le_bytes(number);
    let mut message = vec![0; bytes.min(1 << 20)];
    loop {
        for _ in 0..every {
            stream.read_exact(&mut message)?;
        }
        stream.write_all(&[0; ANSWER_BYTES])?;
    }
}
