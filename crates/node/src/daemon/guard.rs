//! What stands before the heartbeats: nobody without the cluster's key is heard, and nothing that
//! was said to an earlier daemon.
//!
//! Each daemon draws a session at its start, and a peer's heartbeat counts only when it answers
//! that session: what was recorded before cannot. Which of the present session's are new is found
//! out by `cluster::contact::Contact`, and of those that this version cannot read by their count,
//! here. Without keys, in the lab, everything passes as it is.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use cluster::farm::Pulse;
use cluster::report::Heartbeat;
use model::{ModuleName, NodeName, Time};
use serde::Serialize;
use wire::WireError;
use wire::datagram::{
    DATAGRAM_BYTES_MAX, Guarded, is_plain, put_envelope, put_guarded, put_heartbeat, take_envelope,
    take_guarded, take_heartbeat,
};
use wire::pulse::{is_pulse, take_pulse};

use crate::complaint::Complaints;
use crate::keys::Keys;
use crate::seal::{ClusterKey, Route};

/// At most once in this time a peer that does not know this session is answered before the pulse.
const ANSWER_PAUSE: Duration = Duration::from_millis(20);

/// How many sessions of a peer's that cannot be read are remembered: a peer of another version has
/// been started so often since this daemon was.
const UNREAD_MAX: usize = 64;

/// The guard of one daemon.
pub(crate) struct Guard {
    keys: Keys,
    cluster: ModuleName,
    own: NodeName,
    session: u128,
    /// How many datagrams were sealed.
    sealed: AtomicU64,
    state: Mutex<State>,
    complaints: Complaints,
}

#[derive(Default)]
struct State {
    key: Key,
    sessions: BTreeMap<NodeName, Sessions>,
    turned_away: TurnedAway,
    answered: Time,
    /// Whether the key in use could not be looked at last.
    doubtful: bool,
}

/// What is known of the cluster's key.
#[derive(Default)]
enum Key {
    /// There are no keys, so everything goes in the clear.
    #[default]
    None,
    /// There are keys, but none to be used: nothing is sent or heard.
    Unusable,
    Usable {
        key: ClusterKey,
        stamp: Stamp,
    },
}

/// By what a changed file is told: one that replaces another is another inode, as long as both
/// are there.
type Stamp = (u64, u64, Option<SystemTime>);

/// A peer's sessions.
#[derive(Default)]
struct Sessions {
    /// The one that has answered this daemon's.
    proven: Option<u128>,
    /// One that may be its newest, or recorded long ago: it is answered once.
    claimed: Option<u128>,
    /// Those of another version, the oldest first, each with the count of its newest datagram.
    unread: VecDeque<(u128, u64)>,
}

/// Datagrams that were turned away since the daemon started, by why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct TurnedAway {
    /// They came from no address of a peer.
    pub(crate) strangers: u64,
    /// Heartbeats in the clear, where there are keys.
    pub(crate) plain: u64,
    /// They were not whole, or not sealed under this cluster's key from that peer to this node.
    pub(crate) unauthentic: u64,
    /// Whole, but no answer to this daemon: a peer's first, or recorded earlier.
    pub(crate) unanswered: u64,
    /// Seen before, or older than others: usual where there are several networks.
    pub(crate) repeated: u64,
    /// The peer's, but of another version: nothing is known from them but that it is alive.
    pub(crate) other_version: u64,
}

/// What a datagram is worth.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// The peer's, and said to this daemon.
    Passed(Box<Guarded>),
    /// The peer's, and said to this daemon, but of another version: it is alive.
    Unread(u16),
    /// A farm's pulse, of the peer and said to this daemon.
    Pulse(ModuleName, Box<Pulse>),
    /// Nothing.
    Refused,
    /// A peer that does not know this session should hear of it at once.
    Answer,
}

