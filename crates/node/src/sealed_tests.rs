//! Connections under TLS that are slow, changed on their way, or not under TLS at all.

use std::net::Shutdown;
use std::time::Duration;

use wire::hello::{Welcome, put_welcome, take_welcome};

use super::*;
use crate::connection::is_broken;
use crate::keys::tests::{Site, connections};
use crate::stream::tests::socket_pair;

const TIME: Duration = Duration::from_secs(20);

fn pair() -> (Sealed, Sealed) {
    let site = Site::new("sealed");
    let (ours, theirs) = connections(&site.keys("node1"), "node2", &site.keys("node2"));
    (ours.unwrap(), theirs.unwrap())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 3) as u8).collect()
}

/// Reads so many bytes, in pieces that fit nothing.
fn read(from: &Sealed, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut done = 0;
    while done < count {
        let end = count.min(done + 7_777);
        let more = from.read(&mut bytes[done..end]).unwrap();
        assert!(more > 0, "it ended after {done} bytes");
        done += more;
    }
    bytes
}

#[test]
fn both_ends_send_more_than_a_connection_holds_while_both_read() {
    let (ours, theirs) = pair();
    let bytes = pattern(24 << 20);
    std::thread::scope(|scope| {
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            scope.spawn(|| from.write_all(&bytes).unwrap());
            scope.spawn(|| assert!(read(to, bytes.len()) == bytes));
        }
    });
}

#[test]
fn what_the_connection_does_not_take_at_once_goes_first_later() {
    let (ours, theirs) = pair();
    let piece = pattern(100_000);
    let mut taken = Vec::new();
    while !ours.has_kept() {
        assert_eq!(ours.write_at_once(&piece).unwrap(), piece.len());
        taken.extend_from_slice(&piece);
    }
    assert_eq!(ours.write_at_once(b"too early").unwrap(), 0);
    taken.extend_from_slice(b"later");
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(read(&theirs, taken.len()) == taken));
        ours.write_all(b"later").unwrap();
    });
    assert!(!ours.has_kept());
}

#[test]
fn what_is_read_sparingly_leaves_what_comes_after_it_unread() {
    let (ours, theirs) = pair();
    ours.write_all(b"sealed").unwrap();
    (&ours.socket).write_all(b"plain").unwrap();
    let mut room = [0; 6];
    assert_eq!(theirs.read_sparingly(&mut room).unwrap(), 6);
    assert_eq!(&room, b"sealed");
    let mut room = [0; 5];
    (&theirs.socket).read_exact(&mut room).unwrap();
    assert_eq!(&room, b"plain");
}

#[test]
fn what_was_changed_on_its_way_breaks_the_connection_and_is_not_read() {
    let (ours, theirs) = pair();
    let mut record = Vec::new();
    ours.seal(b"something", &mut record).unwrap();
    *record.last_mut().unwrap() ^= 1;
    (&ours.socket).write_all(&record).unwrap();
    let error = theirs.read(&mut [0; 9]).unwrap_err();
    assert!(is_broken(&error), "{error}");
}

#[test]
fn an_end_is_told_from_silence() {
    let (ours, theirs) = pair();
    ours.write_all(b"last").unwrap();
    ours.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read(&theirs, 4), b"last");
    assert_eq!(theirs.read(&mut [0; 4]).unwrap(), 0);
}

#[test]
fn an_answer_without_tls_is_understood_and_garbage_is_refused() {
    let site = Site::new("plain");
    let keys = site.keys("node1");
    let answered = |bytes: &[u8]| {
        let (ours, mut theirs) = socket_pair();
        theirs.write_all(bytes).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let tls = keys.calling(&model::NodeName::new("node2").unwrap()).unwrap();
        Sealed::shake_hands(ours, tls, TIME).err().unwrap()
    };
    let refused = Welcome::Refused("no keys here".to_owned());
    let mut frame = Vec::new();
    put_welcome(&mut frame, &refused);
    let error = answered(&frame);
    let PlainAnswer(body) = error.get_ref().and_then(|inner| inner.downcast_ref()).unwrap();
    assert_eq!(take_welcome(body), Ok(refused));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", &[0; 5], &[0xff; 4096]] {
        let error = answered(garbage);
        assert!(!error.to_string().is_empty());
    }
}
