//! TCP connections between nodes: the greeting, who the other end is, bounded reading of frames,
//! limits of time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use model::NodeName;
use wire::frame::{PREFIX_BYTES, frame_length};
use wire::hello::{
    HELLO_BYTES_MAX, Hello, Joint, Protection, Welcome, put_hello, put_welcome, take_hello,
    take_welcome,
};

use crate::keys::{self, Keys};
use crate::sealed::{PlainAnswer, Sealed};
use crate::stream::Stream;

/// Port of the peers, UDP for heartbeats and TCP for everything else.
pub(crate) const PEER_PORT: u16 = 7620;

/// Within this time a greeting must be complete.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a peer has nothing to do with a session, as it said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Absent(String);

/// Whether an error is a peer's word that it takes no part in the session.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Absent>())
}

/// Whether an error is one of the connection, and not of what came over it.
pub(crate) fn is_broken(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::UnexpectedEof, io::ErrorKind::NotConnected];
    error.raw_os_error().is_some() || kinds.contains(&error.kind())
}

/// Whom to call, and with which keys.
#[derive(Debug, Clone)]
pub(crate) struct Callee {
    pub(crate) name: NodeName,
    /// Best first.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) keys: Keys,
    /// Whether everything is to be encrypted, where there are keys.
    pub(crate) encrypt: bool,
}

/// Calls the first address that answers, and greets it. A peer that is not in the session is not
/// asked by another way.
pub(crate) fn call(callee: &Callee, hello: &Hello) -> io::Result<(Stream, Joint)> {
    let mut failures = Vec::new();
    for address in &callee.addresses {
        match call_one(callee, address, hello) {
            Ok(found) => return Ok(found),
            Err(error) if is_absent(&error) => return Err(error),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(io::Error::other(failures.join("; ")))
}

fn call_one(callee: &Callee, address: &SocketAddr, hello: &Hello) -> io::Result<(Stream, Joint)> {
    let mut socket = TcpStream::connect_timeout(address, GREETING_TIMEOUT)?;
    prepare(&socket)?;
    let protection = callee.keys.protection(callee.encrypt);
    let mut out = Vec::new();
    put_hello(&mut out, &Hello { protection, ..hello.clone() });
    socket.write_all(&out)?;
    let stream = match protection {
        Protection::None => Stream::plain(socket),
        Protection::Authenticated | Protection::Encrypted => {
            let tls = callee.keys.calling(&callee.name)?;
            let sealed = Sealed::shake_hands(socket, tls, GREETING_TIMEOUT).map_err(refusal)?;
            // Once more, where nobody on the way can change it.
            sealed.write_all(&out)?;
            Stream::sealed(sealed)
        }
    };
    stream.socket().set_read_timeout(Some(GREETING_TIMEOUT))?;
    match take_welcome(&read_short_frame(&stream)?).map_err(io::Error::other)? {
        Welcome::Accepted(joint) => Ok((agreed(&stream, protection)?, joint)),
        Welcome::Absent(why) => Err(io::Error::other(Absent(why))),
        Welcome::Refused(why) => Err(io::Error::other(why)),
    }
}

/// What a node says that refuses before any keys are shown is in the clear, and believed only as
/// a reason why there is no connection.
fn refusal(error: io::Error) -> io::Error {
    let answer = error.get_ref().and_then(|inner| inner.downcast_ref::<PlainAnswer>());
    match answer.and_then(|PlainAnswer(frame)| take_welcome(frame).ok()) {
        Some(Welcome::Refused(why) | Welcome::Absent(why)) => io::Error::other(why),
        Some(Welcome::Accepted(_)) | None => error,
    }
}

/// Reads the greeting of a caller that just connected.
pub(crate) fn greeted(stream: &TcpStream) -> io::Result<Hello> {
    prepare(stream)?;
    let mut frame = Vec::new();
    read_frame(&mut Until::within(GREETING_TIMEOUT, stream), HELLO_BYTES_MAX, &mut frame)?;
    take_hello(&frame).map_err(io::Error::other)
}

/// Finds out whether a caller is who it says, as it wants the connection protected, and has said
/// what was read of it: it says so again once nobody on the way can change it.
pub(crate) fn proven(
    socket: TcpStream,
    keys: &Keys,
    (from, protection): (&NodeName, Protection),
    said: impl FnOnce(&Hello) -> bool,
) -> io::Result<Stream> {
    if protection == Protection::None {
        return Ok(Stream::plain(socket));
    }
    let tls = match keys.called() {
        Ok(tls) => tls,
        Err(error) => {
            let why = format!("the node's keys are of no use: {error}");
            // A caller that does not listen has gone.
            let _ = welcome(&Stream::plain(socket), &Welcome::Refused(why));
            return Err(error);
        }
    };
    let sealed = Sealed::shake_hands(socket, tls, GREETING_TIMEOUT)?;
    sealed.with(|tls| keys::is_of(tls, from)).map_err(io::Error::other)?;
    sealed.socket().set_read_timeout(Some(GREETING_TIMEOUT))?;
    let stream = Stream::sealed(sealed);
    let again = take_hello(&read_short_frame(&stream)?).map_err(io::Error::other)?;
    if again.from != *from || again.protection != protection || !said(&again) {
        return Err(io::Error::other("its greeting was changed on the way"));
    }
    Ok(stream)
}

/// Accepts a caller; the connection to go on with.
pub(crate) fn accept(stream: &Stream, ours: Joint, wanted: Protection) -> io::Result<Stream> {
    welcome(stream, &Welcome::Accepted(ours))?;
    agreed(stream, wanted)
}

/// Answers a greeting.
pub(crate) fn welcome(mut stream: &Stream, welcome: &Welcome) -> io::Result<()> {
    let mut out = Vec::new();
    put_welcome(&mut out, welcome);
    stream.write_all(&out)
}

/// The connection as it is used from its greeting on.
fn agreed(stream: &Stream, protection: Protection) -> io::Result<Stream> {
    stream.socket().set_read_timeout(None)?;
    match protection {
        Protection::Authenticated => stream.unsealed(),
        Protection::None | Protection::Encrypted => Ok(stream.clone()),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GREETING_TIMEOUT))?;
    stream.set_write_timeout(Some(GREETING_TIMEOUT))
}

fn read_short_frame(stream: &Stream) -> io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    match stream {
        Stream::Plain(socket) => {
            let mut patient = Until::within(GREETING_TIMEOUT, socket);
            read_frame(&mut patient, HELLO_BYTES_MAX, &mut frame)?;
        }
        Stream::Sealed(sealed) => {
            read_frame(&mut Sparing(sealed), HELLO_BYTES_MAX, &mut frame)?;
        }
    }
    Ok(frame)
}

