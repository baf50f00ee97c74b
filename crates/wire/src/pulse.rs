//! Pulses of a farm as datagrams: small enough for one packet, whatever the farm.
//!
//! ```text
//! magic, version, length of the module's name, name, fields, length of the place, place, table
//! table: term, leader, serial, and 4 bytes a bucket: owner, with the mark `died`, and 3 former
//! ```
//!
//! All integers are little-endian. How pulses are sealed is no matter of this file.

use cluster::farm::{BUCKETS, FORMER_MAX, Follows, Lead, Line, Part, Pulse, Seat, Stamp, Table};
use cluster::farm::{PLACE_BYTES_MAX, pulse::SEATS_MAX};
use model::{BootId, ModuleName};

use crate::frame::{Decoder, WireError};

const MAGIC: [u8; 4] = *b"EVKF";
const VERSION: u16 = 1;

/// Longest pulse, in bytes: with what seals it and the headers of UDP and IPv6 it fits in a packet
/// of 1500 bytes.
pub const PULSE_BYTES_MAX: usize = 1352;

/// Stands for no seat.
const NOBODY: u8 = 0x3f;
/// The mark beside the owner: an owner has failed.
const DIED: u8 = 0x80;
/// Bits of the flags.
const FOLLOWS: u8 = 1;
const HEARD: u8 = 2;
const TABLE: u8 = 4;
const AWAY: u8 = 8;

/// Whether a datagram is a pulse in the clear, of any version.
#[must_use]
pub fn is_pulse(datagram: &[u8]) -> bool {
    datagram.starts_with(&MAGIC)
}

/// Encodes a pulse of a module.
pub fn put_pulse(module: &ModuleName, pulse: &Pulse) -> Result<Vec<u8>, WireError> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    put_short(&mut out, module.as_str().as_bytes())?;
    let follows =
        pulse.follows.map_or(0, |follows| FOLLOWS | if follows.heard { HEARD } else { 0 });
    let table = if pulse.table.is_some() { TABLE } else { 0 };
    let away = if pulse.away { AWAY } else { 0 };
    let part = match pulse.part {
        Part::Out => 0,
        Part::Standby => 1,
        Part::Draining => 2,
        Part::Ready => 3,
    };
    out.extend_from_slice(&[follows | table | away, part, pulse.from, seat_byte(pulse.heir)]);
    out.extend_from_slice(&pulse.roster.to_le_bytes());
    out.extend_from_slice(&pulse.boot.0.to_le_bytes());
    out.extend_from_slice(&pulse.incarnation.to_le_bytes());
    out.extend_from_slice(&pulse.sequence.to_le_bytes());
    out.extend_from_slice(&pulse.weight.to_le_bytes());
    out.extend_from_slice(&pulse.hears.to_le_bytes());
    out.extend_from_slice(&pulse.term.to_le_bytes());
    out.extend_from_slice(&pulse.switched.to_le_bytes());
    put_stamp(&mut out, pulse.installed);
    if let Some(follows) = pulse.follows {
        out.extend_from_slice(&follows.lead.term.to_le_bytes());
        out.push(follows.lead.seat);
    }
    put_short(&mut out, &pulse.place)?;
    if let Some(table) = &pulse.table {
        put_stamp(&mut out, table.stamp);
        table.lines.iter().for_each(|line| put_line(&mut out, line));
    }
    let fits = out.len() <= PULSE_BYTES_MAX && pulse.place.len() <= PLACE_BYTES_MAX;
    let whole = pulse.table.as_ref().is_none_or(|table| table.lines.len() == BUCKETS);
    if fits && whole { Ok(out) } else { Err(WireError::Length(out.len())) }
}

