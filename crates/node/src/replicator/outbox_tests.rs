//! An outbox over real connections: order, slowness, and connections that break.

use std::io::Read;
use std::sync::mpsc::{Receiver, channel};

use wire::hello::Protection;

use super::*;
use crate::stream;

const PIECE_BYTES: usize = 1 << 20;

/// Both ends of a connection.
fn connection(protection: Protection) -> (Stream, Stream) {
    match protection {
        Protection::Encrypted => stream::tests::sealed_pair(),
        Protection::None | Protection::Authenticated => stream::tests::plain_pair(),
    }
}

const BOTH: [Protection; 2] = [Protection::None, Protection::Encrypted];

fn joint(received: u64) -> Joint {
    Joint { stream: 1, received }
}

/// Puts pieces until an answer is held back; says how many were put, and where that one and all
/// later answers arrive.
fn fill(outbox: &Outbox) -> (usize, Receiver<()>) {
    let (given, arrived) = channel();
    for count in 1.. {
        outbox.put_quietly(|out| out.resize(out.len() + PIECE_BYTES, 0));
        let given = given.clone();
        outbox.answer(Answer::calling(Ok(Vec::new()), move |_| given.send(()).unwrap()));
        if arrived.try_recv().is_err() {
            return (count, arrived);
        }
    }
    unreachable!("the loop has no end");
}

/// Reads exactly so many bytes.
fn take(from: &mut Stream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn callers_who_wait_for_nobody_are_slowed_down_by_a_link_that_takes_nothing() {
    for protection in BOTH {
        let outbox = Outbox::new().unwrap();
        let (count, arrived) = fill(&outbox);
        assert_eq!(count, FULL_BYTES as usize / PIECE_BYTES + 1);
        let (ours, mut theirs) = connection(protection);
        outbox.join(joint(0)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| outbox.send_all(&ours, None, |_| {}));
            take(&mut theirs, count * PIECE_BYTES);
            arrived.recv().unwrap();
            outbox.close();
        });
    }
}

#[test]
fn nobody_is_held_back_once_the_session_is_over() {
    let outbox = Outbox::new().unwrap();
    let (_, arrived) = fill(&outbox);
    outbox.close();
    assert!(arrived.try_recv().is_ok());
}

#[test]
fn what_is_urgent_is_sent_by_whoever_asks_and_the_rest_by_the_thread() {
    for protection in BOTH {
        let (ours, mut theirs) = connection(protection);
        let outbox = Outbox::new().unwrap();
        outbox.put_quietly(|out| out.extend_from_slice(b"early"));
        outbox.join(joint(0)).unwrap();
        outbox.attach(ours.clone());
        outbox.send_at_once();
        outbox.put_quietly(|out| out.extend_from_slice(b" late"));
        outbox.urge();
        outbox.send_at_once();
        assert_eq!(take(&mut theirs, 10), b"early late");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| outbox.send_all(&ours, None, |_| {}));
            outbox.put_quietly(|out| out.extend_from_slice(b"rest"));
            outbox.send_at_once();
            assert_eq!(take(&mut theirs, 4), b"rest");
            outbox.close();
            assert!(matches!(thread.join().unwrap(), Ended::Closed));
        });
    }
}

#[test]
fn a_new_connection_goes_on_where_the_other_end_stands() {
    for protection in BOTH {
        let outbox = Outbox::new().unwrap();
        let (ours, mut theirs) = connection(protection);
        outbox.join(joint(0)).unwrap();
        outbox.put(|out| out.extend_from_slice(b"0123456789"));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| outbox.send_all(&ours, None, |_| {}));
            assert_eq!(take(&mut theirs, 10), b"0123456789");
            outbox.confirmed(4);
            outbox.part();
            assert!(matches!(thread.join().unwrap(), Ended::Broken(_)));
        });
        outbox.put(|out| out.extend_from_slice(b"abc"));
        let other = Joint { stream: 2, received: 6 };
        assert!(outbox.join(other).unwrap_err().contains("begun anew"));
        for wrong in [3, 11, 14, u64::MAX] {
            assert!(outbox.join(joint(wrong)).unwrap_err().contains("bytes"), "{wrong}");
        }
        let (ours, mut theirs) = connection(protection);
        outbox.join(joint(6)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| outbox.send_all(&ours, None, |_| {}));
            assert_eq!(take(&mut theirs, 7), b"6789abc");
            outbox.close();
        });
    }
}

#[test]
fn what_has_no_room_waits_for_confirmation_and_keeps_its_order() {
    for protection in BOTH {
        let outbox = Outbox::new().unwrap();
        let count = 3 * RING_BYTES / PIECE_BYTES;
        for index in 0..count {
            outbox.put_quietly(|out| out.resize(out.len() + PIECE_BYTES, index as u8));
        }
        let (ours, mut theirs) = connection(protection);
        outbox.join(joint(0)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| outbox.send_all(&ours, None, |_| {}));
            for index in 0..count {
                let piece = take(&mut theirs, PIECE_BYTES);
                assert!(piece.iter().all(|byte| *byte == index as u8), "piece {index}");
                outbox.confirmed(((index + 1) * PIECE_BYTES) as u64);
            }
            outbox.close();
        });
    }
}

#[test]
fn what_was_taken_is_confirmed_in_strides() {
    let outbox = Outbox::new().unwrap();
    assert_eq!(outbox.took(CONFIRM_BYTES as usize - 1), None);
    assert_eq!(outbox.took(1), Some(CONFIRM_BYTES));
    assert_eq!(outbox.took(1), None);
    assert_eq!(outbox.joint().received, CONFIRM_BYTES + 1);
}