impl Guard {
    pub(crate) fn new(keys: Keys, cluster: &ModuleName, own: &NodeName) -> Guard {
        let (cluster, own) = (cluster.clone(), own.clone());
        let session = crate::clock::random();
        let (state, complaints) = (Mutex::default(), Complaints::default());
        let sealed = AtomicU64::new(0);
        let guard = Guard { keys, cluster, own, session, sealed, state, complaints };
        guard.refresh();
        guard
    }

    /// Looks whether the key has changed. Heartbeats do not wait for the disk meanwhile.
    pub(crate) fn refresh(&self) {
        if !self.keys.exist() {
            return;
        }
        let path = self.keys.cluster_key_file();
        let read = stamp_of(&path).and_then(|stamp| {
            if self.state().key.is_of(stamp) {
                return Ok(None);
            }
            // If the file is replaced in between, the stamp is not that of the next look.
            Ok(Some(Key::Usable { key: ClusterKey::read(&path)?, stamp }))
        });
        let complaint = self.state().take_up(read);
        if let Some(complaint) = complaint {
            eprintln!("! {complaint}: {}", path.display());
        }
    }

    /// The datagrams that carry a heartbeat to a peer: one, or another for a session of the peer
    /// that is not proven yet.
    pub(crate) fn datagrams(&self, to: &NodeName, heartbeat: &Heartbeat) -> Vec<Vec<u8>> {
        let mut state = self.state();
        let key = match &state.key {
            Key::None => return put_heartbeat(heartbeat).into_iter().collect(),
            Key::Unusable => return Vec::new(),
            Key::Usable { key, .. } => key,
        };
        let sessions = state.sessions.get(to);
        let proven = sessions.and_then(|sessions| sessions.proven);
        let claimed = sessions.and_then(|sessions| sessions.claimed);
        let mut answers: Vec<u128> = proven.into_iter().chain(claimed).collect();
        if answers.is_empty() {
            answers.push(0);
        }
        let sealed = answers.into_iter().filter_map(|answers| {
            let heartbeat = heartbeat.clone();
            let guarded = Guarded { session: self.session, answers, heartbeat };
            let route = Route { cluster: &self.cluster, from: &self.own, to };
            // One that is too long is missing, which the peer sees.
            put_guarded(&guarded).ok().and_then(|bytes| key.seal(route, self.count(), bytes).ok())
        });
        let sealed = sealed.collect();
        if let Some(sessions) = state.sessions.get_mut(to) {
            sessions.claimed = None;
        }
        sealed
    }

    /// The datagram that carries a farm's pulse to a peer; none before both daemons have heard each
    /// other's heartbeats, by which they know each other's session.
    pub(crate) fn pulse_to(&self, to: &NodeName, pulse: &[u8]) -> Option<Vec<u8>> {
        let state = self.state();
        let key = match &state.key {
            Key::None => return Some(pulse.to_vec()),
            Key::Unusable => return None,
            Key::Usable { key, .. } => key,
        };
        let answers = state.sessions.get(to)?.proven?;
        let route = Route { cluster: &self.cluster, from: &self.own, to };
        key.seal(route, self.count(), put_envelope(self.session, answers, pulse).ok()?).ok()
    }

