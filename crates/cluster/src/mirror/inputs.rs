//! Takes inputs in as facts. Nothing is decided here.

use model::Time;

use super::Mirror;
use super::facts::Standing;
use crate::effect::Assignment;
use crate::input::{Input, ReplicatorEvent};
use crate::record::StoredCopy;
use crate::report::Heartbeat;

impl Mirror {
    /// A heartbeat of the peer.
    pub(crate) fn hear(&mut self, heartbeat: &Heartbeat, received: Time, echoed: Option<Time>) {
        let rebooted = self.peer.boot.is_some_and(|boot| boot != heartbeat.boot);
        if rebooted {
            self.warn(
                "peer-rebooted",
                format!(
                    "{} has booted anew: what it had not written to disk may be gone",
                    self.peer_name
                ),
            );
        }
        self.peer.boot = Some(heartbeat.boot);
        self.peer.unread = None;
        self.peer.report = heartbeat.reports.get(&self.module).cloned();
        self.peer.cluster_digest = heartbeat.cluster_digest;
        self.peer.two_way = echoed.is_some();
        if self.peer.two_way {
            self.forget_hold_off();
        }
        self.peer.received = self.peer.received.max(Some(received));
        self.peer.echoed = self.peer.echoed.max(echoed);
        let report = self.peer.report.as_ref();
        if report.is_some_and(|peer| self.standing(peer) == Standing::Behind) {
            // Should the peer be lost from here on, no policy lets this node go on without what
            // the peer has written meanwhile.
            self.in_sync_since_boot = false;
        }
    }

    /// Any other input about this module.
    pub(crate) fn take_in(&mut self, input: Input) {
        match input {
            // Pulses and shares are those of farms.
            Input::Heartbeat { .. }
            | Input::Reach(_)
            | Input::Unread { .. }
            | Input::Pulse { .. }
            | Input::SharesSet { .. }
            | Input::Tick => {}
            Input::DataLink { received, echoed, .. } => {
                self.peer.link_received = self.peer.link_received.max(Some(received));
                self.peer.link_echoed = self.peer.link_echoed.max(echoed);
            }
            Input::Witness { request, answer, .. } => self.hear_witness(request, answer),
            Input::WitnessUnreachable { why, .. } => self.miss_witness(why),
            Input::Replicator { event, .. } => self.hear_replicator(event),
            Input::AddressesSet { held, error, .. } => self.addresses_set(held, error),
            Input::ServiceDone { action, error, .. } => self.service_done(action, error),
            Input::CheckResult { serial, check, up, evidence, .. } => {
                self.hear_check(serial, check, up, evidence);
            }
            Input::ResyncPrepared { serial, error, .. } => self.resync_prepared(serial, error),
            Input::HeldOff { serial, error, .. } => self.held_off(serial, error),
            Input::PersistFailed { error, .. } => self.persist_failed(error),
            Input::Operator { job, command, .. } => self.command(job, command),
        }
    }

    fn hear_replicator(&mut self, event: ReplicatorEvent) {
        let replicator = &mut self.replicator;
        match event {
            ReplicatorEvent::Assigned { serial, number, drained } => {
                if serial == replicator.serial && replicator.ack.is_none() {
                    replicator.ack = Some((number, drained));
                    self.note_number(number);
                }
            }
            ReplicatorEvent::Refused { serial, why } => {
                if serial == replicator.serial {
                    self.warn("replicator-refused", format!("the replicator refused: {why}"));
                    self.replicator.refused = Some(why);
                }
            }
            ReplicatorEvent::LinkUp { session } => {
                replicator.link = Some(session);
            }
            ReplicatorEvent::LinkLost { session, why } => {
                if replicator.link == Some(session) {
                    replicator.link = None;
                }
                replicator.lost = Some((session, why));
            }
            ReplicatorEvent::Synced { session, .. } => replicator.synced = Some(session),
            ReplicatorEvent::TargetDurable { session, number } => {
                let before = replicator.durable.filter(|(s, _)| *s == session).map(|(_, n)| n);
                replicator.durable = Some((session, before.unwrap_or(0).max(number)));
            }
            ReplicatorEvent::TargetFailed { session, why } => {
                replicator.target_failed = Some((session, why));
            }
            ReplicatorEvent::CopyFailed { why } => {
                self.warn("copy-failed", format!("this node's copy failed: {why}"));
                self.replicator.copy_failed = Some(why);
            }
            ReplicatorEvent::Owners { differ } => replicator.owners_differ = differ,
            ReplicatorEvent::Restored { why } => self.copy_restored(why),
            ReplicatorEvent::LookedBack { clean, found } => self.looked_back(clean, found),
            ReplicatorEvent::Resumed { how } => {
                let sentence = format!("a replicator went on where another had ended: {how}");
                self.warn("replicator-resumed", sentence);
            }
            ReplicatorEvent::Unkept => {
                let sentence = "the keeper of the replicator ended: from now on a death of the \
                                replicator ends serving";
                self.warn("keeper-ended", sentence.to_owned());
            }
            ReplicatorEvent::Died { how } => {
                self.warn("replicator-died", format!("the replicator ended unexpectedly: {how}"));
                self.replicator.died = Some(how);
                self.replicator.link = None;
                self.replicator.continuous = false;
                self.replicator.looked_back = None;
                self.number = None;
            }
        }
    }

    /// The copy is an earlier one than the record says: it may follow, and lead only on the
    /// operator's word.
    fn copy_restored(&mut self, why: String) {
        // One that is to serve already was chosen by the operator.
        let waits = matches!(self.replicator.assigned, Some(Assignment::Hold { .. }));
        let claims = matches!(self.record.copy, StoredCopy::Current | StoredCopy::Outdated { .. });
        if !waits || !claims || self.fault.is_some() {
            return;
        }
        self.warn("copy-restored", why);
        self.number = None;
        self.replicator.restored = true;
        self.note_restored();
    }

    /// Records it, also when an attempt before this one failed.
    pub(super) fn note_restored(&mut self) {
        self.persist(|record| {
            record.copy = StoredCopy::Restored;
            record.pending = None;
            record.promotable = false;
            record.holds_role = false;
        });
    }

    fn looked_back(&mut self, clean: bool, found: Option<String>) {
        if matches!(self.replicator.assigned, None | Some(Assignment::Close)) {
            // Of a process that ends.
            return;
        }
        if let Some(found) = found.filter(|_| self.replicator.looked_back.is_none()) {
            self.warn("out-of-band", found);
        }
        self.replicator.looked_back = Some(clean);
    }

    /// A number counts only where nothing is under way, and only when it continues a session of
    /// this process; else the one in the record stands.
    fn note_number(&mut self, number: u64) {
        match self.replicator.assigned {
            Some(Assignment::Hold { .. } | Assignment::Close) => {
                let counts = self.replicator.continuous && self.record.open_in == Some(self.boot);
                self.number = self.number.or(counts.then_some(number));
            }
            Some(Assignment::Serve(_) | Assignment::Receive { .. }) => {
                self.replicator.continuous = true;
            }
            None => {}
        }
    }
}