/// Decodes a pulse.
pub fn take_pulse(datagram: &[u8]) -> Result<(ModuleName, Pulse), WireError> {
    if datagram.len() > PULSE_BYTES_MAX {
        return Err(WireError::Length(datagram.len()));
    }
    let body = datagram.strip_prefix(&MAGIC).ok_or(WireError::Magic)?;
    let (version, body) = body.split_first_chunk::<2>().ok_or(WireError::Truncated)?;
    let theirs = u16::from_le_bytes(*version);
    if theirs != VERSION {
        return Err(WireError::Version { theirs, ours: VERSION });
    }
    let mut bytes = Decoder::new(body);
    let name = std::str::from_utf8(take_short(&mut bytes, usize::MAX)?).ok();
    let module = name.and_then(|name| ModuleName::new(name).ok());
    let module = module.ok_or(WireError::Value("module"))?;
    let flags = bytes.u8()?;
    if flags & !(FOLLOWS | HEARD | TABLE | AWAY) != 0 || flags & (FOLLOWS | HEARD) == HEARD {
        return Err(WireError::Value("flag"));
    }
    let part = match bytes.u8()? {
        0 => Part::Out,
        1 => Part::Standby,
        2 => Part::Draining,
        3 => Part::Ready,
        _ => return Err(WireError::Value("part")),
    };
    let from = take_seat(&mut bytes)?.ok_or(WireError::Value("seat"))?;
    let heir = take_seat(&mut bytes)?;
    let mut pulse = Pulse {
        from,
        roster: bytes.u64()?,
        boot: BootId(u128::from(bytes.u64()?) | u128::from(bytes.u64()?) << 64),
        incarnation: bytes.u64()?,
        sequence: bytes.u64()?,
        part,
        away: flags & AWAY != 0,
        weight: bytes.u32()?,
        hears: bytes.u32()?,
        follows: None,
        term: bytes.u64()?,
        switched: bytes.u64()?,
        installed: take_stamp(&mut bytes)?,
        heir,
        table: None,
        place: Vec::new(),
    };
    if flags & FOLLOWS != 0 {
        let term = bytes.u64()?;
        let seat = take_seat(&mut bytes)?.ok_or(WireError::Value("seat"))?;
        pulse.follows = Some(Follows { lead: Lead { term, seat }, heard: flags & HEARD != 0 });
    }
    pulse.place = take_short(&mut bytes, PLACE_BYTES_MAX)?.to_vec();
    if flags & TABLE != 0 {
        let stamp = take_stamp(&mut bytes)?;
        let lines: Result<Vec<Line>, WireError> =
            (0..BUCKETS).map(|_| take_line(&mut bytes)).collect();
        pulse.table = Some(Table { stamp, lines: lines? });
    }
    bytes.finish()?;
    Ok((module, pulse))
}

fn put_short(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), WireError> {
    out.push(u8::try_from(bytes.len()).map_err(|_| WireError::Length(bytes.len()))?);
    out.extend_from_slice(bytes);
    Ok(())
}

fn take_short<'a>(bytes: &mut Decoder<'a>, most: usize) -> Result<&'a [u8], WireError> {
    let length = usize::from(bytes.u8()?);
    if length > most { Err(WireError::Length(length)) } else { bytes.take(length) }
}

fn seat_byte(seat: Option<Seat>) -> u8 {
    seat.unwrap_or(NOBODY)
}

fn seat_of(byte: u8) -> Result<Option<Seat>, WireError> {
    match byte {
        NOBODY => Ok(None),
        seat if usize::from(seat) < SEATS_MAX => Ok(Some(seat)),
        _ => Err(WireError::Value("seat")),
    }
}

fn take_seat(bytes: &mut Decoder<'_>) -> Result<Option<Seat>, WireError> {
    seat_of(bytes.u8()?)
}

fn put_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    out.extend_from_slice(&stamp.term.to_le_bytes());
    out.push(stamp.leader);
    out.extend_from_slice(&stamp.serial.to_le_bytes());
}

