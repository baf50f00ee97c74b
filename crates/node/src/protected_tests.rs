//! Greetings under every kind of protection, through a relay that sees what travels.

use std::net::{Shutdown, TcpListener};

use wire::hello::Purpose;

use super::*;
use crate::keys::tests::Site;
use crate::stream::tests::socket_pair;

const SECRET: &[u8] = b"nobody on the way shall read this";

/// Passes everything on, both ways, until both ends have ended; returns what it saw.
fn relay(caller: TcpStream, called: &TcpStream) -> Vec<u8> {
    let pass = |mut from: &TcpStream, mut to: &TcpStream| {
        let mut seen = Vec::new();
        let mut room = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut room) {
            seen.extend_from_slice(&room[..count]);
            to.write_all(&room[..count]).unwrap();
        }
        let _ = to.shutdown(Shutdown::Write);
        seen
    };
    std::thread::scope(|scope| {
        let back = scope.spawn(|| pass(called, &caller));
        let mut seen = pass(&caller, called);
        seen.extend(back.join().unwrap());
        seen
    })
}

fn hello() -> Hello {
    let cluster = model::ModuleName::new("demo").unwrap();
    let from = NodeName::new("node1").unwrap();
    Hello { cluster, from, purpose: Purpose::Control, protection: Protection::None }
}

/// A caller and a called node exchange secrets; returns what was seen on the way.
fn exchange(protection: Protection) -> Vec<u8> {
    let site = Site::new("exchange");
    let theirs = site.keys("node2");
    let encrypt = protection != Protection::Authenticated;
    let keys = match protection {
        Protection::None => Keys::new(std::path::Path::new("/nowhere/keys")),
        Protection::Authenticated | Protection::Encrypted => site.keys("node1"),
    };
    let name = NodeName::new("node2").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = vec![listener.local_addr().unwrap()];
    let callee = Callee { name, addresses, keys, encrypt };
    let (near, far) = socket_pair();
    std::thread::scope(|scope| {
        let seen = scope.spawn(move || relay(listener.accept().unwrap().0, &near));
        scope.spawn(move || {
            let said = greeted(&far).unwrap();
            let wanted = (&said.from, said.protection);
            let stream = proven(far, &theirs, wanted, |again| *again == said).unwrap();
            let stream = accept(&stream, Joint::default(), said.protection).unwrap();
            // At once, so that the other end may find it behind its welcome.
            (&stream).write_all(SECRET).unwrap();
            let mut room = [0; SECRET.len()];
            (&stream).read_exact(&mut room).unwrap();
            assert_eq!(room, SECRET);
        });
        let (mut stream, _) = call(&callee, &hello()).unwrap();
        let mut room = [0; SECRET.len()];
        stream.read_exact(&mut room).unwrap();
        assert_eq!(room, SECRET);
        stream.write_all(SECRET).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        drop(stream);
        seen.join().unwrap()
    })
}

fn shows(seen: &[u8], bytes: &[u8]) -> bool {
    seen.windows(bytes.len()).any(|window| window == bytes)
}

#[test]
fn what_is_encrypted_shows_nothing_on_its_way() {
    assert!(shows(&exchange(Protection::None), SECRET), "the relay sees what is in the clear");
    assert!(shows(&exchange(Protection::Authenticated), SECRET));
    let seen = exchange(Protection::Encrypted);
    assert!(!shows(&seen, SECRET));
    assert!(!shows(&seen, &SECRET[..8]));
}

#[test]
fn who_is_refused_before_any_keys_are_shown_hears_why() {
    let site = Site::new("refused");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = NodeName::new("node2").unwrap();
    let addresses = vec![listener.local_addr().unwrap()];
    let callee = Callee { name, addresses, keys: site.keys("node1"), encrypt: true };
    let refuser = std::thread::spawn(move || {
        let socket = listener.accept().unwrap().0;
        greeted(&socket).unwrap();
        let why = Welcome::Absent("there are no keys here".to_owned());
        welcome(&Stream::plain(socket), &why).unwrap();
    });
    let error = call(&callee, &hello()).err().unwrap();
    assert!(error.to_string().contains("there are no keys here"), "{error}");
    assert!(!is_absent(&error), "what is not proven ends no session");
    refuser.join().unwrap();
}

#[test]
fn a_greeting_that_was_changed_on_its_way_is_refused() {
    let site = Site::new("changed");
    let theirs = site.keys("node2");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = NodeName::new("node2").unwrap();
    let addresses = vec![listener.local_addr().unwrap()];
    let callee = Callee { name, addresses, keys: site.keys("node1"), encrypt: true };
    let called = std::thread::spawn(move || {
        let socket = listener.accept().unwrap().0;
        let mut said = greeted(&socket).unwrap();
        // As if somebody had changed what it is for.
        said.cluster = model::ModuleName::new("other").unwrap();
        let wanted = (&said.from, said.protection);
        proven(socket, &theirs, wanted, |again| *again == said).err().unwrap().to_string()
    });
    assert!(call(&callee, &hello()).is_err());
    let error = called.join().unwrap();
    assert!(error.contains("changed on the way"), "{error}");
}
