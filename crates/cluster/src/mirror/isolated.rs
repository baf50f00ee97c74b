//! Whether this node may be the one that is cut off: then it does not go on by policy alone.
//!
//! Without a witness, silence of the peer says nothing of who is cut off. A node that has reached
//! a landmark all the time since it last heard the peer is not; one that has not may have been
//! left behind, and waits until it hears the peer again, even when the landmark answers again. A
//! landmark that is silent does no harm as long as the peer is heard.

use std::time::Duration;

use model::config::Isolation;
use model::{Severity, Time};
use serde::{Deserialize, Serialize};

use super::Mirror;
use crate::input::Boot;
use crate::isolation::Reach;

/// What the pings have told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reached {
    newest: Reach,
    /// When the newest question was asked that was answered.
    asked: Option<Time>,
    /// When the first one was asked since the last time that a node could be left behind in.
    unbroken: Time,
}

impl Reached {
    pub(super) fn new(now: Time, boot: &Boot) -> Reached {
        // A witness decides better.
        let pings = boot.cluster.witness.is_none() && boot.cluster.isolation != Isolation::Off;
        let silent = Reach::Silent { since: now, landmarks: Vec::new() };
        let newest = if pings { silent } else { Reach::NoLandmark };
        Reached { newest, asked: None, unbroken: now }
    }
}

impl Mirror {
    pub(crate) fn hear_reach(&mut self, reach: Reach) {
        let longest = self.unseen_max();
        let reached = &mut self.reached;
        if let Reach::Answers { asked } = reach {
            if reached.asked.is_none_or(|before| asked.since(before) > longest) {
                reached.unbroken = asked;
            }
            reached.asked = reached.asked.max(Some(asked));
        }
        reached.newest = reach;
    }

    /// How long nothing need be reached: in less time the peer does not go on alone.
    fn unseen_max(&self) -> Duration {
        self.timeout() * 3 / 4
    }

    /// Whether this node has been reaching a landmark since it lost contact, as far as anything is
    /// there to be reached.
    pub(super) fn is_reaching(&self) -> bool {
        if self.reached.newest == Reach::NoLandmark {
            return true;
        }
        let (longest, reached) = (self.unseen_max(), &self.reached);
        let Some((heard, asked)) = self.contact_proof().zip(reached.asked) else { return false };
        let now = self.now < asked + longest;
        now && asked >= heard && reached.unbroken <= heard + longest
    }

    /// The node does not go on, and says why.
    pub(super) fn block_isolated(&mut self) {
        let (me, peer) = (&self.me, &self.peer_name);
        let fresh = |asked: Time| self.now < asked + self.unseen_max();
        let sentence = if self.reached.asked.is_some_and(fresh) {
            format!(
                "{me} was cut off itself, and {peer} may have gone on meanwhile: it goes on only \
                 once it hears {peer} again"
            )
        } else {
            format!("{me} hears neither {peer} nor anybody else: it may be the one that is cut off")
        };
        self.block("isolated", sentence);
    }

    pub(super) fn reach_reasons(&self, found: &mut Vec<(&'static str, Severity, String)>) {
        let shown = self.block.as_ref().is_some_and(|block| block.code == "isolated");
        let started = self.state != super::State::Stop;
        if let Reach::Silent { landmarks, .. } = &self.reached.newest
            && !shown
            && started
            && !landmarks.is_empty()
        {
            let sentence = format!(
                "{} does not reach {}: without {} it would not go on, as it could be the one that \
                 is cut off",
                self.me,
                named(landmarks),
                self.peer_name
            );
            found.push(("landmark-silent", Severity::Warning, sentence));
        }
    }

    pub(super) fn reach_says(&self, code: &str) -> Vec<String> {
        if !matches!(code, "isolated" | "landmark-silent") {
            return Vec::new();
        }
        match &self.reached.newest {
            Reach::NoLandmark => Vec::new(),
            Reach::Answers { asked } => {
                vec![format!(
                    "the landmarks answer, last {} ms ago",
                    self.now.since(*asked).as_millis()
                )]
            }
            Reach::Silent { landmarks, .. } if landmarks.is_empty() => Vec::new(),
            Reach::Silent { since, landmarks } => {
                let seconds = self.now.since(*since).as_secs();
                vec![format!("no ping to {} was answered for {seconds} s", named(landmarks))]
            }
        }
    }
}

fn named(landmarks: &[std::net::IpAddr]) -> String {
    let names: Vec<String> = landmarks.iter().map(ToString::to_string).collect();
    names.join(", ")
}
