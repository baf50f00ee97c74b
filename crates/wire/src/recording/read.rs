//! Reads a segment of a recording. Its bytes may be damaged in any way, or end anywhere.

use std::fmt;

use cluster::farm::Pulse;
use cluster::input::Boot;
use cluster::replay::Entry;
use cluster::report::Heartbeat;
use cluster::{Input, Node};
use model::{ModuleName, Time};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::write::{remember_heartbeat, remember_link, remember_pulse};
use super::{
    BOOT, Check, DATA_LINK, ECHOED, EFFECTS, HEARTBEAT, INPUT, KIND, MAGIC, MICROS, PULSE,
    RECORD_BYTES_MAX, STATE, TICK, USUAL, WALL,
};
use crate::frame::WireError;

/// A record, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// When it happened, on the node's own clock.
    pub at: Time,
    /// The same on people's clocks, in milliseconds since 1970.
    pub wall_ms: u64,
    /// What it says, or why that is not understood; whole records of another version may not be.
    pub entry: Result<Entry, String>,
}

/// Where a segment can be read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It ends in the middle of a record, as after a loss of power.
    Torn {
        /// Bytes before that record.
        at: usize,
    },
    /// A record is not what was written.
    Broken {
        /// Bytes before that record.
        at: usize,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Torn { at } => write!(f, "it ends in the middle of the record at byte {at}"),
            Damage::Broken { at } => {
                write!(f, "the record at byte {at} is damaged; what follows it is not read")
            }
        }
    }
}

/// Reads the records of one segment, in order.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
    check: Check,
    at: Time,
    /// A moment on both clocks.
    wall: (Time, u64),
    program: String,
    heartbeats: Vec<Heartbeat>,
    links: Vec<ModuleName>,
    pulses: Vec<(ModuleName, Pulse)>,
}

impl<'a> Reader<'a> {
    /// A reader of a whole segment.
    pub fn new(segment: &'a [u8]) -> Result<Reader<'a>, WireError> {
        let rest = segment.strip_prefix(&MAGIC).ok_or(WireError::Magic)?;
        let mut check = Check(0);
        check.add(&MAGIC);
        Ok(Reader {
            rest,
            length: segment.len(),
            check,
            at: Time::ZERO,
            wall: (Time::ZERO, 0),
            program: String::new(),
            heartbeats: Vec::new(),
            links: Vec::new(),
            pulses: Vec::new(),
        })
    }

    /// The version of the program that wrote what was read last.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// The next record; nothing at the end. After damage there is nothing more.
    pub fn read(&mut self) -> Result<Option<Read>, Damage> {
        while !self.rest.is_empty() {
            let at = self.length - self.rest.len();
            let body = match self.body(at) {
                Ok(body) => body,
                Err(damage) => {
                    self.rest = &[];
                    return Err(damage);
                }
            };
            if let Some(entry) = self.record(body).transpose() {
                return Ok(Some(Read { at: self.at, wall_ms: self.wall_ms(), entry }));
            }
        }
        Ok(None)
    }

    /// The body of the next record, if it is what was written.
    fn body(&mut self, at: usize) -> Result<&'a [u8], Damage> {
        let mut rest = self.rest;
        let length = take_number(&mut rest).map_err(|_| Damage::Torn { at })?;
        let head = self.rest.len() - rest.len();
        if length == 0 && rest.iter().all(|byte| *byte == 0) {
            // Room that a file system had made for what it did not get to write any more.
            return Err(Damage::Torn { at });
        }
        let length = usize::try_from(length).ok().filter(|length| *length <= RECORD_BYTES_MAX);
        let length = length.ok_or(Damage::Broken { at })?;
        let (check, rest) = rest.split_first_chunk::<2>().ok_or(Damage::Torn { at })?;
        let (body, rest) = rest.split_at_checked(length).ok_or(Damage::Torn { at })?;
        self.check.add(&self.rest[..head]);
        self.check.add(body);
        if self.check.0 != u16::from_le_bytes(*check) {
            return Err(Damage::Broken { at });
        }
        self.rest = rest;
        Ok(body)
    }

