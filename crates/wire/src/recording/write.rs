//! Writes what a node is given and what came of it. Where the bytes go is the caller's matter.

use cluster::farm::Pulse;
use cluster::report::Heartbeat;
use cluster::{Effect, Input, Node, input::Boot};
use model::{ModuleName, Time};
use serde::Serialize;
use serde_json::json;

use super::{
    BOOT, Check, DATA_LINK, ECHOED, EFFECTS, HEARTBEAT, INPUT, MAGIC, MICROS, PULSE,
    REMEMBERED_MAX, STATE, TICK, USUAL, WALL, put_number,
};

/// Writes one segment. It begins with `boot` or with `state`.
#[derive(Debug, Clone)]
pub struct Writer {
    check: Check,
    at: Time,
    heartbeats: Vec<Heartbeat>,
    links: Vec<ModuleName>,
    pulses: Vec<(ModuleName, Pulse)>,
    out: Vec<u8>,
}

impl Writer {
    /// A segment of which only the head is written.
    #[must_use]
    pub fn new() -> Writer {
        let mut check = Check(0);
        check.add(&MAGIC);
        let out = MAGIC.to_vec();
        Writer {
            check,
            at: Time::ZERO,
            heartbeats: Vec::new(),
            links: Vec::new(),
            pulses: Vec::new(),
            out,
        }
    }

    /// The bytes that came to the segment since this was asked last.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// A daemon begins with this, at `wall_ms` milliseconds since 1970.
    pub fn boot(&mut self, now: Time, wall_ms: u64, program: &str, boot: &Boot) {
        self.begin(BOOT, now, &json_of(&Begins { program, wall_ms, continues: false, from: boot }));
    }

    /// The node is this; `continues` unless something between the record before and this one is
    /// missing.
    pub fn state(&mut self, now: Time, wall_ms: u64, program: &str, node: &Node, continues: bool) {
        self.begin(STATE, now, &json_of(&Begins { program, wall_ms, continues, from: node }));
    }

    /// The node is given this.
    pub fn input(&mut self, now: Time, input: &Input) {
        match input {
            Input::Tick => self.record(TICK, now, [now, now], &[]),
            Input::Heartbeat { heartbeat, received, echoed } => {
                match self.again(heartbeat) {
                    Some((flags, numbers)) => {
                        let kind = HEARTBEAT | flags;
                        self.times(kind, now, *received, *echoed, &numbers);
                    }
                    None => self.whole(now, input),
                }
                self.remember(heartbeat);
            }
            Input::DataLink { module, received, echoed } => {
                match self.links.iter().position(|known| known == module) {
                    Some(index) => {
                        self.times(DATA_LINK, now, *received, *echoed, &[index as u64]);
                    }
                    None => self.whole(now, input),
                }
                remember_link(&mut self.links, module);
            }
            Input::Pulse { module, received, pulse, more } => {
                let known = |(known, last): &(ModuleName, Pulse)| {
                    known == module && is_same_but_for_its_number(last, pulse)
                };
                match self.pulses.iter().position(known).filter(|_| !more) {
                    Some(index) => {
                        let sequence = pulse.sequence.wrapping_sub(self.pulses[index].1.sequence);
                        let numbers = [index as u64, sequence];
                        self.times(PULSE, now, *received, None, &numbers);
                    }
                    None => self.whole(now, input),
                }
                remember_pulse(&mut self.pulses, module, pulse);
            }
            input => self.whole(now, input),
        }
    }

    /// This came of the record before; nothing is written when nothing did.
    pub fn effects(&mut self, now: Time, effects: &[Effect]) {
        if !effects.is_empty() {
            self.record(EFFECTS, now, [now, now], &json_of(&effects));
        }
    }

    /// What people's clocks show: now and then, as they are set.
    pub fn wall(&mut self, now: Time, wall_ms: u64) {
        let mut payload = Vec::new();
        put_number(&mut payload, wall_ms);
        self.record(WALL, now, [now, now], &payload);
    }

    fn begin(&mut self, kind: u8, now: Time, payload: &[u8]) {
        self.at = Time::ZERO;
        self.heartbeats.clear();
        self.links.clear();
        self.pulses.clear();
        self.record(kind, now, [now, now], payload);
    }

    fn whole(&mut self, now: Time, input: &Input) {
        self.record(INPUT, now, [now, now], &json_of(input));
    }

    /// The numbers of a heartbeat that is otherwise its sender's newest.
    fn again(&self, heartbeat: &Heartbeat) -> Option<(u8, Vec<u64>)> {
        let index = self.heartbeats.iter().position(|known| is_repeated(known, heartbeat))?;
        let known = &self.heartbeats[index];
        let sequence = heartbeat.sequence.wrapping_sub(known.sequence);
        let echo = heartbeat.echo.wrapping_sub(known.echo);
        if (index, sequence, echo) == (0, 1, 1) {
            return Some((USUAL, Vec::new()));
        }
        Some((0, vec![index as u64, sequence, echo]))
    }

    fn remember(&mut self, heartbeat: &Heartbeat) {
        remember_heartbeat(&mut self.heartbeats, heartbeat);
    }