/// Reads no more from a connection than it must.
struct Sparing<'a>(&'a Sealed);

impl Read for Sparing<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read_sparingly(room)
    }
}

/// Reads until an instant, however slowly the bytes trickle in.
pub(crate) struct Until<'a> {
    stream: &'a TcpStream,
    end: Instant,
}

impl Until<'_> {
    /// Reads from a stream for so long at most, all in all.
    pub(crate) fn within(time: Duration, stream: &TcpStream) -> Until<'_> {
        Until { stream, end: Instant::now() + time }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(room)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self.stream).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

/// Reads frames of any length in as few calls as possible, each without being copied again.
pub(crate) struct Frames<R> {
    from: R,
    buffer: Vec<u8>,
    /// What of the buffer was read and not yet taken.
    unread: Range<usize>,
}

impl<R: Read> Frames<R> {
    /// Frames from a stream, with this much room at first, in bytes.
    pub(crate) fn new(from: R, room: usize) -> Frames<R> {
        Frames { from, buffer: vec![0; room], unread: 0..0 }
    }

    /// Whether nothing has been read that was not taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// The next frame, without its prefix.
    pub(crate) fn next(&mut self) -> io::Result<&[u8]> {
        self.need(PREFIX_BYTES)?;
        let prefix = self.buffer.get(self.unread.clone()).and_then(<[u8]>::first_chunk);
        let prefix = prefix.copied().ok_or(io::ErrorKind::UnexpectedEof)?;
        // No longer than a frame may be, so no sender can ask for more room than that.
        let length = frame_length(prefix).map_err(io::Error::other)?;
        self.need(PREFIX_BYTES + length)?;
        let start = self.unread.start + PREFIX_BYTES;
        self.unread.start = start + length;
        self.buffer.get(start..start + length).ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    /// Reads until this many bytes are there.
    fn need(&mut self, bytes: usize) -> io::Result<()> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        }
        if self.unread.start + bytes > self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            self.buffer.resize(bytes.max(self.buffer.len()), 0);
        }
        while self.unread.len() < bytes {
            let room = self.buffer.get_mut(self.unread.end..).unwrap_or_default();
            match self.from.read(room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.unread.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::{ModuleName, NodeName};

    use super::*;

    /// Hands out as many bytes as it is told each time.
    struct Trickle(Vec<u8>, usize);

    impl Read for Trickle {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(room.len()).min(self.0.len());
            room[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    #[test]
    fn frames_come_whole_however_they_arrive() {
        let bodies: Vec<Vec<u8>> = [1, 5, 100, 3, 64, 65]
            .iter()
            .map(|length| vec![*length; usize::from(*length)])
            .collect();
        let mut bytes = Vec::new();
        for body in &bodies {
            wire::frame::put_frame(&mut bytes, |out| out.extend_from_slice(body));
        }
        for step in [1, 2, 7, 60, 1000] {
            let mut frames = Frames::new(Trickle(bytes.clone(), step), 64);
            for body in &bodies {
                assert_eq!(frames.next().unwrap(), body, "{step} bytes at a time");
            }
            assert!(frames.is_empty());
            assert_eq!(frames.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    /// What a node says to a greeting: sent by a thread as given, then the stream is closed.
    fn greet(send: impl FnOnce(&mut TcpStream) + Send + 'static) -> Result<Hello, String> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let caller = std::thread::spawn(move || send(&mut TcpStream::connect(address).unwrap()));
        let (stream, _) = listener.accept().unwrap();
        let result = greeted(&stream).map_err(|error| error.to_string());
        drop(stream);
        caller.join().unwrap();
        result
    }

    fn hello() -> (Hello, Vec<u8>) {
        let purpose = wire::hello::Purpose::Control;
        let (cluster, from) = (ModuleName::new("demo").unwrap(), NodeName::new("node1").unwrap());
        let protection = Protection::None;
        let hello = Hello { cluster, from, purpose, protection };
        let mut bytes = Vec::new();
        put_hello(&mut bytes, &hello);
        (hello, bytes)
    }

    #[test]
    fn a_greeting_is_understood_or_refused_with_its_reason() {
        let (hello, good) = hello();
        let whole = good.clone();
        assert_eq!(greet(move |to| to.write_all(&whole).unwrap()), Ok(hello));
        let framed = |body: &[u8]| {
            let mut bytes = Vec::new();
            wire::frame::put_frame(&mut bytes, |out| out.extend_from_slice(body));
            bytes
        };
        let body = &good[PREFIX_BYTES..];
        let mut version = body.to_vec();
        version[4] += 1;
        let (ours, theirs) = (wire::hello::VERSION, wire::hello::VERSION + 1);
        let versions = format!("speaks version {theirs}, this one {ours}");
        let cases = [
            (framed(&version), &*versions),
            (framed(b"GET / HTTP/1.1"), "does not speak this protocol"),
            (framed(&[body, b"more"].concat()), "4 bytes after its last field"),
            (framed(&body[..body.len() - 1]), "bad message"),
            (framed(&vec![b'E'; HELLO_BYTES_MAX]), "does not speak this protocol"),
            (framed(&vec![b'E'; HELLO_BYTES_MAX + 1]), "1025 bytes is outside the limits"),
            (0u32.to_le_bytes().to_vec(), "0 bytes is outside the limits"),
            (u32::MAX.to_le_bytes().to_vec(), "4294967295 bytes is outside the limits"),
            (good[..good.len() - 1].to_vec(), "failed to fill whole buffer"),
            (Vec::new(), "failed to fill whole buffer"),
        ];
        for (bytes, words) in cases {
            // What is refused early is not read to its end, so writing it may fail.
            let error = greet(move |to| drop(to.write_all(&bytes))).unwrap_err();
            assert!(error.contains(words), "{error:?} lacks {words:?}");
        }
    }

    #[test]
    fn a_greeting_that_trickles_in_is_not_waited_for() {
        let (_, good) = hello();
        let long = [good, vec![0; 1 << 20]].concat();
        let mut announced = long;
        announced[..PREFIX_BYTES].copy_from_slice(&1024u32.to_le_bytes());
        let result = greet(move |to| {
            // One byte each time, well within the patience for one read, until nobody listens.
            for byte in announced.chunks(1) {
                if to.write_all(byte).is_err() {
                    return;
                }
                std::thread::sleep(GREETING_TIMEOUT / 20);
            }
        });
        assert!(result.is_err(), "{result:?}");
    }

    #[test]
    fn a_frame_too_long_or_cut_off_is_refused() {
        for bytes in [&u32::MAX.to_le_bytes()[..], &[4, 0, 0, 0, 1], &[0; 4]] {
            let mut frames = Frames::new(bytes, 8);
            assert!(frames.next().is_err(), "{bytes:?}");
        }
    }
}

#[cfg(test)]
#[path = "protected_tests.rs"]
mod protected_tests;
