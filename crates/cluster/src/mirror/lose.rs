//! The loser lets go: rule R6.
//!
//! In this order: waiting requests are answered with an error, addresses dropped, the application
//! killed. Only then the node looks for its place anew.

use super::facts::Standing;
use super::{Mirror, State};
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
        self.front.fenced = false;
        self.session = None;
        self.proposal = None;
        self.go(State::Lose);
    }

    pub(crate) fn lose_step(&mut self) -> bool {
        let replicator = &self.replicator;
        let held =
            replicator.ack.is_some() || replicator.refused.is_some() || replicator.died.is_some();
        if !held || self.front.addresses_busy || self.front.busy.is_some() {
            return false;
        }
        if self.persist_error.is_none() && self.record.holds_role {
            self.persist(|record| record.holds_role = false);
        }
        self.go(State::Wait);
        true
    }
}