    fn times(
        &mut self,
        kind: u8,
        now: Time,
        received: Time,
        echoed: Option<Time>,
        numbers: &[u64],
    ) {
        let kind = kind | if echoed.is_some() { ECHOED } else { 0 };
        let received_ago = now.as_nanos().wrapping_sub(received.as_nanos());
        let echoed_ago = echoed.map(|at| received.as_nanos().wrapping_sub(at.as_nanos()));
        let micros = self.in_micros(now, [received, echoed.unwrap_or(received)]);
        let unit = if micros { 1000 } else { 1 };
        let mut payload = Vec::new();
        put_number(&mut payload, received_ago / unit);
        if let Some(echoed_ago) = echoed_ago {
            put_number(&mut payload, echoed_ago / unit);
        }
        numbers.iter().for_each(|number| put_number(&mut payload, *number));
        self.record(kind, now, [received, echoed.unwrap_or(received)], &payload);
    }

    /// Whether nothing is lost when the times of a record are written in microseconds.
    fn in_micros(&self, now: Time, times: [Time; 2]) -> bool {
        let ordered = times[1] <= times[0] && times[0] <= now && self.at <= now;
        ordered && [self.at, now, times[0], times[1]].iter().all(|at| at.as_nanos() % 1000 == 0)
    }

    pub(super) fn record(&mut self, kind: u8, now: Time, times: [Time; 2], payload: &[u8]) {
        let micros = self.in_micros(now, times);
        let since = now.as_nanos().wrapping_sub(self.at.as_nanos());
        let mut body = vec![kind | if micros { MICROS } else { 0 }];
        put_number(&mut body, if micros { since / 1000 } else { since });
        body.extend_from_slice(payload);
        let mut length = Vec::new();
        put_number(&mut length, body.len() as u64);
        self.check.add(&length);
        self.check.add(&body);
        self.out.extend_from_slice(&length);
        self.out.extend_from_slice(&self.check.0.to_le_bytes());
        self.out.extend_from_slice(&body);
        self.at = now;
    }
}

impl Default for Writer {
    fn default() -> Writer {
        Writer::new()
    }
}

/// What a segment can begin with.
#[derive(Serialize)]
struct Begins<'a, T> {
    program: &'a str,
    wall_ms: u64,
    continues: bool,
    from: &'a T,
}

fn json_of<T: Serialize>(value: &T) -> Vec<u8> {
    // These plain types have a JSON form; without one the reader says what is missing.
    serde_json::to_vec(value).unwrap_or_else(|error| json!(error.to_string()).to_string().into())
}

/// Whether a heartbeat tells nothing new but that its sender lives.
fn is_repeated(known: &Heartbeat, heartbeat: &Heartbeat) -> bool {
    // All fields by name, so that a new one is not forgotten here.
    let Heartbeat {
        from,
        boot,
        incarnation,
        sequence: _,
        echo: _,
        echo_incarnation,
        cluster_digest,
        configuration,
        reports,
    } = heartbeat;
    known.from == *from
        && known.boot == *boot
        && known.incarnation == *incarnation
        && known.echo_incarnation == *echo_incarnation
        && known.cluster_digest == *cluster_digest
        && known.configuration == *configuration
        && known.reports == *reports
}

/// Keeps a peer's newest heartbeat, in the order in which peers were first heard.
pub(super) fn remember_heartbeat(known: &mut Vec<Heartbeat>, heartbeat: &Heartbeat) {
    let full = known.len() >= REMEMBERED_MAX;
    match known.iter_mut().find(|known| known.from == heartbeat.from) {
        // Most often only the numbers differ, and reports are long.
        Some(known) if is_repeated(known, heartbeat) => {
            known.sequence = heartbeat.sequence;
            known.echo = heartbeat.echo;
        }
        Some(known) => known.clone_from(heartbeat),
        None if full => {}
        None => known.push(heartbeat.clone()),
    }
}

/// Whether a pulse tells nothing new but that its sender lives.
fn is_same_but_for_its_number(known: &Pulse, pulse: &Pulse) -> bool {
    // All fields by name, so that a new one is not forgotten here.
    let Pulse {
        from,
        roster,
        boot,
        incarnation,
        sequence: _,
        part,
        away,
        weight,
        hears,
        follows,
        term,
        installed,
        switched,
        heir,
        table,
        place,
    } = pulse;
    let same = known.from == *from && known.roster == *roster && known.boot == *boot;
    let same = same && known.incarnation == *incarnation && known.part == *part;
    let same = same && known.away == *away;
    let same = same && known.weight == *weight && known.hears == *hears && known.term == *term;
    let same = same && known.follows == *follows && known.installed == *installed;
    let same = same && known.switched == *switched && known.heir == *heir;
    same && known.table == *table && known.place == *place
}

/// Keeps the newest pulse of each node of a farm, in the order in which they were first heard.
pub(super) fn remember_pulse(
    known: &mut Vec<(ModuleName, Pulse)>,
    module: &ModuleName,
    pulse: &Pulse,
) {
    let full = known.len() >= REMEMBERED_MAX;
    match known.iter_mut().find(|(name, last)| name == module && last.from == pulse.from) {
        Some((_, last)) if is_same_but_for_its_number(last, pulse) => {
            last.sequence = pulse.sequence;
        }
        Some((_, last)) => last.clone_from(pulse),
        None if full => {}
        None => known.push((module.clone(), pulse.clone())),
    }
}

/// Keeps the modules whose data links were heard, in that order.
pub(super) fn remember_link(known: &mut Vec<ModuleName>, module: &ModuleName) {
    if known.len() < REMEMBERED_MAX && !known.contains(module) {
        known.push(module.clone());
    }
}
