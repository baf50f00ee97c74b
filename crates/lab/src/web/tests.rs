//! The server and its visitors, over this machine's loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the test's failure")]

use std::io::{BufReader, Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::http::{Head, read_answer, read_head};
use super::visitors::{PATIENCE, Tally, Visitors};

struct Server {
    address: SocketAddr,
    stop: Option<(UnixStream, thread::JoinHandle<()>)>,
}

fn serve(name: &'static str) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = thread::spawn(move || super::server::serve(&listener, &theirs, name).unwrap());
    Server { address, stop: Some((ours, thread)) }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            (&stop).write_all(b"x").unwrap();
            thread.join().unwrap();
        }
    }
}

/// Waits for what the visitors are to see.
fn wait(visitors: &Visitors, mark: Instant, wanted: impl Fn(&Tally) -> bool) -> Tally {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let tally = visitors.since(mark);
        if wanted(&tally) {
            return tally;
        }
        assert!(Instant::now() < end, "{tally:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn heads_are_read_and_bounded() {
    let read = |text: &str| read_head(&mut Cursor::new(text.to_owned()));
    let head = read("GET / HTTP/1.1\r\nHost: x\r\nconnection: Close\r\n\r\nrest").unwrap();
    let expected = Head { first: "GET / HTTP/1.1".into(), close: true, length: 0 };
    assert_eq!(head, Some(expected));
    assert_eq!(read("").unwrap(), None);
    for broken in ["GET / HTTP/1.1\r\n", "GET", "A\r\nContent-Length: x\r\n\r\n"] {
        assert!(read(broken).is_err(), "{broken:?}");
    }
    assert!(read(&"x".repeat(1 << 17)).is_err());
    let answer = |text: &str| read_answer(&mut Cursor::new(text.to_owned()));
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nnode1\n";
    assert_eq!(answer(good).unwrap(), "node1");
    assert!(answer(&good[..good.len() - 1]).is_err(), "a body that is cut off");
    assert!(answer("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").is_err());
    assert!(answer("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").is_err());
}

#[test]
fn a_connection_is_kept_or_closed_as_asked() {
    let server = serve("one");
    let mut stream = TcpStream::connect(server.address).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut reader).unwrap(), "one");
    }
    stream.write_all(b"POST / HTTP/1.1\r\n\r\n").unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 400 "), "{rest}");
}

#[test]
fn visitors_tell_who_answered() {
    let server = serve("one");
    let visitors = Visitors::start(server.address, 5, None).unwrap();
    let mark = Instant::now();
    let tally = wait(&visitors, mark, |tally| tally.new >= 50);
    assert_eq!((tally.lost, tally.broken(), tally.outage), (0, 0, Duration::ZERO));
    assert_eq!(tally.served.get("one"), Some(&tally.new));
    let end = Instant::now() + Duration::from_secs(20);
    while visitors.kept().get("one") != Some(&5) {
        assert!(Instant::now() < end, "{:?}", visitors.kept());
        thread::sleep(Duration::from_millis(10));
    }
}

/// A server that answers each connection once and then falls silent or closes it.
fn serve_once(closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = read_head(&mut BufReader::new(stream.try_clone().unwrap()));
            if !matches!(&head, Ok(Some(head)) if head.close) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nonce";
                let _ = stream.write_all(answer);
                if closes {
                    continue;
                }
            }
            // New visitors wait in vain.
            held.push(stream);
        }
    });
    address
}

#[test]
fn visitors_tell_who_had_no_answer_and_what_broke() {
    let visitors = Visitors::start(serve_once(true), 2, None).unwrap();
    let mark = Instant::now();
    let tally = wait(&visitors, mark, |tally| tally.lost >= 4 && tally.broken() >= 2);
    assert_eq!(tally.lost, tally.new);
    assert!(tally.served.is_empty());
    assert!(tally.outage > Duration::ZERO && tally.outage <= mark.elapsed());
    assert_eq!(tally.broken.keys().map(String::as_str).collect::<Vec<_>>(), ["once"]);
    assert!(tally.error.is_some() && tally.why.contains_key("once"));
    assert!(visitors.since(mark + PATIENCE * 1000).error.is_none());
}