    /// What a record says; nothing when it is for the reader alone.
    fn record(&mut self, mut body: &[u8]) -> Result<Option<Entry>, String> {
        let kind = take_byte(&mut body)?;
        let unit = if kind & MICROS == 0 { 1 } else { 1000 };
        let since = take_number(&mut body)?.wrapping_mul(unit);
        if matches!(kind & KIND, BOOT | STATE) {
            self.at = Time::ZERO;
            self.heartbeats.clear();
            self.links.clear();
            self.pulses.clear();
        }
        self.at = Time::from_nanos(self.at.as_nanos().wrapping_add(since));
        Ok(Some(match kind & KIND {
            BOOT => Entry::Boot(self.begins::<Boot>(body)?.0),
            STATE => {
                let (node, continues) = self.begins::<Node>(body)?;
                Entry::State { node, continues }
            }
            INPUT => Entry::Input(self.input(body)?),
            EFFECTS => Entry::Effects(whole(body)?),
            TICK => Entry::Input(Input::Tick),
            HEARTBEAT => Entry::Input(self.heartbeat(kind, unit, body)?),
            PULSE => Entry::Input(self.pulse(kind, unit, body)?),
            DATA_LINK => Entry::Input(self.data_link(kind, unit, body)?),
            WALL => {
                self.wall = (self.at, take_number(&mut body)?);
                return Ok(None);
            }
            kind => return Err(format!("records of kind {kind} are not known")),
        }))
    }

    fn begins<T: DeserializeOwned>(&mut self, body: &[u8]) -> Result<(Box<T>, bool), String> {
        // What is not understood as a whole still tells who wrote it, and when.
        let Head { program, wall_ms, continues } = whole(body)?;
        self.program = program;
        self.wall = (self.at, wall_ms);
        let Begins { from } = whole(body)?;
        Ok((from, continues))
    }

    fn input(&mut self, body: &[u8]) -> Result<Input, String> {
        let input: Input = whole(body)?;
        if let Input::Heartbeat { heartbeat, .. } = &input {
            remember_heartbeat(&mut self.heartbeats, heartbeat);
        }
        if let Input::DataLink { module, .. } = &input {
            remember_link(&mut self.links, module);
        }
        if let Input::Pulse { module, pulse, .. } = &input {
            remember_pulse(&mut self.pulses, module, pulse);
        }
        Ok(input)
    }

    fn pulse(&mut self, kind: u8, unit: u64, mut body: &[u8]) -> Result<Input, String> {
        let (received, _) = self.times(kind, unit, &mut body)?;
        let (index, sequence) = (take_number(&mut body)?, take_number(&mut body)?);
        let known = usize::try_from(index).ok().and_then(|index| self.pulses.get_mut(index));
        let (module, known) = known.ok_or("a pulse that repeats none")?;
        known.sequence = known.sequence.wrapping_add(sequence);
        let (module, pulse) = (module.clone(), Box::new(known.clone()));
        Ok(Input::Pulse { module, received, pulse, more: false })
    }

    fn heartbeat(&mut self, kind: u8, unit: u64, mut body: &[u8]) -> Result<Input, String> {
        let (received, echoed) = self.times(kind, unit, &mut body)?;
        let usual = kind & USUAL != 0;
        let mut number = |usually| if usual { Ok(usually) } else { take_number(&mut body) };
        let (index, sequence, echo) = (number(0)?, number(1)?, number(1)?);
        let known = usize::try_from(index).ok().and_then(|index| self.heartbeats.get_mut(index));
        let known = known.ok_or("a heartbeat that repeats none")?;
        known.sequence = known.sequence.wrapping_add(sequence);
        known.echo = known.echo.wrapping_add(echo);
        Ok(Input::Heartbeat { heartbeat: Box::new(known.clone()), received, echoed })
    }

    fn data_link(&self, kind: u8, unit: u64, mut body: &[u8]) -> Result<Input, String> {
        let (received, echoed) = self.times(kind, unit, &mut body)?;
        let index = usize::try_from(take_number(&mut body)?).ok();
        let module = index.and_then(|index| self.links.get(index));
        let module = module.ok_or("a ping of a data link that is not known")?.clone();
        Ok(Input::DataLink { module, received, echoed })
    }

    fn times(&self, kind: u8, unit: u64, body: &mut &[u8]) -> Result<(Time, Option<Time>), String> {
        let before = |at: Time, ago: u64| {
            Time::from_nanos(at.as_nanos().wrapping_sub(ago.wrapping_mul(unit)))
        };
        let received = before(self.at, take_number(body)?);
        if kind & ECHOED == 0 {
            return Ok((received, None));
        }
        Ok((received, Some(before(received, take_number(body)?))))
    }

    fn wall_ms(&self) -> u64 {
        let (at, wall_ms) = self.wall;
        let since = u64::try_from(self.at.since(at).as_millis()).unwrap_or(u64::MAX);
        wall_ms.saturating_add(since)
    }
}

/// What each beginning says, whatever it begins from.
#[derive(Deserialize)]
struct Head {
    program: String,
    wall_ms: u64,
    continues: bool,
}

#[derive(Deserialize)]
struct Begins<T> {
    from: Box<T>,
}

fn whole<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn take_byte(bytes: &mut &[u8]) -> Result<u8, String> {
    let (byte, rest) = bytes.split_first().ok_or("a record ends too early")?;
    *bytes = rest;
    Ok(*byte)
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number is too long".to_owned())
}
