//! Servers that say who they are, and clients that ask them.
//!
//! Over TCP a request is a length, the answer the server's number and so many bytes; with its first
//! bit set so many bytes follow the request instead. Over UDP the answer is the server's number and
//! how long the datagram was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the test's failure")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

/// What is not answered within this time is lost. The kernel sends the beginning of a connection
/// again after one second, so that anything lost once would make up a whole one.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// Set in a request that bytes follow.
const UPLOAD: u32 = 1 << 31;

/// Why a client had no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The other end said that there is no such connection.
    Reset,
    /// The other end was silent.
    Silent,
}

fn failure(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::HostUnreachable => Failure::Silent,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionRefused
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => Failure::Reset,
        kind => panic!("{kind}: {error}"),
    }
}

/// Serves a port in the thread's namespace, in the background, for as long as the process lives.
pub fn serve(server: usize, port: u16) {
    let number = u8::try_from(server).unwrap();
    // Both versions: version 4 comes as part of version 6.
    let listener = TcpListener::bind(("::", port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut length = [0; 4];
                while stream.read_exact(&mut length).is_ok() {
                    let length = u32::from_be_bytes(length);
                    let mut answer = vec![number];
                    if length & UPLOAD == 0 {
                        answer.resize(1 + length as usize, 0);
                    } else {
                        let mut sent = vec![0; (length ^ UPLOAD) as usize];
                        if stream.read_exact(&mut sent).is_err() {
                            return;
                        }
                    }
                    if stream.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// The same for datagrams, at one address: answers must come from where they were asked.
pub fn serve_datagrams(server: usize, at: SocketAddr) {
    let number = u8::try_from(server).unwrap();
    let socket = UdpSocket::bind(at).unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut answer = vec![number];
            answer.extend(u32::try_from(length).unwrap().to_be_bytes());
            let _ = socket.send_to(&answer, from);
        }
    });
}

/// A connection that is kept.
pub struct Client {
    stream: TcpStream,
    pub from: SocketAddr,
}

impl Client {
    /// Connects; with port 0 from one that the kernel chooses.
    pub fn connect(from: SocketAddr, to: SocketAddr) -> Result<Self, Failure> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        for way in [sockopt::Timeout::Send, sockopt::Timeout::Recv] {
            sockopt::set_socket_timeout(&socket, way, Some(PATIENCE)).unwrap();
        }
        bind(&socket, &from).unwrap();
        match connect(&socket, &to) {
            Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::AGAIN) => {
                return Err(Failure::Silent);
            }
            result => result.map_err(|error| failure(&error.into()))?,
        }
        let stream = TcpStream::from(socket);
        let from = stream.local_addr().unwrap();
        Ok(Self { stream, from })
    }

    /// Asks who serves.
    pub fn ask(&mut self) -> Result<usize, Failure> {
        self.fetch(0)
    }

    /// Sends so many bytes, and who has received them.
    pub fn send(&mut self, length: u32) -> Result<usize, Failure> {
        let mut request = (length | UPLOAD).to_be_bytes().to_vec();
        request.resize(4 + length as usize, 7);
        let mut answer = [0];
        let sent = self.stream.write_all(&request);
        let answered = sent.and_then(|()| self.stream.read_exact(&mut answer));
        answered.map_err(|error| failure(&error))?;
        Ok(usize::from(answer[0]))
    }

    /// Fetches so many bytes, and who sent them.
    pub fn fetch(&mut self, length: u32) -> Result<usize, Failure> {
        let mut answer = vec![0; 1 + length as usize];
        let asked = self.stream.write_all(&length.to_be_bytes());
        let answered = asked.and_then(|()| self.stream.read_exact(&mut answer));
        answered.map_err(|error| failure(&error))?;
        Ok(usize::from(answer[0]))
    }
}

/// Sends a datagram of this length and waits for its answer: who, and how much arrived there.
pub fn ask_by_datagram(
    from: SocketAddr,
    to: SocketAddr,
    length: usize,
) -> Result<(usize, usize), Failure> {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.connect(to).unwrap();
    let mut outcome = Err(Failure::Silent);
    // The first may be lost while the kernel asks for the neighbour.
    for _ in 0..3 {
        socket.send(&vec![7; length]).unwrap();
        let mut answer = [0; 5];
        match socket.recv(&mut answer) {
            Ok(_) => {
                let length = u32::from_be_bytes(*answer[1..].first_chunk().unwrap());
                return Ok((usize::from(answer[0]), length as usize));
            }
            Err(error) => outcome = Err(failure(&error)),
        }
    }
    outcome
}

/// Any port of this address.
pub fn any(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 0)
}