    /// The number of the datagram that is sealed next.
    fn count(&self) -> u64 {
        self.sealed.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Judges a datagram that came at `now` from an address of `from`.
    pub(crate) fn judge(&self, now: Time, from: &NodeName, datagram: &[u8]) -> Passage {
        let mut state = self.state();
        let guarded = match &state.key {
            Key::None if is_pulse(datagram) => {
                let pulse = take_pulse(datagram).ok();
                return self.judge_pulse(&mut state, from, pulse);
            }
            Key::None => return self.judge_plain(&mut state, from, datagram),
            Key::Usable { .. } | Key::Unusable if is_plain(datagram) => {
                state.turned_away.plain += 1;
                self.complain(&state.turned_away, from);
                return Passage::Refused;
            }
            Key::Unusable => None,
            Key::Usable { key, .. } => {
                let route = Route { cluster: &self.cluster, from, to: &self.own };
                let (opened, count) = match key.open(route, datagram) {
                    Some(opened) => (Some(opened.bytes), opened.count),
                    None => (None, None),
                };
                if let Some((session, answers, said)) = opened.as_deref().and_then(enveloped_pulse)
                {
                    let proven = state.sessions.get(from).and_then(|sessions| sessions.proven);
                    let present = answers == self.session && proven == Some(session);
                    let pulse = take_pulse(said).ok();
                    if !present && pulse.is_some() {
                        state.turned_away.unanswered += 1;
                        return Passage::Refused;
                    }
                    return self.judge_pulse(&mut state, from, pulse);
                }
                let taken = opened.as_deref().map(take_guarded);
                if let Some(Err(WireError::Version { theirs, .. })) = taken
                    && let Some(said) = opened.as_deref().and_then(|said| take_envelope(said).ok())
                {
                    let refused = state.refuse(now, from, (said.0, said.1), self.session);
                    return refused.unwrap_or_else(|| state.unread(from, said.0, count, theirs));
                }
                taken.and_then(Result::ok)
            }
        };
        match guarded.filter(|guarded| guarded.heartbeat.from == *from) {
            Some(guarded) => state.is_fresh(now, guarded, self.session),
            None => {
                state.turned_away.unauthentic += 1;
                self.complain(&state.turned_away, from);
                Passage::Refused
            }
        }
    }

    /// Where there are no keys. One with keys cannot be understood by a node that has none.
    fn judge_plain(&self, state: &mut State, from: &NodeName, datagram: &[u8]) -> Passage {
        let fits = datagram.len() <= DATAGRAM_BYTES_MAX;
        match take_heartbeat(datagram) {
            Ok(heartbeat) if fits && heartbeat.from == *from => {
                Passage::Passed(Box::new(Guarded { session: 0, answers: 0, heartbeat }))
            }
            Err(WireError::Version { theirs, .. }) if fits => state.of_version(theirs),
            Ok(_) | Err(_) => {
                state.turned_away.unauthentic += 1;
                self.complain(&state.turned_away, from);
                Passage::Refused
            }
        }
    }

    fn judge_pulse(
        &self,
        state: &mut State,
        from: &NodeName,
        pulse: Option<(ModuleName, Pulse)>,
    ) -> Passage {
        if let Some((module, pulse)) = pulse {
            return Passage::Pulse(module, Box::new(pulse));
        }
        state.turned_away.unauthentic += 1;
        self.complain(&state.turned_away, from);
        Passage::Refused
    }

    /// What has passed was a new one too: from now on its sender's session is answered. Whether it
    /// was not before.
    pub(crate) fn met(&self, guarded: &Guarded) -> bool {
        let mut state = self.state();
        let sessions = state.sessions.entry(guarded.heartbeat.from.clone()).or_default();
        sessions.claimed = None;
        sessions.proven.replace(guarded.session) != Some(guarded.session)
    }

    /// Counts a datagram from an address that no peer has.
    pub(crate) fn stranger(&self, from: &dyn std::fmt::Display) {
        let mut state = self.state();
        state.turned_away.strangers += 1;
        self.complain(&state.turned_away, from);
    }

    /// Counts a heartbeat that is not a new one.
    pub(crate) fn repeated(&self) {
        self.state().turned_away.repeated += 1;
    }

    /// What was turned away so far.
    pub(crate) fn turned_away(&self) -> TurnedAway {
        self.state().turned_away.clone()
    }

    /// Tells the log now and then. Nothing that a sender chose stands there but its address.
    fn complain(&self, turned_away: &TurnedAway, from: &dyn std::fmt::Display) {
        let TurnedAway { strangers, plain, unauthentic, .. } = turned_away;
        self.complaints.tell(&format_args!(
            "a datagram from {from} was turned away: so far {strangers} from nobody's address, \
             {plain} in the clear, {unauthentic} not under the cluster's key"
        ));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn is_of(&self, stamp: Stamp) -> bool {
        matches!(self, Key::Usable { stamp: known, .. } if *known == stamp)
    }
}

impl State {
    /// Takes up what was read, if it is another key; what is to be said of it.
    fn take_up(&mut self, read: io::Result<Option<Key>>) -> Option<String> {
        match read {
            Ok(key) => {
                self.key = key.unwrap_or_else(|| std::mem::take(&mut self.key));
                self.doubtful = false;
                None
            }
            // A key that was good is so although the file cannot be looked at just now.
            Err(error) if is_passing(&error) && matches!(self.key, Key::Usable { .. }) => {
                let told = std::mem::replace(&mut self.doubtful, true);
                (!told).then(|| format!("the cluster's key counts as unchanged: {error}"))
            }
            Err(error) => {
                let told = matches!(self.key, Key::Unusable);
                self.key = Key::Unusable;
                (!told).then(|| format!("no heartbeat is sent or heard: {error}"))
            }
        }
    }

    fn is_fresh(&mut self, now: Time, guarded: Guarded, ours: u128) -> Passage {
        let said = (guarded.session, guarded.answers);
        let refused = self.refuse(now, &guarded.heartbeat.from, said, ours);
        refused.unwrap_or_else(|| Passage::Passed(Box::new(guarded)))
    }

    /// What a datagram is worth that answers this daemon and cannot be read. One that was seen, or
    /// is older than others of its session, does not prove that its sender lives. Of one whose
    /// version does not count that is not known: it passes.
    fn unread(
        &mut self,
        from: &NodeName,
        session: u128,
        count: Option<u64>,
        version: u16,
    ) -> Passage {
        let Some(count) = count else { return self.of_version(version) };
        let known = &mut self.sessions.entry(from.clone()).or_default().unread;
        match known.iter_mut().find(|(known, _)| *known == session) {
            Some((_, newest)) if count <= *newest => {
                self.turned_away.repeated += 1;
                return Passage::Refused;
            }
            Some((_, newest)) => *newest = count,
            None => {
                known.push_back((session, count));
                if known.len() > UNREAD_MAX {
                    known.pop_front();
                }
            }
        }
        self.of_version(version)
    }

    fn of_version(&mut self, version: u16) -> Passage {
        self.turned_away.other_version += 1;
        Passage::Unread(version)
    }

    /// What to do about what a peer says in one session, and as an answer to another one; none if
    /// that is this daemon's.
    fn refuse(
        &mut self,
        now: Time,
        from: &NodeName,
        (session, answers): (u128, u128),
        ours: u128,
    ) -> Option<Passage> {
        let sessions = self.sessions.entry(from.clone()).or_default();
        let new = sessions.proven != Some(session);
        if new {
            // A peer that has booted anew must be answered before it can echo anything, by which
            // alone `Contact` believes that it has.
            sessions.claimed = Some(session);
        }
        if answers == ours {
            return None;
        }
        self.turned_away.unanswered += 1;
        if new && now.since(self.answered) >= ANSWER_PAUSE {
            self.answered = now;
            return Some(Passage::Answer);
        }
        Some(Passage::Refused)
    }
}

/// What was sealed, if it is a pulse.
fn enveloped_pulse(bytes: &[u8]) -> Option<(u128, u128, &[u8])> {
    take_envelope(bytes).ok().filter(|(_, _, said)| is_pulse(said))
}

fn stamp_of(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.ino(), metadata.len(), metadata.modified().ok()))
}

/// Whether an error is one of the machine, such as too many open files, and says nothing of the
/// file: one that is not there, or is none of keys, is meant so.
fn is_passing(error: &io::Error) -> bool {
    let gone = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    error.raw_os_error().is_some() && !gone
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
