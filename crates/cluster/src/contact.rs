//! The bookkeeping of heartbeats: which are new, and which of mine a peer has heard.
//!
//! Run by the shell's heartbeat thread. It only numbers and compares; what silence means is
//! decided by the node, which is told the times found here.

use std::collections::{BTreeMap, VecDeque};

use model::{BootId, NodeName, Time};

use crate::report::Heartbeat;

/// Send times kept: at one heartbeat per 100 ms and two networks more than a minute.
const SENT_MAX: usize = 2048;

/// Numbers outgoing heartbeats and judges incoming ones.
#[derive(Debug, Clone)]
pub struct Contact {
    incarnation: u64,
    sequence: u64,
    sent: VecDeque<(u64, Time)>,
    peers: BTreeMap<NodeName, Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    boot: BootId,
    incarnation: u64,
    sequence: u64,
    /// Newest heartbeat of this node that it has echoed: how recent it certainly is.
    echo: u64,
}

impl Contact {
    /// Bookkeeping of a daemon started at `incarnation` (nanoseconds on its own clock).
    #[must_use]
    pub fn new(incarnation: u64) -> Contact {
        Contact { incarnation, sequence: 0, sent: VecDeque::new(), peers: BTreeMap::new() }
    }

    /// Stamps a heartbeat that is sent to `to` at `now`: incarnation, sequence and echo. Send the
    /// same stamped heartbeat on every network: the receiver drops the duplicates.
    pub fn stamp(&mut self, now: Time, to: &NodeName, heartbeat: &mut Heartbeat) {
        self.sequence += 1;
        self.sent.push_back((self.sequence, now));
        if self.sent.len() > SENT_MAX {
            self.sent.pop_front();
        }
        heartbeat.incarnation = self.incarnation;
        heartbeat.sequence = self.sequence;
        let (echo, echo_incarnation) =
            self.peers.get(to).map_or((0, 0), |seen| (seen.sequence, seen.incarnation));
        heartbeat.echo = echo;
        heartbeat.echo_incarnation = echo_incarnation;
    }

