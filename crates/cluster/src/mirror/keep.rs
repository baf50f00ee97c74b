//! Which of two copies is kept that each went on alone, where the configuration leaves that to no
//! operator: that of the node on which the application has run longest since then.
//!
//! Each counts that on its own clock. Once both are there, each brings a claim forward, which never
//! changes, and says against which claim of the other it stands. Only of two claims that stand
//! against each other the shorter one gives its copy up: both nodes then compare the same two
//! numbers, and no later claim can turn that round, as a copy that was given up makes none. A copy
//! whose epoch is not on its disk yet gives way to one whose epoch is: a crash would lead it back.
//! Where that is so of both, the choice is left to the operator.

use std::sync::Arc;
use std::time::Duration;

use model::config::Keep;
use model::{Copy, EpochId, Phase, Role};
use serde::{Deserialize, Serialize};

use super::facts::{Standing, is_acting};
use super::{Mirror, State};
use crate::record::{Moment, Served};
use crate::report::{Claim, Report};

/// How much of what was served is forgotten if the node goes down.
const WRITTEN_DOWN: Duration = Duration::from_secs(60);

/// What this node has brought forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Brought {
    id: u128,
    served: Duration,
    #[serde(default)]
    unopened: bool,
    /// The epochs that went apart.
    own: EpochId,
    theirs: EpochId,
}

impl Mirror {
    /// The application runs here from now on, or goes on.
    pub(super) fn begin_counting(&mut self) -> Moment {
        self.counts = true;
        Moment { boot: self.boot, at: self.now }
    }

    /// The application does not run here any more: what is to be written down of it.
    pub(super) fn end_counting(&mut self) -> Served {
        let total = self.served();
        self.counts = false;
        Served { total, since: None }
    }

    fn served(&self) -> Duration {
        let Served { total, since } = self.record.served;
        let since = since.filter(|since| self.counts && since.boot == self.boot);
        total + since.map_or(Duration::ZERO, |since| self.now.since(since.at))
    }

    /// Writes down how long it has run, where that may matter once.
    pub(super) fn write_down_served(&mut self) -> bool {
        let matters = self.keeps_longest() && self.state == State::Serve && self.is_sole();
        let Some(since) = self.record.served.since.filter(|_| matters && self.counts) else {
            return false;
        };
        if self.persist_error.is_some() || !self.due(since.at + WRITTEN_DOWN) {
            return false;
        }
        let (total, since) = (self.served(), Moment { boot: self.boot, at: self.now });
        self.persist(|record| record.served = Served { total, since: Some(since) });
        true
    }

    fn keeps_longest(&self) -> bool {
        self.config.failover.keep == Keep::LongestServing
    }

    /// Two copies that went apart: brings forward what speaks for this one, or gives it up.
    pub(super) fn keep_step(&mut self) -> bool {
        let Some(peer) = self.rival() else {
            return self.claim.take().is_some();
        };
        let epochs = self.epoch_id().zip(peer.epoch.as_ref().map(|epoch| epoch.id));
        let Some((own, theirs)) = epochs else { return false };
        let unopened = self.record.unopened.is_some();
        let known = self
            .claim
            .filter(|claim| (claim.own, claim.theirs, claim.unopened) == (own, theirs, unopened));
        let Some(mine) = known else {
            let (id, served) = (self.rng.id(), self.served());
            self.claim = Some(Brought { id, served, unopened, own, theirs });
            return true;
        };
        let Some(other) = peer.claim.filter(|claim| claim.against == mine.id) else {
            return false;
        };
        let (ours, theirs) = (!mine.unopened, !other.unopened);
        if (ours, mine.served, self.first) > (theirs, other.served, !self.first) {
            return false;
        }
        let because = if mine.unopened {
            format!("{} had only begun to go on alone, unlike {}", self.me, self.peer_name)
        } else {
            format!(
                "since they went apart {} has run the application for {}, which is longer than {}",
                self.peer_name,
                seconds(other.served),
                seconds(mine.served)
            )
        };
        match self.state {
            State::Wait => {
                self.give_copy_up(&because);
                self.claim = None;
                true
            }
            State::Serve => {
                self.lose("gives-way", &because);
                true
            }
            // It is letting go, and the others have no rival.
            State::Lose
            | State::Stop
            | State::Ask { .. }
            | State::Fence { .. }
            | State::Promote(_)
            | State::HandOver { .. }
            | State::Follow { .. }
            | State::Settle
            | State::Quit { .. } => false,
        }
    }

    /// The peer, if its copy and this one went apart, one of them is to be kept by itself, and
    /// either node can run the application.
    fn rival(&mut self) -> Option<Arc<Report>> {
        let here = matches!(self.state, State::Wait | State::Serve | State::Lose)
            && self.keeps_longest()
            && self.record.started
            && self.record.pending.is_none()
            && self.persist_error.is_none()
            && self.copy() >= Copy::Crashed
            && self.start_failure().is_none()
            && !(self.leaving || self.is_hindered() || self.is_maintained())
            && self.config_differences().is_empty();
        let peer = self.heard().filter(|_| here)?;
        let there = matches!(peer.role, Role::Wait | Role::Alone)
            && !(is_acting(&peer) && peer.phase == Phase::NotReady)
            && !(peer.leaving || peer.hindered || peer.maintained)
            && peer.pending.is_none()
            // A crash would lead either back to what the other one is to give up.
            && !(peer.unopened && self.record.unopened.is_some())
            && peer.copy >= Copy::Crashed
            && self.standing(&peer) == Standing::Split;
        there.then_some(peer)
    }

    /// The claim, as the peer is told of it.
    pub(super) fn claim(&self) -> Option<Claim> {
        let Brought { id, served, unopened, theirs, .. } = self.claim?;
        let report = self.peer.report.as_ref();
        let report = report.filter(|r| r.epoch.as_ref().is_some_and(|epoch| epoch.id == theirs));
        let against = report.and_then(|report| report.claim).map_or(0, |claim| claim.id);
        Some(Claim { id, against, served, unopened })
    }
}

fn seconds(span: Duration) -> String {
    format!("{}.{} s", span.as_secs(), span.subsec_millis() / 100)
}
