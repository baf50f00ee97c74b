//! What the application writes through a replicator, and when it is answered: as the core of
//! production says (`replica::Acknowledge`).
//!
//! With `ack = "write"` each write is acknowledged. With `ack = "fsync"` the application syncs now
//! and then and waits for that, and only what was synced counts.

use cluster::effect::Serve;
use model::SessionId;
use model::config::Ack;
use replica::Acknowledge;

use crate::replicator::Message;
use crate::world::World;

/// Writes after which the application syncs.
const SYNC_AFTER: u64 = 4;
/// Answers that it waits for at the same time.
const HELD_BACK_MAX: usize = 2;

/// The writes that an answer is about: the first and the last.
type Answer = (u64, u64);

/// Calls that are not answered yet.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    acks: Acknowledge<Answer>,
    ack: Ack,
    /// What was written since the last sync.
    unsynced: Option<Answer>,
    /// A sync: its number, and what it is about until that is on the disk here.
    sync: Option<(u64, Option<Answer>)>,
}

impl Default for Calls {
    fn default() -> Calls {
        Calls::new(0)
    }
}

impl Calls {
    /// After operation `number`.
    fn new(number: u64) -> Calls {
        Calls { acks: Acknowledge::new(number), ack: Ack::Write, unsynced: None, sync: None }
    }

    /// Nothing waits for an answer.
    pub(crate) fn are_answered(&self) -> bool {
        self.acks.held_back() == 0 && self.sync.is_none()
    }

    /// Everything that waits is answered with an error.
    pub(crate) fn cut(&mut self) {
        let _ = self.acks.cut();
        self.unsynced = None;
        self.sync = None;
    }

    fn is_busy(&self) -> bool {
        self.sync.is_some() || self.acks.held_back() > HELD_BACK_MAX
    }
}

impl World {
    /// A host serves from now on as it is told, after having served, or not.
    pub(crate) fn require(&mut self, i: usize, serve: &Serve, served: bool) {
        let replicator = &mut self.hosts[i].replicator;
        if !served {
            replicator.calls = Calls::new(replicator.tree.number());
        }
        let calls = &mut replicator.calls;
        calls.ack = serve.replication.ack;
        let due = calls.acks.require(calls.ack, serve.required.clone());
        self.acknowledge(i, due);
    }

    /// A session with the target begins, or has ended: what that has confirmed counts no more.
    pub(crate) fn forget_confirmed(&mut self, i: usize) {
        let peer = self.hosts[1 - i].name.clone();
        self.hosts[i].replicator.calls.acks.forget(&peer);
    }

    /// The target holds everything that was written so far.
    pub(crate) fn holds_all(&mut self, i: usize, session: SessionId) {
        let number = self.hosts[i].replicator.calls.acks.number();
        self.confirmed(i, session, number);
        if let Some((number, _)) = self.hosts[i].replicator.calls.sync {
            self.carry(1 - i, Message::Sync { session, number });
        }
    }

    /// A target is sent something that it has to confirm.
    pub(crate) fn received(&mut self, i: usize, message: &Message) {
        let (Message::Write { session, .. } | Message::Sync { session, .. }) = *message else {
            return;
        };
        let replicator = &mut self.hosts[i].replicator;
        if !replicator.receives(session) || replicator.link != Some(session) {
            return;
        }
        match *message {
            Message::Write { write, number, .. } => {
                replicator.tree.apply(write);
                self.carry(1 - i, Message::Applied { session, number });
            }
            Message::Sync { number, .. } => {
                replicator.tree.checkpoint();
                self.carry(1 - i, Message::Durable { session, number });
            }
            _ => {}
        }
    }

    /// The target has applied everything up to a number.
    pub(crate) fn confirmed(&mut self, i: usize, session: SessionId, number: u64) {
        let peer = self.hosts[1 - i].name.clone();
        let replicator = &mut self.hosts[i].replicator;
        if replicator.link == Some(session) {
            let due = replicator.calls.acks.applied(&peer, number);
            self.acknowledge(i, due);
            self.finish_drain(i);
        }
    }

