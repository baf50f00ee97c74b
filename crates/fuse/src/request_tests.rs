//! Tests of the decoder, hostile bytes above all.

use super::*;

fn framed(opcode: u32, extension_words: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((u32::try_from(40 + body.len()).unwrap()).to_ne_bytes());
    bytes.extend(opcode.to_ne_bytes());
    bytes.extend(77u64.to_ne_bytes());
    bytes.extend(5u64.to_ne_bytes());
    for id in [1000u32, 1001, 4242] {
        bytes.extend(id.to_ne_bytes());
    }
    bytes.extend(extension_words.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(body);
    bytes
}

#[test]
fn a_lookup_is_read() {
    let bytes = framed(abi::LOOKUP, 0, b"na\xffme\0");
    let request = Request::parse(&bytes).unwrap();
    assert_eq!((request.unique, request.node), (77, 5));
    assert_eq!((request.uid, request.gid, request.pid), (1000, 1001, 4242));
    assert_eq!(request.operation, Operation::Lookup { name: b"na\xffme" });
}

#[test]
fn a_write_claims_no_more_than_it_carries() {
    let body = |size: u32, data: &[u8]| {
        let mut body = Vec::new();
        body.extend(9u64.to_ne_bytes());
        body.extend(4096u64.to_ne_bytes());
        body.extend(size.to_ne_bytes());
        body.extend(abi::WRITE_KILL_SUIDGID.to_ne_bytes());
        body.extend([0; 16]);
        body.extend(data);
        body
    };
    let good = framed(abi::WRITE, 0, &body(3, b"abc"));
    let expected = Operation::Write {
        handle: 9,
        offset: 4096,
        data: b"abc",
        file_flags: 0,
        from_cache: false,
        kill_privileges: true,
    };
    assert_eq!(Request::parse(&good).unwrap().operation, expected);
    for size in [4, u32::MAX] {
        let bad = framed(abi::WRITE, 0, &body(size, b"abc"));
        let error = Request::parse(&bad).unwrap_err();
        assert_eq!(error, ParseError { unique: Some(77), opcode: Some(abi::WRITE) });
    }
}

#[test]
fn hostile_lengths_and_missing_ends_are_errors() {
    let mut batch = u32::MAX.to_ne_bytes().to_vec();
    batch.extend([0; 36]);
    assert!(Request::parse(&framed(abi::BATCH_FORGET, 0, &batch)).is_err());
    assert!(Request::parse(&framed(abi::LOOKUP, 0, b"no end")).is_err());
    assert!(Request::parse(&framed(abi::LOOKUP, u16::MAX, b"name\0")).is_err());
    assert!(Request::parse(&framed(abi::SYMLINK, 0, b"name\0target")).is_err());
    let mut long = framed(abi::LOOKUP, 0, b"name\0");
    long[0] = long[0].wrapping_add(1);
    assert!(Request::parse(&long).is_err());
    assert_eq!(Request::parse(&[]).unwrap_err(), ParseError { unique: None, opcode: None });
}

#[test]
fn extensions_are_cut_off() {
    let mut body = b"name\0".to_vec();
    body.extend([0xee; 8]);
    let bytes = framed(abi::LOOKUP, 1, &body);
    assert_eq!(Request::parse(&bytes).unwrap().operation, Operation::Lookup { name: b"name" });
}

#[test]
fn unknown_kinds_are_named() {
    let bytes = framed(4711, 0, b"whatever");
    assert_eq!(Request::parse(&bytes).unwrap().operation, Operation::Unknown(4711));
}

#[test]
fn batches_of_forgets_are_listed() {
    let mut body = 2u32.to_ne_bytes().to_vec();
    body.extend([0; 4]);
    for number in [2u64, 1, 3, 7] {
        body.extend(number.to_ne_bytes());
    }
    let bytes = framed(abi::BATCH_FORGET, 0, &body);
    let Operation::BatchForget(forgets) = Request::parse(&bytes).unwrap().operation else {
        panic!("not a batch");
    };
    assert_eq!(forgets.iter().collect::<Vec<_>>(), [(2, 1), (3, 7)]);
}

/// Every kind of request with every length of arbitrary bytes: an error or a request, no panic.
#[test]
fn no_bytes_make_the_decoder_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut understood = 0u32;
    for opcode in 0..60 {
        for length in 0..120 {
            let body: Vec<u8> = (0..length).map(|_| (next() >> 60) as u8).collect();
            let bytes = framed(opcode, (next() % 4 / 3) as u16, &body);
            understood += u32::from(Request::parse(&bytes).is_ok());
            let cut = (next() as usize) % (bytes.len() + 1);
            assert!(cut == bytes.len() || Request::parse(&bytes[..cut]).is_err());
        }
    }
    assert!(understood > 1000);
}

#[test]
fn attributes_are_read_in_both_forms() {
    let body = |size: u32, own: &[u32], rest: &[u8]| {
        let mut body = size.to_ne_bytes().to_vec();
        body.extend(2u32.to_ne_bytes());
        own.iter().for_each(|word| body.extend(word.to_ne_bytes()));
        body.extend(rest);
        framed(abi::SETXATTR, 0, &body)
    };
    let read = |bytes: &[u8]| match Request::parse(bytes).map(|request| request.operation) {
        Ok(Operation::SetXattr { name, value, flags: 2, kill_group }) => {
            Some((name.to_vec(), value.to_vec(), kill_group))
        }
        _ => None,
    };
    let long = b"system.posix_acl_access\0value";
    for (own, kill_group) in [(&[][..], false), (&[0, 0], false), (&[1, 0], true)] {
        let expected = (b"system.posix_acl_access".to_vec(), b"value".to_vec(), kill_group);
        assert_eq!(read(&body(5, own, long)), Some(expected), "{own:?}");
    }
    for name in [&b"u"[..], b"user.ab", b"user.abc"] {
        let rest = [name, b"\0"].concat();
        assert_eq!(read(&body(0, &[], &rest)), Some((name.to_vec(), Vec::new(), false)));
    }
    assert_eq!(read(&body(6, &[1, 0], long)), None);
    assert_eq!(read(&body(u32::MAX, &[], long)), None);
}

#[test]
fn what_is_created_comes_with_its_umask() {
    let words = |words: &[u32], name: &[u8]| {
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        body.extend(name);
        body
    };
    let read = |opcode, body: &[u8]| {
        let bytes = framed(opcode, 0, body);
        format!("{:?}", Request::parse(&bytes).unwrap().operation)
    };
    let expect = |text: String, parts: &[&str]| {
        for part in parts {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    };
    let made = read(abi::MKNOD, &words(&[0o100_666, 5, 0o22, 0], b"a\0"));
    expect(made, &["mode: 33206", "rdev: 5", "umask: 18"]);
    expect(read(abi::MKDIR, &words(&[0o777, 0o27], b"a\0")), &["mode: 511", "umask: 23"]);
    let created = read(abi::CREATE, &words(&[2, 0o666, 0o22, 1], b"a\0"));
    expect(created, &["flags: 2", "mode: 438", "umask: 18", "kill_privileges: true"]);
    let unnamed = read(abi::TMPFILE, &words(&[2, 0o600, 0o22, 0], b"/\0"));
    expect(unnamed, &["TmpFile", "flags: 2", "mode: 384", "umask: 18"]);
}
