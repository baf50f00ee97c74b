//! What whoever waits does with its directories: nobody else may change them from then on, and what
//! was changed past replication before is looked for.
//!
//! The replicator does the looking, and what it finds comes in as an event (inputs.rs); who starts
//! is decided in start.rs.

use std::time::Duration;

use super::Mirror;
use crate::effect::{Assignment, Ending};
use crate::report::Report;

/// How long two nodes that wait and hold the same operations may look for what was changed past
/// replication, before one goes on alone for that time.
const LOOK_BACK_MAX: Duration = Duration::from_secs(5);

impl Mirror {
    /// Whether no replicator keeps others from the directories.
    pub(super) fn is_uncovered(&self) -> bool {
        let replicator = &self.replicator;
        let assigned = !matches!(replicator.assigned, None | Some(Assignment::Close));
        !assigned || replicator.refused.is_some() || replicator.died.is_some()
    }

    /// Whoever waits lets nobody change its copy, and looks for what was changed before.
    pub(super) fn cover(&mut self) -> bool {
        let refused = self.replicator.refused.clone();
        if refused.is_some() || self.replicator.died.is_some() {
            if !self.due(self.retry.at) {
                let Some(why) = refused else { return false };
                let me = &self.me;
                let sentence = format!("the directories on {me} cannot be kept from others: {why}");
                return self.block("replicator-refused", sentence);
            }
            self.back_off();
        }
        self.look_back_since = None;
        self.replicator.looked_back = None;
        self.hold(Ending::Cut);
        true
    }

    /// Whether neither copy was changed past replication; none while that is being looked for.
    pub(super) fn nothing_out_of_band(&self, peer: &Report) -> Option<bool> {
        Some(self.replicator.looked_back? && peer.looked_back?)
    }

    /// Whether both have waited long enough for what they look for.
    pub(super) fn has_looked_back_long(&mut self) -> bool {
        let since = *self.look_back_since.get_or_insert(self.now);
        self.due(since + LOOK_BACK_MAX)
    }
}