    /// A sync is durable at the target.
    pub(crate) fn durable(&mut self, i: usize, session: SessionId, number: u64) {
        let peer = self.hosts[1 - i].name.clone();
        let replicator = &mut self.hosts[i].replicator;
        if replicator.link == Some(session) {
            let due = replicator.calls.acks.durable(&peer, number);
            self.acknowledge(i, due);
            self.finish_drain(i);
        }
    }

    /// The application is answered.
    fn acknowledge(&mut self, i: usize, due: impl IntoIterator<Item = Answer>) {
        let replicator = &self.hosts[i].replicator;
        let alone = replicator.serving().is_none_or(|serve| serve.required.is_empty());
        // Until the target may promote itself, the source alone vouches.
        let epoch = self.hosts[i].record.epoch.as_ref();
        let author = epoch.map(|epoch| &epoch.author) == Some(&self.hosts[i].name);
        let pair = !alone && (!author || self.hosts[1 - i].record.promotable);
        for (first, last) in due {
            for write in first..=last {
                let (here, there) = (&self.hosts[i].replicator, &self.hosts[1 - i].replicator);
                if !here.tree.holds(write) {
                    continue;
                }
                // A target that has gone down since it said so vouches for nothing any more, and a
                // broken disk neither.
                let session = here.link.filter(|_| pair);
                let held = session.is_some_and(|session| there.receives(session))
                    && there.tree.holds(write)
                    && !there.broken;
                let mut holders = [held; 2];
                holders[i] = alone || !here.broken;
                self.checks.acknowledge(write, holders, pair);
            }
            let calls = &mut self.hosts[i].replicator.calls;
            calls.sync = calls.sync.filter(|_| calls.ack == Ack::Write);
        }
    }

    /// The application writes through the address, and syncs if only that counts.
    pub(crate) fn write(&mut self, i: usize) {
        self.sync_here(i);
        let host = &mut self.hosts[i];
        let draining = host.replicator.told != host.replicator.in_force;
        if !self.writing || !host.service || draining || host.replicator.calls.is_busy() {
            return;
        }
        if host.replicator.serving().is_none() {
            return;
        }
        let write = self.checks.next_write();
        let replicator = &mut host.replicator;
        replicator.tree.apply(write);
        let calls = &mut replicator.calls;
        let number = calls.acks.next_number();
        let answered = calls.acks.answer(number, true, (write, write));
        if calls.ack == Ack::Write {
            self.acknowledge(i, answered);
        } else {
            let first = calls.unsynced.map_or(write, |(first, _)| first);
            calls.unsynced = Some((first, write));
        }
        self.tell_target(i, |session| Message::Write { session, write, number });
        self.sync(i);
    }

    fn tell_target(&mut self, i: usize, message: impl FnOnce(SessionId) -> Message) {
        let replicator = &self.hosts[i].replicator;
        if let Some(session) = replicator.link.filter(|_| replicator.synced) {
            self.carry(1 - i, message(session));
        }
    }

    fn sync(&mut self, i: usize) {
        let calls = &mut self.hosts[i].replicator.calls;
        let enough = |(first, last): &Answer| last - first + 1 >= SYNC_AFTER;
        let Some(about) = calls.unsynced.filter(enough) else { return };
        calls.unsynced = None;
        let number = calls.acks.next_number();
        calls.acks.sync_begins(number);
        calls.sync = Some((number, Some(about)));
        self.tell_target(i, |session| Message::Sync { session, number });
    }

    /// The disk here has done what a sync wants of it.
    fn sync_here(&mut self, i: usize) {
        let replicator = &mut self.hosts[i].replicator;
        let Some((number, Some(about))) = replicator.calls.sync else { return };
        replicator.calls.sync = Some((number, None));
        replicator.tree.checkpoint();
        let due = replicator.calls.acks.sync_local(number, false, about);
        self.acknowledge(i, due);
        self.finish_drain(i);
    }
}
