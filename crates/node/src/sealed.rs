//! One TCP connection under TLS 1.3, which one thread reads while another writes.
//!
//! Nothing is sent or waited for while the state of the cipher is locked, so that an end that does
//! not read holds up nobody who does. Who the other end is has been found out before.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::SendFlags;
use rustls::{AlertDescription, CertificateError, Connection};
use wire::hello::HELLO_BYTES_MAX;

use crate::connection::Until;

/// Bytes before which the length of a TLS record is known, and the most that follow them.
const HEADER_BYTES: usize = 5;
const RECORD_BYTES_MAX: usize = (16 << 10) + 256;
/// Bytes that are sealed at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes read from the connection at a time.
const READ_BYTES: usize = 128 << 10;

/// A connection whose two ends have shown who they are.
pub(crate) struct Sealed {
    socket: TcpStream,
    tls: Mutex<Connection>,
    incoming: Mutex<Incoming>,
    /// What is sealed and not sent yet.
    outgoing: Mutex<Vec<u8>>,
}

/// What the other end answered instead of shaking hands: a frame without its prefix.
#[derive(Debug, thiserror::Error)]
#[error("the other end answers without TLS")]
pub(crate) struct PlainAnswer(pub(crate) Vec<u8>);

/// What was read and is not unsealed yet.
struct Incoming {
    buffer: Vec<u8>,
    unread: Range<usize>,
}

impl Sealed {
    /// Shakes hands, for so long at most.
    pub(crate) fn shake_hands(
        socket: TcpStream,
        mut tls: Connection,
        time: Duration,
    ) -> io::Result<Sealed> {
        let mut patient = Until::within(time, &socket);
        // Everything is taken out as soon as it is sealed.
        tls.set_buffer_limit(None);
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut &socket)?;
            }
            if !tls.is_handshaking() {
                break;
            }
            let record = read_record(&mut patient)?;
            if let Err(error) = take(&mut tls, &record) {
                // So that the other end can say why too.
                while tls.wants_write() && tls.write_tls(&mut &socket).is_ok() {}
                return Err(error);
            }
        }
        let incoming = Incoming { buffer: vec![0; READ_BYTES], unread: 0..0 };
        let (incoming, outgoing) = (Mutex::new(incoming), Mutex::default());
        Ok(Sealed { socket, tls: Mutex::new(tls), incoming, outgoing })
    }

    /// The connection below.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether something holds for the state of the cipher.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        look(&lock(&self.tls))
    }

    /// Reads as read(2) does.
    pub(crate) fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        let mut incoming = lock(&self.incoming);
        loop {
            let mut tls = lock(&self.tls);
            let count = unseal(&mut tls, &mut incoming, room)?;
            drop(tls);
            if count > 0 {
                return Ok(count);
            }
            let Incoming { buffer, unread } = &mut *incoming;
            *unread = 0..(&self.socket).read(buffer)?;
            if unread.end == 0 {
                return Ok(0);
            }
        }
    }

    /// Reads no more from the connection than the record in which what is asked for stands, for
    /// what comes after it may be meant for somebody else.
    pub(crate) fn read_sparingly(&self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match lock(&self.tls).reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            let record = read_record(&mut &self.socket)?;
            take(&mut lock(&self.tls), &record)?;
        }
    }

    /// Writes all of it, and before it what an earlier call has left.
    pub(crate) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut outgoing = lock(&self.outgoing);
        for piece in bytes.chunks(PIECE_BYTES) {
            self.seal(piece, &mut outgoing)?;
            (&self.socket).write_all(&outgoing)?;
            outgoing.clear();
        }
        (&self.socket).write_all(&outgoing)?;
        outgoing.clear();
        Ok(())
    }

    /// Writes all of it that the connection takes without waiting; what it does not take is kept,
    /// and goes before anything else. Nothing is taken while something is kept.
    pub(crate) fn write_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut outgoing = lock(&self.outgoing);
        if !outgoing.is_empty() {
            return Ok(0);
        }
        self.seal(bytes, &mut outgoing)?;
        // It is sealed, and so taken; an error is met again by whoever sends the rest.
        let sent = send_at_once(&self.socket, &outgoing).unwrap_or(0);
        outgoing.drain(..sent);
        Ok(bytes.len())
    }

    /// Whether something is kept that the connection did not take.
    pub(crate) fn has_kept(&self) -> bool {
        !lock(&self.outgoing).is_empty()
    }

    fn seal(&self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut tls = lock(&self.tls);
        tls.writer().write_all(bytes)?;
        while tls.wants_write() {
            tls.write_tls(out)?;
        }
        Ok(())
    }
}

/// Unseals into the room as much as there is and fits.
fn unseal(tls: &mut Connection, incoming: &mut Incoming, room: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    loop {
        let rest = room.get_mut(count..).unwrap_or_default();
        match tls.reader().read(rest) {
            Ok(0) => return Ok(count),
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut sealed = incoming.buffer.get(incoming.unread.clone()).unwrap_or_default();
                if sealed.is_empty() {
                    return Ok(count);
                }
                incoming.unread.start += tls.read_tls(&mut sealed)?;
                tls.process_new_packets().map_err(broken)?;
            }
            // What was unsealed before is told first.
            Err(_) if count > 0 => return Ok(count),
            Err(error) => return Err(error),
        }
    }
}

fn take(tls: &mut Connection, record: &[u8]) -> io::Result<()> {
    let mut rest = record;
    while !rest.is_empty() {
        tls.read_tls(&mut rest)?;
        tls.process_new_packets().map_err(broken)?;
    }
    Ok(())
}

/// Reads one record, and nothing beyond it.
fn read_record(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut record = vec![0; HEADER_BYTES];
    from.read_exact(&mut record)?;
    let [first, second, third, high, low] = record.first_chunk().copied().unwrap_or_default();
    if third == 0 {
        // A short frame has a zero of its length here, TLS its version.
        let length = usize::from(u16::from_le_bytes([first, second])).clamp(1, HELLO_BYTES_MAX);
        let mut frame = vec![low; length];
        from.read_exact(frame.get_mut(1..).unwrap_or_default())?;
        return Err(io::Error::other(PlainAnswer(frame)));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > RECORD_BYTES_MAX {
        return Err(io::Error::other("the other end does not speak TLS"));
    }
    record.resize(HEADER_BYTES + length, 0);
    from.read_exact(record.get_mut(HEADER_BYTES..).unwrap_or_default())?;
    Ok(record)
}

fn send_at_once(to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match rustix::net::send(to, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(sent),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// What has been changed on its way broke the connection; another one may be whole.
fn broken(error: rustls::Error) -> io::Error {
    let kind = io::ErrorKind::NotConnected;
    match about_clocks(&error) {
        Some(why) => io::Error::new(kind, format!("{error}: {why}")),
        None => io::Error::new(kind, error),
    }
}

/// What an error says of the clocks of both ends, by which certificates count.
fn about_clocks(error: &rustls::Error) -> Option<&'static str> {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => Some(
            "the clock of this node is behind, or that of the other one was ahead: set them right, \
             such as by chrony",
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => Some(
            "the clock of this node is ahead, or that of the other one was behind, or it could not \
             renew its certificate: set them right, and look at `evenkeel status` there",
        ),
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => Some(
            "by the clock of the other end this node's certificate does not count now: one of \
             both clocks is wrong, or it could not be renewed",
        ),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