    /// Judges a heartbeat received at `now`. None when it is a duplicate, older than one already
    /// seen, or of an earlier incarnation or boot; else when it was received and when this node
    /// sent the newest of its own that it echoes.
    ///
    /// Boots have no order of their own, so that a late or repeated heartbeat of an earlier boot
    /// cannot be told from the first one of the next. What tells them apart is the echo: only who
    /// lives now can have heard what this node sent last. Another boot is therefore believed once
    /// it echoes something newer than the one before it ever did. One that has echoed nothing yet
    /// gives way to any: else two nodes that each heard a late one first would stay deaf.
    pub fn receive(&mut self, now: Time, heartbeat: &Heartbeat) -> Option<(Time, Option<Time>)> {
        let mine = heartbeat.echo_incarnation == self.incarnation;
        let echo = if mine { heartbeat.echo } else { 0 };
        let first = Seen { boot: heartbeat.boot, incarnation: 0, sequence: 0, echo: 0 };
        let seen = self.peers.entry(heartbeat.from.clone()).or_insert(first);
        if seen.boot != heartbeat.boot {
            if seen.echo > 0 && echo <= seen.echo {
                return None;
            }
            seen.boot = heartbeat.boot;
        } else if (heartbeat.incarnation, heartbeat.sequence) <= (seen.incarnation, seen.sequence) {
            return None;
        }
        seen.incarnation = heartbeat.incarnation;
        seen.sequence = heartbeat.sequence;
        seen.echo = seen.echo.max(echo);
        let echoed = self.sent.iter().find(|(sequence, _)| mine && *sequence == heartbeat.echo);
        Some((now, echoed.map(|(_, at)| *at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(from: &str, boot: u128) -> Heartbeat {
        Heartbeat {
            from: NodeName::new(from).unwrap(),
            boot: BootId(boot),
            incarnation: 0,
            sequence: 0,
            echo: 0,
            echo_incarnation: 0,
            cluster_digest: 0,
            configuration: model::config::Stand::default(),
            reports: BTreeMap::new(),
        }
    }

    #[test]
    fn an_echo_names_the_time_of_sending() {
        let (a, b) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
        let (mut at_a, mut at_b) = (Contact::new(7), Contact::new(9));
        let mut there = heartbeat("a", 1);
        at_a.stamp(Time::from_millis(10), &b, &mut there);
        assert_eq!(at_b.receive(Time::from_millis(5), &there), Some((Time::from_millis(5), None)));
        let mut back = heartbeat("b", 2);
        at_b.stamp(Time::from_millis(6), &a, &mut back);
        let (_, echoed) = at_a.receive(Time::from_millis(20), &back).unwrap();
        assert_eq!(echoed, Some(Time::from_millis(10)));
    }

    #[test]
    fn duplicates_and_the_past_are_dropped() {
        let b = NodeName::new("b").unwrap();
        let (mut old, mut new, mut at_b) = (Contact::new(1), Contact::new(2), Contact::new(9));
        let (mut first, mut second) = (heartbeat("a", 1), heartbeat("a", 1));
        old.stamp(Time::ZERO, &b, &mut first);
        old.stamp(Time::ZERO, &b, &mut second);
        assert!(at_b.receive(Time::ZERO, &second).is_some());
        assert!(at_b.receive(Time::ZERO, &second).is_none(), "a duplicate");
        assert!(at_b.receive(Time::ZERO, &first).is_none(), "an older one");
        let mut restarted = heartbeat("a", 1);
        new.stamp(Time::ZERO, &b, &mut restarted);
        assert!(at_b.receive(Time::ZERO, &restarted).is_some());
        old.stamp(Time::ZERO, &b, &mut first);
        assert!(at_b.receive(Time::ZERO, &first).is_none(), "an earlier incarnation");
    }

    #[test]
    fn another_boot_is_believed_once_it_has_heard_what_was_sent_last() {
        let (a, b) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
        let (mut first_boot, mut at_b) = (Contact::new(7), Contact::new(9));
        let talk = |from: &mut Contact, boot, at_b: &mut Contact| {
            let (mut there, mut back) = (heartbeat("a", boot), heartbeat("b", 2));
            at_b.stamp(Time::ZERO, &a, &mut back);
            assert!(from.receive(Time::ZERO, &back).is_some());
            from.stamp(Time::ZERO, &b, &mut there);
            there
        };
        let heard = talk(&mut first_boot, 1, &mut at_b);
        let late = talk(&mut first_boot, 1, &mut at_b);
        assert!(at_b.receive(Time::ZERO, &heard).is_some());

        let mut second_boot = Contact::new(1);
        let mut early = heartbeat("a", 3);
        second_boot.stamp(Time::ZERO, &b, &mut early);
        assert!(at_b.receive(Time::ZERO, &early).is_none(), "it may be from before boot 1");
        let proven = talk(&mut second_boot, 3, &mut at_b);
        assert!(at_b.receive(Time::ZERO, &proven).is_some(), "it heard the last one");
        assert!(at_b.receive(Time::ZERO, &late).is_none(), "boot 1 did not");
        let next = talk(&mut second_boot, 3, &mut at_b);
        assert!(at_b.receive(Time::ZERO, &next).is_some(), "it is not deaf to the new boot");
    }

    #[test]
    fn late_heartbeats_of_earlier_boots_make_nobody_deaf() {
        let (a, b) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
        let (mut at_a, mut at_b) = (Contact::new(7), Contact::new(9));
        assert!(
            at_a.receive(Time::ZERO, &Heartbeat { sequence: 5, ..heartbeat("b", 1) }).is_some()
        );
        assert!(
            at_b.receive(Time::ZERO, &Heartbeat { sequence: 5, ..heartbeat("a", 1) }).is_some()
        );
        let (mut from_a, mut from_b) = (heartbeat("a", 3), heartbeat("b", 4));
        at_a.stamp(Time::ZERO, &b, &mut from_a);
        at_b.stamp(Time::ZERO, &a, &mut from_b);
        assert!(at_b.receive(Time::ZERO, &from_a).is_some());
        assert!(at_a.receive(Time::ZERO, &from_b).is_some());
    }
}