fn take_stamp(bytes: &mut Decoder<'_>) -> Result<Stamp, WireError> {
    let term = bytes.u64()?;
    let leader = take_seat(bytes)?.ok_or(WireError::Value("seat"))?;
    Ok(Stamp { term, leader, serial: bytes.u64()? })
}

fn put_line(out: &mut Vec<u8>, line: &Line) {
    out.push(seat_byte(line.owner) | if line.died { DIED } else { 0 });
    line.former.iter().for_each(|seat| out.push(seat_byte(*seat)));
}

fn take_line(bytes: &mut Decoder<'_>) -> Result<Line, WireError> {
    let first = bytes.u8()?;
    let mut line =
        Line { owner: seat_of(first & !DIED)?, died: first & DIED != 0, ..Line::default() };
    let former = bytes.take(FORMER_MAX)?;
    for (seat, byte) in line.former.iter_mut().zip(former) {
        *seat = seat_of(*byte)?;
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> (ModuleName, Pulse) {
        let stamp = Stamp { term: u64::MAX, leader: 31, serial: u64::MAX - 1 };
        let line = |i: usize| Line {
            owner: (!i.is_multiple_of(3)).then_some((i % 32) as Seat),
            former: [Some(31), None, Some(0)],
            died: i.is_multiple_of(2),
        };
        let lines = (0..BUCKETS).map(line).collect();
        let pulse = Pulse {
            from: 31,
            roster: 1,
            boot: BootId(u128::MAX - 7),
            incarnation: 3,
            sequence: 4,
            part: Part::Ready,
            away: true,
            weight: 1000,
            hears: u32::MAX,
            follows: Some(Follows { lead: stamp.lead(), heard: true }),
            term: u64::MAX,
            installed: stamp,
            switched: u64::MAX,
            heir: Some(7),
            table: Some(Table { stamp, lines }),
            place: vec![9; PLACE_BYTES_MAX],
        };
        (ModuleName::new(&"m".repeat(63)).unwrap(), pulse)
    }

    #[test]
    fn what_was_put_is_taken_and_nothing_else() {
        let (module, pulse) = full();
        let bytes = put_pulse(&module, &pulse).unwrap();
        assert!(is_pulse(&bytes) && bytes.len() <= PULSE_BYTES_MAX, "{}", bytes.len());
        assert_eq!(take_pulse(&bytes), Ok((module.clone(), pulse.clone())));
        for length in 0..bytes.len() {
            assert!(take_pulse(&bytes[..length]).is_err(), "{length}");
        }
        assert!(take_pulse(&[&*bytes, &[0]].concat()).is_err());
        let small = Pulse {
            away: false,
            follows: None,
            table: None,
            heir: None,
            place: Vec::new(),
            ..pulse
        };
        let bytes = put_pulse(&module, &small).unwrap();
        assert_eq!(take_pulse(&bytes), Ok((module, small)));
    }

    #[test]
    fn what_is_no_pulse_of_this_version_is_refused() {
        let (module, pulse) = full();
        let good = put_pulse(&module, &pulse).unwrap();
        let other = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            take_pulse(&bytes)
        };
        assert_eq!(other(0, b'X'), Err(WireError::Magic));
        assert_eq!(other(4, 2), Err(WireError::Version { theirs: 2, ours: 1 }));
        let fields = 7 + 63;
        assert_eq!(other(fields, 16), Err(WireError::Value("flag")));
        assert_eq!(other(fields + 1, 4), Err(WireError::Value("part")));
        assert_eq!(other(fields + 2, 32), Err(WireError::Value("seat")));
        assert_eq!(other(fields + 2, NOBODY), Err(WireError::Value("seat")));
        assert_eq!(other(7, b'/'), Err(WireError::Value("module")));
        let last = good.len() - 1;
        assert_eq!(other(last, 40), Err(WireError::Value("seat")));
        let long = Pulse { place: vec![0; 255], ..pulse };
        assert!(put_pulse(&module, &long).is_err());
    }
}
