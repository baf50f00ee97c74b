//! The loser lets go: rule R6.
//!
//! In this order: waiting requests are answered with an error, addresses dropped, the application
//! killed. Only then the node looks for its place anew. A node that cannot write its record lets
//! go too, for what it decides would not be durable.

use super::facts::Standing;
use super::{Mirror, State};
use crate::application::RETRY_FIRST;
use crate::effect::{Ending, ServiceAction};

impl Mirror {
    /// An acting node that sees its peer in an epoch that follows its own has lost.
    pub(crate) fn lose_if_outvoted(&mut self) -> bool {
        let Some(peer) = self.heard() else {
            return false;
        };
        if self.standing(&peer) != Standing::Behind {
            return false;
        }
        self.lose("outvoted", "the peer went on without it");
        true
    }

    pub(crate) fn lose(&mut self, code: &str, why: &str) {
        self.warn(code, format!("{} lets go of everything: {why}", self.me));
        self.hold(Ending::Cut);
        self.set_addresses(false);
        self.run_service(ServiceAction::Kill);
        self.fenced = false;
        self.session = None;
        self.proposal = None;
        self.go(State::Lose);
    }

    /// A record that could not be written is tried again before anything is decided.
    pub(crate) fn record_anew(&mut self, error: &str) -> bool {
        if !self.is_written_again() {
            self.write_again();
            let sentence = format!("the record cannot be written: {error}");
            return self.block("record-failed", sentence);
        }
        if self.replicator.restored {
            self.note_restored();
        }
        self.info("record-written", format!("the record of {} can be written again", self.me));
        true
    }

    /// All of the batch counts as undone.
    pub(super) fn persist_failed(&mut self, error: String) {
        let known = self.undo_batch(error.clone());
        self.remember();
        self.proposal = None;
        // Given anew once it can be noted; what is not durable must not be said.
        self.consent = None;
        self.handover = None;
        self.undo_hold_off();
        if self.state == State::Stop || (known && self.state == State::Wait) {
            return;
        }
        self.retry.at = self.now + RETRY_FIRST;
        if self.fault.is_some() && self.state == State::Wait {
            // Over directories that are not the record's no replicator is started.
            let sentence = format!("the record cannot be written: {error}");
            self.block("record-failed", sentence);
            return;
        }
        self.lose("record-failed", &format!("the record cannot be written: {error}"));
    }

    pub(crate) fn lose_step(&mut self) -> bool {
        let replicator = &self.replicator;
        let held =
            replicator.ack.is_some() || replicator.refused.is_some() || replicator.died.is_some();
        if !held || self.front.addresses_busy || self.front.busy.is_some() {
            return false;
        }
        if self.persist_error.is_none() && self.record.holds_role {
            let served = self.end_counting();
            self.persist(|record| {
                record.holds_role = false;
                record.served = served;
            });
        }
        self.go(State::Wait);
        true
    }
}
