//! Going on without the peer where no witness is configured: because the policy allows it, or
//! because a command holds the peer off.
//!
//! The command takes the place of a grant: then no node goes on without its success, so that the
//! peer has not gone on either, as long as this node was there to be held off. A node that has
//! started anew or stood still was perhaps held off itself, and the peer has gone on: it waits
//! until it hears the peer. No policy counts beside the command. Where a witness is configured
//! there is none, for the peer could have been granted what this node takes by force.

use std::time::Duration;

use model::config::WithoutWitness;
use model::{Severity, Time};
use serde::{Deserialize, Serialize};

use super::Mirror;
use super::alone::Verdict;
use crate::effect::Effect;
use crate::input::{Boot, ScriptError};

/// Pause before a command that failed is run again.
const RETRY: Duration = Duration::from_secs(10);

/// The command that holds the peer off, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HoldOff {
    configured: bool,
    serial: u64,
    /// What runs, and the newest sign of life of the peer when it was begun.
    under_way: Option<Option<Time>>,
    /// The peer is held off, unless it has shown a sign of life since this one.
    done: Option<Option<Time>>,
    failed: Option<ScriptError>,
    retry_at: Time,
}

impl HoldOff {
    pub(super) fn new(now: Time, boot: &Boot) -> HoldOff {
        HoldOff {
            configured: boot.cluster.fence.is_some() && boot.cluster.witness.is_none(),
            serial: 0,
            under_way: None,
            done: None,
            failed: None,
            retry_at: now,
        }
    }
}

impl Mirror {
    /// Whether this node may go on; it was in sync, and in contact, until the peer fell silent.
    pub(super) fn verdict_unwitnessed(&mut self, was_in_sync: bool) -> Verdict {
        let held_off = self.hold_off.configured;
        let policy = self.config.failover.without_witness == WithoutWitness::GoOn;
        if !(held_off || policy) || !was_in_sync || (held_off && !self.was_watching()) {
            self.block_unwitnessed();
            return Verdict::Open;
        }
        if !held_off && self.is_unread() {
            self.block_unread();
            return Verdict::Open;
        }
        if !self.is_reaching() {
            self.block_isolated();
            return Verdict::Open;
        }
        if held_off { self.hold_off() } else { Verdict::Policy }
    }

    /// The peer is alive, but what it says cannot be read.
    pub(crate) fn hear_unread(&mut self, received: Time, version: u16) {
        self.peer.unread = self.peer.unread.max(Some((received, version)));
    }

    /// Whether the peer is alive and of another version: it is not lost, and may be serving.
    fn is_unread(&mut self) -> bool {
        let Some((received, _)) = self.peer.unread else { return false };
        let until = received + self.timeout();
        !self.due(until)
    }

    fn block_unread(&mut self) {
        let sentence = self.unread_sentence() + ": neither knows what the other does";
        self.block("version-differs", sentence);
    }

    fn unread_sentence(&self) -> String {
        let version = self.peer.unread.map_or(0, |(_, version)| version);
        format!(
            "{} is alive, and its program sends heartbeats of version {version}, which {} cannot \
             read",
            self.peer_name, self.me
        )
    }

