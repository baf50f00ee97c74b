//! The isolation check: whether anything but the peer can be reached, found by pings.
//!
//! Run by the shell's thread that pings, as `Contact` is by the one for heartbeats. It only keeps
//! count; what follows from it is decided by the modules. Pings are no witness: they show that
//! this node is not the one that is cut off, never that the peer is dead.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use model::Time;
use serde::{Deserialize, Serialize};

/// Landmarks that answer nothing for so long are called silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(3);

/// What is known of the landmarks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// Nothing is pinged: the check is switched off, or there is nothing that ever answered.
    NoLandmark,
    /// A landmark has answered.
    Answers {
        /// When it was asked what it has answered, the last time.
        asked: Time,
    },
    /// None answers.
    Silent {
        /// When the first question was asked that nobody has answered.
        since: Time,
        /// Who was asked; empty as long as that is not known.
        landmarks: Vec<IpAddr>,
    },
}

/// Keeps count of questions and answers.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The operator has named the landmarks: they count even if they have never answered.
    named: bool,
    landmarks: Vec<IpAddr>,
    /// What has answered ever.
    proven: BTreeSet<IpAddr>,
    answered: Option<Time>,
    unanswered: Option<Time>,
}

impl Watch {
    /// Of these landmarks, which the operator has named.
    #[must_use]
    pub fn named(landmarks: Vec<IpAddr>) -> Watch {
        Watch { named: true, landmarks, ..Watch::detected(BTreeSet::new()) }
    }

    /// Of the gateways, once they are found; these have answered before.
    #[must_use]
    pub fn detected(proven: BTreeSet<IpAddr>) -> Watch {
        let landmarks = proven.iter().copied().collect();
        Watch { named: false, landmarks, proven, answered: None, unanswered: None }
    }

    /// Whom to ask.
    #[must_use]
    pub fn landmarks(&self) -> &[IpAddr] {
        &self.landmarks
    }

    /// What has answered ever.
    #[must_use]
    pub fn proven(&self) -> &BTreeSet<IpAddr> {
        &self.proven
    }

    /// The gateways are these now. When there is none any more the last ones are asked on: that a
    /// route is gone is how a cut cable shows. So is that another one is left: until one of the new
    /// ones has answered, those that have are asked on too.
    pub fn found(&mut self, gateways: Vec<IpAddr>) {
        if gateways.is_empty() {
            return;
        }
        if gateways.iter().any(|gateway| self.proven.contains(gateway)) {
            self.landmarks = gateways;
            return;
        }
        self.landmarks.retain(|landmark| self.proven.contains(landmark));
        self.landmarks.extend(gateways);
    }

    /// All landmarks are asked.
    pub fn asks(&mut self, now: Time) {
        self.unanswered.get_or_insert(now);
    }

    /// One of them has answered what it was asked at `asked`.
    pub fn hears(&mut self, from: IpAddr, asked: Time) {
        if !self.landmarks.contains(&from) {
            return;
        }
        self.proven.insert(from);
        self.answered = self.answered.max(Some(asked));
        if self.unanswered.is_some_and(|since| since <= asked) {
            self.unanswered = None;
        }
    }

    /// What is known of the landmarks at `now`. A gateway that never answers pings is no landmark.
    #[must_use]
    pub fn reach(&self, now: Time) -> Reach {
        if !self.named && !self.landmarks.iter().any(|landmark| self.proven.contains(landmark)) {
            return Reach::NoLandmark;
        }
        let silent = self.unanswered.filter(|since| now.since(*since) >= SILENT_AFTER);
        match (silent, self.answered) {
            (None, Some(asked)) => Reach::Answers { asked },
            (Some(since), _) => Reach::Silent { since, landmarks: self.landmarks.clone() },
            (None, None) => {
                let since = self.unanswered.unwrap_or(now);
                Reach::Silent { since, landmarks: self.landmarks.clone() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_answer_of_several_landmarks_is_enough() {
        let mut watch = Watch::named(vec![ip(1), ip(2)]);
        watch.asks(at(1000));
        assert!(matches!(watch.reach(at(1000)), Reach::Silent { .. }));
        watch.hears(ip(2), at(1000));
        watch.hears(ip(3), at(1500));
        assert_eq!(watch.reach(at(1000)), Reach::Answers { asked: at(1000) });
    }

    #[test]
    fn a_gateway_that_never_answers_does_not_take_the_place_of_one_that_did() {
        let mut watch = Watch::detected(BTreeSet::new());
        watch.found(vec![ip(1)]);
        watch.asks(at(1000));
        watch.hears(ip(1), at(1000));
        for round in 2..10 {
            watch.found(vec![ip(9)]);
            watch.asks(at(round * 1000));
        }
        assert_eq!(watch.landmarks(), [ip(1), ip(9)]);
        assert!(matches!(watch.reach(at(10_000)), Reach::Silent { .. }));
        watch.hears(ip(9), at(10_000));
        assert!(matches!(watch.reach(at(10_000)), Reach::Answers { .. }));
        watch.found(vec![ip(9)]);
        assert_eq!(watch.landmarks(), [ip(9)]);
    }

    #[test]
    fn landmarks_are_silent_after_a_while_since_the_first_question_that_nobody_answered() {
        let mut watch = Watch::named(vec![ip(1)]);
        watch.asks(at(1000));
        watch.hears(ip(1), at(1000));
        watch.asks(at(2000));
        watch.asks(at(3000));
        // Late, but the question of 3000 is not answered by it.
        watch.hears(ip(1), at(2000));
        watch.asks(at(4000));
        assert_eq!(watch.reach(at(4500)), Reach::Answers { asked: at(2000) });
        let silent = Reach::Silent { since: at(4000), landmarks: vec![ip(1)] };
        assert_eq!(watch.reach(at(7000)), silent);
        watch.hears(ip(1), at(8000));
        assert_eq!(watch.reach(at(8000)), Reach::Answers { asked: at(8000) });
    }

    #[test]
    fn a_gateway_counts_once_it_has_answered_and_stays_when_its_route_goes() {
        let mut watch = Watch::detected(BTreeSet::new());
        assert_eq!(watch.reach(at(0)), Reach::NoLandmark);
        watch.found(vec![ip(1)]);
        watch.asks(at(1000));
        assert_eq!(watch.reach(at(9000)), Reach::NoLandmark);
        watch.hears(ip(1), at(9000));
        assert_eq!(watch.reach(at(9000)), Reach::Answers { asked: at(9000) });
        watch.found(Vec::new());
        assert_eq!(watch.landmarks(), [ip(1)]);
        watch.asks(at(10_000));
        assert!(matches!(watch.reach(at(13_000)), Reach::Silent { .. }));
        let again = Watch::detected(watch.proven().clone());
        assert!(matches!(again.reach(at(13_000)), Reach::Silent { .. }));
    }
}
