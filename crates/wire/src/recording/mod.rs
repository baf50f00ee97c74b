//! The bytes of a recording: what a node was given and what came of it, in segments.
//!
//! ```text
//! segment: magic, version, records...
//! record:  length, check, kind, time since the record before, payload
//! ```
//!
//! A segment begins with the state of a node or with what a daemon began with, so that each can be
//! replayed without the ones before it. What is rare is JSON, which says itself what its fields
//! are; what comes many times a second (heartbeats, pulses, pings of the data link, ticks) is as
//! the difference to the one before. The check of a record covers all records before it, so that
//! nothing behind a damaged place is believed. Which files segments lie in is not known here.

mod read;
mod write;

pub use read::{Damage, Read, Reader};
pub use write::Writer;

const MAGIC: [u8; 8] = *b"EVKREC\0\x01";

/// Longest record, in bytes.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Peers and modules of which the newest message is remembered; others are written whole.
const REMEMBERED_MAX: usize = 64;

const BOOT: u8 = 1;
const STATE: u8 = 2;
const INPUT: u8 = 3;
const EFFECTS: u8 = 4;
const TICK: u8 = 5;
const HEARTBEAT: u8 = 6;
const DATA_LINK: u8 = 7;
const WALL: u8 = 8;
const PULSE: u8 = 9;
/// The bits of a kind that say which it is.
const KIND: u8 = 0x1f;

/// All times of the record are whole microseconds.
const MICROS: u8 = 0x80;
/// The message proves that the peer heard this node.
const ECHOED: u8 = 0x40;
/// Of the first peer, with the numbers one higher than before.
const USUAL: u8 = 0x20;

/// The running check: CRC-16 with the polynomial of CCITT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Check(u16);

impl Check {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u16::from(*byte) << 8;
            for _ in 0..8 {
                let carry = self.0 & 0x8000 != 0;
                self.0 <<= 1;
                if carry {
                    self.0 ^= 0x1021;
                }
            }
        }
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests;