    /// Says that the peer is alive and cannot be read, if it is so.
    pub(super) fn unread_reason(&self, found: &mut Vec<(&'static str, Severity, String)>) -> bool {
        let fresh = |(received, _): (Time, u16)| self.now < received + self.timeout();
        let unread = self.peer.unread.is_some_and(fresh) && self.state != super::State::Stop;
        let blocked = self.block.as_ref().is_some_and(|block| block.code == "version-differs");
        if unread && !blocked {
            found.push(("version-differs", Severity::Warning, self.unread_sentence()));
        }
        unread
    }

    /// Whether this node has heard its peer since it started, and has not stood still since then.
    fn was_watching(&self) -> bool {
        self.contact_proof().is_some_and(|heard| heard >= self.listening)
    }

    fn block_unwitnessed(&mut self) {
        let (me, peer) = (&self.me, &self.peer_name);
        let sentence = if self.hold_off.configured {
            format!(
                "{peer} is silent, and {me} has started anew, or stood still, since it was in sync \
                 with {peer}: that may have gone on meanwhile"
            )
        } else {
            format!("{peer} is silent and no witness can say who goes on")
        };
        self.block("no-witness", sentence);
    }

    /// Has the peer held off, and says whether it is.
    fn hold_off(&mut self) -> Verdict {
        let alive = self.newest_sign();
        let (me, peer) = (self.me.clone(), self.peer_name.clone());
        if self.hold_off.done == Some(alive) {
            return Verdict::HeldOff;
        }
        if self.hold_off.under_way.is_none() && self.due(self.hold_off.retry_at) {
            self.hold_off.serial += 1;
            self.hold_off.under_way = Some(alive);
            self.hold_off.done = None;
            self.info("holds-off", format!("{me} has {peer} held off, to go on without it"));
            let (module, serial) = (self.module.clone(), self.hold_off.serial);
            self.effects.push(Effect::HoldOff { module, serial, peer: peer.clone() });
        }
        if let Some(error) = &self.hold_off.failed {
            let how = &error.how;
            let sentence = format!(
                "the command that is to hold {peer} off {how}: {me} does not go on without it"
            );
            self.block("hold-off-failed", sentence);
        }
        Verdict::Open
    }

    /// The newest sign of life of the peer, if there was any.
    fn newest_sign(&self) -> Option<Time> {
        self.peer.received.max(self.peer.link_received)
    }

    pub(super) fn held_off(&mut self, serial: u64, error: Option<ScriptError>) {
        if serial != self.hold_off.serial {
            return;
        }
        let Some(alive) = self.hold_off.under_way.take() else { return };
        match error {
            None => {
                self.hold_off.failed = None;
                self.hold_off.done = Some(alive);
            }
            Some(error) => {
                let sentence = format!("{} could not be held off: {}", self.peer_name, error.how);
                let severity = Severity::Warning;
                self.explain_with(severity, "not-held-off", sentence, error.said.clone());
                self.hold_off.failed = Some(error);
                self.hold_off.retry_at = self.now + RETRY;
            }
        }
    }

    /// A record that was to be written with it could not be: it may not have been begun.
    pub(super) fn undo_hold_off(&mut self) {
        self.hold_off.under_way = None;
    }

    /// The peer is there again: what failed is forgotten.
    pub(super) fn forget_hold_off(&mut self) {
        self.hold_off.failed = None;
        self.hold_off.retry_at = self.now;
    }

    pub(super) fn hold_off_said(&self, code: &str) -> Vec<String> {
        let failed = self.hold_off.failed.as_ref().filter(|_| code == "hold-off-failed");
        failed.map(|error| error.said.clone()).unwrap_or_default()
    }

    /// What to do about the network, and about the command.
    pub(super) fn unwitnessed_steps(&self, code: &str) -> Vec<String> {
        let (me, peer) = (&self.me, &self.peer_name);
        let force = format!("evenkeel force-primary {} --node {me}", self.module);
        match code {
            "version-differs" => vec![
                format!("install one version of Evenkeel on {me} and {peer}"),
                format!("only if {peer} certainly does not serve: {force}"),
            ],
            "landmark-silent" => vec![
                format!("see to the network of {me}, or to what it pings"),
                "or name others: [isolation] in cluster.toml".to_owned(),
            ],
            "hold-off-failed" => vec![
                "mend the command, or what it needs: it is tried again by itself".to_owned(),
                format!("or switch {peer} off, and then: {force}"),
            ],
            _ => Vec::new(),
        }
    }

    pub(super) fn is_unwitnessed_policy(&self) -> bool {
        !self.has_witness && !self.hold_off.configured
    }
}
