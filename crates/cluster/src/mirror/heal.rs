//! Healing a split brain: one of two copies that each went on alone is given up, on the operator's
//! word or as the configuration says (`keep`).
//!
//! Nothing is merged, and nothing is thrown away: what the given-up copy holds alone is put into
//! quarantine by the replicator before the resync overwrites it. From here on the copy is worth no
//! more than a mixture, so that no rule lets it lead. A node whose disk was replaced is filled anew
//! on the same word.

use std::time::Duration;

use model::Copy;
use model::config::Keep;
use serde::{Deserialize, Serialize};

use super::facts::{Standing, data_fault, is_serving};
use super::{Mirror, State};
use crate::input::DataState;
use crate::record::{Record, StoredCopy};

/// What the operator can do about what passes by itself.
const AGAIN: &str = "the same again in a moment";

/// What this node has forgotten on the operator's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Forgotten {
    /// What was found that is at fault.
    found: DataState,
    /// Of the record before the word.
    root: u128,
    quarantine: Option<Duration>,
}

impl Mirror {
    pub(super) fn refuse_discard(&mut self) -> Option<(String, String)> {
        let why = format!("evenkeel why {}", self.module);
        let (me, name) = (self.me.clone(), self.peer_name.clone());
        if let Some(fault) = self.fault.as_ref().filter(|_| !self.is_fillable()) {
            return Some((fault.clone(), why));
        }
        let Some(peer) = self.heard() else {
            let text = format!("{name} is not heard: only a copy that is seen can be kept for it");
            return Some((text, format!("bring {name} back")));
        };
        if !matches!(self.state, State::Stop | State::Wait | State::Ask { .. }) {
            let next = format!("evenkeel stop {} --node {me}", self.module);
            return Some((format!("{me} runs the application, or is in a change"), next));
        }
        if let Some(fault) = &self.fault {
            let left = matches!(
                self.standing(&peer),
                Standing::Behind | Standing::Split | Standing::Foreign | Standing::MeNew
            );
            // What serves alone is what stays, whatever this node has held: nothing waits for it.
            let serves = is_serving(&peer) && !peer.unopened && left && peer.copy >= Copy::Crashed;
            let next = format!("evenkeel start {} on {name}", self.module);
            return (!serves).then(|| {
                let text = format!(
                    "{fault}; it is filled anew from {name} once that one runs the application \
                     alone"
                );
                (text, next)
            });
        }
        if self.claim.is_some() {
            // Both could be given up otherwise: one by the operator, the other one by this.
            let text = format!(
                "with `keep = \"longest-serving\"`, the copy of {me} or of {name} is given up by \
                 itself"
            );
            return Some((text, why));
        }
        if !matches!(self.standing(&peer), Standing::Split | Standing::Foreign) {
            let text = format!(
                "the data of {me} and {name} have not gone apart: the older copy is brought up to \
                 date by itself"
            );
            return Some((text, why));
        }
        if peer.copy < Copy::Crashed {
            return Some((format!("the copy of {name} is not whole: {}", peer.copy), why));
        }
        // A crash would lead it back to the epoch that both know.
        let soon = is_serving(&peer) && peer.unopened;
        soon.then(|| (format!("{name} has only begun to run the application"), AGAIN.to_owned()))
    }

    pub(super) fn heal_steps(&self) -> Vec<String> {
        let module = &self.module;
        // Where neither has gone on alone on its disk nothing is compared.
        let compared = self.record.unopened.is_none()
            || !self.peer.report.as_ref().is_some_and(|report| report.unopened);
        if self.config.failover.keep == Keep::LongestServing && compared {
            return vec![
                format!("wait, with {module} started on both nodes: one copy is kept by itself"),
                format!("see what each node holds: evenkeel heal {module}"),
            ];
        }
        vec![
            format!("see what each node holds: evenkeel heal {module}"),
            format!("then: evenkeel heal {module} --keep NODE, the one whose data are to stay"),
        ]
    }

    /// Whether the directories are there, whatever they hold.
    pub(super) fn is_fillable(&self) -> bool {
        !matches!(self.wrong, Some(DataState::Unusable { fillable: false, .. }))
    }

    /// The operator keeps the peer's copy.
    pub(super) fn discard(&mut self) {
        if self.fault.is_some() {
            let sentence = format!(
                "the data of {} are lost, and its directories are filled anew from {}, as the \
                 operator has chosen: what is in them, if anything, goes to quarantine",
                self.me, self.peer_name
            );
            self.warn("refills", sentence);
            // The word comes last: a record before it that fails leaves all as it was.
            self.begin_start();
            self.forget_copy();
        } else {
            self.give_copy_up("the operator has chosen");
        }
        self.begin_start();
        self.go(State::Wait);
    }

    /// What was to be forgotten is known as before, if that could not be written down.
    pub(super) fn remember(&mut self) {
        let Record { root, quarantine, .. } = self.record;
        let known = self.forgotten.take();
        let Some(Forgotten { found, .. }) =
            known.filter(|known| (known.root, known.quarantine) == (root, quarantine))
        else {
            return;
        };
        self.fault = data_fault(&self.record, &found);
        self.wrong = self.fault.is_some().then_some(found);
    }

    /// The copy is lost, and this node is as one that never held data of the module.
    fn forget_copy(&mut self) {
        self.fault = None;
        let Record { root, quarantine, .. } = self.record;
        self.forgotten = self.wrong.take().map(|found| Forgotten { found, root, quarantine });
        let name = self.wall(self.now);
        self.number = None;
        let empty = self.empty;
        self.persist(|record| {
            // Of a mixture nothing is worth keeping before a resync, wherever it has gone.
            let mixed = record.copy == StoredCopy::Inconsistent;
            *record = Record {
                copy: if mixed { StoredCopy::Inconsistent } else { StoredCopy::None },
                quarantine: (!empty).then_some(name),
                paused: record.paused,
                maintenance: record.maintenance,
                started: record.started,
                recovery: std::mem::take(&mut record.recovery),
                ..Record::default()
            };
        });
    }

    /// This copy is worth nothing any more, and is what the quarantine will be made of.
    pub(super) fn give_copy_up(&mut self, because: &str) {
        let name = self.wall(self.now);
        self.warn(
            "discards",
            format!(
                "the copy of {} is given up for that of {}, as {because}: what it holds alone goes \
                 to quarantine",
                self.me, self.peer_name
            ),
        );
        self.persist(|record| {
            record.copy = StoredCopy::Discarded;
            // One that was given up before, and not replaced yet, keeps its name.
            record.quarantine = record.quarantine.or(Some(name));
            record.pending = None;
            record.promotable = false;
            record.holds_role = false;
            record.forced = false;
        });
    }
}
