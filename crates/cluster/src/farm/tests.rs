//! Single steps of a farm, as far as the random plans of `sim` would not name what broke.

use std::collections::BTreeSet;

use super::*;
use crate::farm::balance::balance;

const TIMEOUT: Duration = Duration::from_millis(200);

fn names(count: u8) -> Vec<NodeName> {
    (1..=count).map(|i| NodeName::new(&format!("node{i}")).unwrap()).collect()
}

fn farm(me: Seat, count: u8, delivery: Delivery) -> Farm {
    let settings = Settings {
        nodes: names(count),
        me,
        weight: 100,
        delivery,
        pulse: Duration::from_millis(50),
        timeout: TIMEOUT,
    };
    Farm::new(Time::ZERO, settings, (BootId(1), 1), None)
}

/// What another node says that hears everybody.
fn said(farm: &Farm, from: Seat, sequence: u64) -> Pulse {
    Pulse {
        from,
        roster: farm.roster(),
        boot: BootId(u128::from(from) + 2),
        incarnation: 1,
        sequence,
        part: Part::Ready,
        away: false,
        weight: 100,
        hears: u32::MAX,
        follows: None,
        term: 0,
        installed: Stamp::default(),
        switched: 0,
        heir: None,
        table: None,
        place: Vec::new(),
    }
}

fn shares(wishes: &[Wish]) -> Option<Shares> {
    wishes.iter().rev().find_map(|wish| match wish {
        Wish::SetShares(shares) => Some((**shares).clone()),
        Wish::Pulse(_) | Wish::Tell(_) => None,
    })
}

/// A farm that is alone and leads.
fn alone(delivery: Delivery) -> (Farm, Time) {
    let mut farm = farm(0, 3, delivery);
    farm.set_part(Time::ZERO, Part::Ready);
    let now = Time::ZERO + TIMEOUT;
    let wished = shares(&farm.tick(now)).unwrap();
    farm.shares_set(now, wished.edition);
    (farm, now)
}

#[test]
fn the_first_node_listens_and_then_serves_all() {
    let mut farm = farm(0, 3, Delivery::Directed);
    farm.set_part(Time::ZERO, Part::Ready);
    assert_eq!(farm.deadline(), Some(Time::ZERO + TIMEOUT));
    assert_eq!(shares(&farm.tick(Time::from_millis(199))), None);
    let (farm, _) = alone(Delivery::Directed);
    assert!(farm.is_leader() && farm.shares().leader);
    assert_eq!((farm.count(), farm.view().members[0].percent), (BUCKETS, 100));
}

#[test]
fn a_leader_sends_packets_to_a_new_owner_only_once_that_has_the_table() {
    let (mut farm, now) = alone(Delivery::Directed);
    let mut pulse = said(&farm, 1, 1);
    farm.hear(now, now, pulse.clone());
    assert_eq!(farm.table.count(1), 0, "it does not go by any table yet");
    let lead = farm.table.stamp.lead();
    pulse.follows = Some(Follows { lead, heard: true });
    (pulse.sequence, pulse.installed) = (2, farm.table.stamp);
    farm.hear(now, now, pulse.clone());
    assert_eq!((farm.table.count(1), farm.count()), (BUCKETS / 2, BUCKETS));
    (pulse.sequence, pulse.installed) = (3, farm.table.stamp);
    let wished = shares(&farm.hear(now, now, pulse)).unwrap();
    assert_eq!(farm.count(), BUCKETS / 2);
    assert!(wished.buckets.iter().all(|bucket| bucket.owner.is_some()));
    assert_ne!(farm.pulse().switched, farm.table.stamp.serial);
    farm.shares_set(now, wished.edition);
    assert_eq!(farm.pulse().switched, farm.table.stamp.serial);
}

#[test]
fn with_multicast_a_new_owner_waits_until_all_have_the_table() {
    let mut farm = farm(1, 3, Delivery::Multicast);
    let now = Time::ZERO + TIMEOUT;
    farm.set_part(Time::ZERO, Part::Ready);
    let mut leader = said(&farm, 0, 1);
    let stamp = Stamp { term: 5, leader: 0, serial: 2 };
    let mut table = Table::empty(stamp);
    balance(&mut table.lines, &BTreeMap::from([(0, 1)]));
    balance(&mut table.lines, &BTreeMap::from([(0, 1), (1, 1)]));
    leader.table = Some(table);
    leader.follows = Some(Follows { lead: stamp.lead(), heard: true });
    leader.installed = Stamp { serial: 1, ..stamp };
    let wished = shares(&farm.hear(now, now, leader.clone())).unwrap();
    assert_eq!(farm.count(), 0);
    farm.shares_set(now, wished.edition);
    assert_eq!(farm.installed(), stamp);
    (leader.sequence, leader.installed) = (2, stamp);
    farm.hear(now, now, leader);
    assert_eq!(farm.count(), BUCKETS / 2);
}

#[test]
fn a_late_node_hears_all_that_waits_before_it_finds_anybody_silent() {
    let at = Time::from_millis;
    let begin = || {
        let (mut farm, now) = alone(Delivery::Directed);
        for seat in [1, 2] {
            farm.hear(now, now, said(&farm, seat, 1));
        }
        // It is late twice, by less than what would show.
        farm.tick(at(300));
        (farm, at(400))
    };
    let (mut farm, late) = begin();
    farm.note(at(380), said(&farm, 2, 2));
    farm.hear(late, at(381), said(&farm, 1, 2));
    assert_eq!(farm.members().count(), 2);
    // One after the other, the second one would be missed already.
    let (mut farm, late) = begin();
    farm.hear(late, at(381), said(&farm, 1, 2));
    assert_eq!(farm.members().count(), 1);
}

#[test]
fn what_comes_late_or_again_or_from_another_list_changes_nothing() {
    let (mut farm, now) = alone(Delivery::Directed);
    farm.hear(now, now, said(&farm, 1, 7));
    let before = farm.clone();
    farm.hear(now, now, said(&farm, 1, 7));
    farm.hear(now, now, Pulse { part: Part::Out, ..said(&farm, 1, 6) });
    farm.hear(now, now, Pulse { from: 9, ..said(&farm, 1, 8) });
    assert_eq!(farm, before);
    farm.hear(now, now, Pulse { roster: 1, ..said(&farm, 1, 8) });
    assert_eq!(farm.other_roster(), names(3).get(1).cloned());
    farm.hear(now, now, said(&farm, 1, 8));
    assert_eq!(farm.other_roster(), None);
    farm.hear(now, now, Pulse { roster: 1, ..said(&farm, 1, 9) });
    farm.hear(now, now, Pulse { roster: 1, from: 9, ..said(&farm, 1, 9) });
    assert_eq!(farm.other_roster(), names(3).get(1).cloned());
    pass(&mut farm, now, RESUMES);
    assert_eq!(farm.other_roster(), None, "it is gone");
}

#[test]
fn a_leader_yields_to_a_greater_leadership_of_a_member_and_says_so() {
    let (mut farm, now) = alone(Delivery::Directed);
    let mut other = said(&farm, 2, 1);
    let lead = Lead { term: 9, seat: 2 };
    other.follows = Some(Follows { lead, heard: true });
    other.hears = 0;
    farm.hear(now, now, other.clone());
    assert!(farm.is_leader(), "what does not hear this node is no member");
    (other.hears, other.sequence) = (u32::MAX, 2);
    let wishes = farm.hear(now, now, other);
    let healed = |wish: &Wish| matches!(wish, Wish::Tell(Told::Healed { .. }));
    assert!(!farm.is_leader() && wishes.iter().any(healed));
}

#[test]
fn strays_go_to_who_served_before_and_end_as_the_bucket_says() {
    let mut farm = farm(0, 3, Delivery::Directed);
    let chain = |owner, former: [Option<Seat>; 3], died| Line { owner: Some(owner), former, died };
    let former = [Some(0), Some(1), None];
    assert_eq!(farm.stray(&chain(2, former, false)), Stray::Pass(1));
    assert_eq!(farm.stray(&chain(2, [Some(0), None, None], false)), Stray::Silent);
    assert_eq!(farm.stray(&chain(2, [Some(0), None, None], true)), Stray::Reset);
    assert_eq!(farm.stray(&chain(2, [None; 3], true)), Stray::Silent, "it has no part in it");
    farm.settings.delivery = Delivery::Multicast;
    assert_eq!(farm.stray(&chain(0, [Some(1), None, None], true)), Stray::Silent);
    assert_eq!(farm.stray(&chain(0, [None; 3], true)), Stray::Reset);
    assert_eq!(farm.stray(&chain(1, [None; 3], true)), Stray::Silent);
}

#[test]
fn nothing_is_reset_or_handed_on_while_packets_still_go_by_the_table_before() {
    let mut farm = farm(1, 3, Delivery::Directed);
    let now = Time::ZERO + TIMEOUT;
    farm.set_part(Time::ZERO, Part::Ready);
    farm.hear(now, now, said(&farm, 2, 1));
    let mut told = |sequence, (serial, owner, former), switched| {
        let stamp = Stamp { term: 5, leader: 0, serial };
        let line = Line { owner: Some(owner), former: [Some(former), None, None], died: true };
        let mut leader = said(&farm, 0, sequence);
        leader.follows = Some(Follows { lead: stamp.lead(), heard: true });
        leader.table = Some(Table { stamp, lines: vec![line; BUCKETS] });
        (leader.installed, leader.switched) = (stamp, switched);
        farm.hear(now, now, leader);
        farm.shares_set(now, farm.shares.edition);
        (farm.shares.buckets[7].owner, farm.shares.buckets[7].stray)
    };
    // Node 3 may know connections of a bucket in which another node has failed.
    assert_eq!(told(1, (2, 1, 2), 1), (Some(1), Stray::Silent), "nothing comes by it yet");
    assert_eq!(told(2, (2, 1, 2), 2), (Some(1), Stray::Pass(2)));
    assert_eq!(told(3, (3, 2, 1), 2), (Some(1), Stray::Silent), "those of node 3 still come here");
    assert_eq!(told(4, (3, 2, 1), 3), (Some(2), Stray::Reset));
    // By the table before this node was not the last: the leader may have been behind it.
    assert_eq!(told(5, (4, 0, 1), 3), (Some(0), Stray::Silent));
    assert_eq!(told(6, (4, 0, 1), 4), (Some(0), Stray::Reset));
}

#[test]
fn a_new_owner_that_would_reset_what_others_know_is_waited_for_after_a_failure_too() {
    let (mut farm, mut now, mut pulse) = two();
    farm.hear(now, now, said(&farm, 2, 1));
    let line = Line { owner: Some(2), former: [Some(0), None, None], died: true };
    farm.table.lines = vec![line; BUCKETS];
    farm.shares.buckets.iter_mut().for_each(|bucket| bucket.owner = Some(2));
    let mut next = |farm: &mut Farm, installed| {
        now = now + TIMEOUT / 4;
        (pulse.sequence, pulse.installed) = (pulse.sequence + 1, installed);
        farm.hear(now, now, pulse.clone());
    };
    let before = farm.installed;
    while farm.member(2).is_some() {
        next(&mut farm, before);
    }
    let sent = |farm: &Farm| {
        let both = farm.table.lines.iter().zip(&farm.shares.buckets);
        let to: Vec<_> = both.filter(|(line, _)| line.owner == Some(1)).collect();
        assert_eq!(to.len(), BUCKETS / 2);
        to.iter().map(|(_, bucket)| bucket.owner).collect::<BTreeSet<_>>()
    };
    assert_eq!(sent(&farm), BTreeSet::from([Some(2)]), "to the one that is lost");
    let mut told = farm.clone();
    next(&mut told, farm.table.stamp);
    assert_eq!(sent(&told), BTreeSet::from([Some(1)]));
    for _ in 0..4 {
        next(&mut farm, before);
    }
    assert_eq!(sent(&farm), BTreeSet::from([Some(1)]), "it has waited long enough");
}

#[test]
fn an_early_end_is_no_end_as_long_as_the_kernel_serves() {
    let (mut farm, now) = alone(Delivery::Directed);
    let wished = shares(&farm.set_part(now, Part::Out)).unwrap();
    assert!(!wished.serves() && !farm.is_out());
    assert_eq!(farm.pulse().part, Part::Standby);
    farm.shares_set(now, wished.edition);
    assert!(farm.is_out());
    assert_eq!(farm.pulse().part, Part::Out);
}

#[test]
fn a_new_daemon_goes_on_where_the_one_before_ended() {
    let (mut farm, now) = alone(Delivery::Directed);
    farm.hear(now, now, said(&farm, 1, 1));
    let left = farm.left();
    let mut next = Farm::new(now, farm.settings.clone(), (BootId(1), 2), Some(left));
    let wished = shares(&next.set_part(now, Part::Ready)).unwrap();
    assert_eq!(wished.buckets, farm.shares().buckets);
    assert!(wished.leader && next.pulse().hears == 2);
    assert_eq!(next.pulse().table, farm.pulse().table);
}

/// A leader whose table a member shares, which is one more: node 2 serves half.
fn two() -> (Farm, Time, Pulse) {
    let (mut farm, now) = alone(Delivery::Directed);
    let mut pulse = said(&farm, 1, 1);
    for _ in 0..4 {
        let lead = farm.table.stamp.lead();
        pulse.follows = Some(Follows { lead, heard: true });
        (pulse.sequence, pulse.installed) = (pulse.sequence + 1, farm.table.stamp);
        if let Some(wished) = shares(&farm.hear(now, now, pulse.clone())) {
            farm.shares_set(now, wished.edition);
        }
    }
    assert_eq!((farm.count(), farm.table.count(1)), (BUCKETS / 2, BUCKETS / 2));
    (farm, now, pulse)
}

/// Lets time pass in steps as short as a node takes them.
fn pass(farm: &mut Farm, from: Time, time: Duration) -> (Time, Vec<Wish>) {
    let step = TIMEOUT / 4;
    let mut wishes = Vec::new();
    let mut now = from;
    while now < from + time {
        now = now + step;
        wishes.extend(farm.tick(now));
    }
    (now, wishes)
}

/// The others missed this node, and went on under a leader of their own.
fn missed(farm: &Farm, before: &Pulse) -> Pulse {
    let term = farm.term + 1;
    let stamp = Stamp { term, leader: 1, serial: 1 };
    let mut table = Table::empty(stamp);
    balance(&mut table.lines, &BTreeMap::from([(1, 1)]));
    Pulse {
        sequence: before.sequence + 1,
        hears: 0b110,
        follows: Some(Follows { lead: stamp.lead(), heard: true }),
        term,
        installed: stamp,
        switched: 1,
        table: Some(table),
        ..before.clone()
    }
}

#[test]
fn a_node_that_stood_still_does_not_lead_against_those_who_missed_it() {
    let (mut farm, now, before) = two();
    let later = now + 20 * TIMEOUT;
    let mut pulse = missed(&farm, &before);
    let lead = pulse.leads().unwrap();
    let wishes = farm.hear(later, later, pulse.clone());
    let told: Vec<&Wish> = wishes.iter().filter(|wish| matches!(wish, Wish::Tell(_))).collect();
    let leader = names(3)[1].clone();
    let healed = Told::Healed { other: leader.clone(), leader: leader.clone() };
    assert_eq!(told, [&Wish::Tell(healed)], "it follows, and misses nobody");
    assert_eq!((farm.leader(), farm.count(), farm.term), (Some(1), 0, lead.term));
    // It is heard again, and goes on like that.
    (pulse.sequence, pulse.hears) = (pulse.sequence + 1, u32::MAX);
    farm.hear(later, later, pulse.clone());
    assert_eq!(farm.leader(), Some(1));
    // If it is not heard, it is left out after a timeout: it serves nobody, and does not lead.
    (pulse.sequence, pulse.hears) = (pulse.sequence + 1, 0b110);
    let (now, wishes) = unheard(&mut farm, later, &mut pulse);
    assert!(wishes.contains(&Wish::Tell(Told::Lost(leader.clone()))));
    let (now, wishes) = unheard(&mut farm, now, &mut pulse);
    assert!(wishes.contains(&Wish::Tell(Told::Estranged(leader))));
    assert_eq!((farm.count(), farm.term), (0, lead.term));
    // One that hears nobody at all may be deaf itself: then this node serves.
    pulse.hears = 0;
    unheard(&mut farm, now, &mut pulse);
    assert!(matches!(farm.standing, Standing::Leads { .. }));
}

/// A node goes on saying the same, for a timeout and a little more.
fn unheard(farm: &mut Farm, from: Time, pulse: &mut Pulse) -> (Time, Vec<Wish>) {
    let (mut now, mut wishes) = (from, Vec::new());
    while now < from + TIMEOUT + TIMEOUT / 4 {
        now = now + TIMEOUT / 8;
        pulse.sequence += 1;
        wishes.extend(farm.hear(now, now, pulse.clone()));
    }
    (now, wishes)
}

#[test]
fn a_node_that_stood_still_waits_for_a_daemon_that_is_away() {
    let (mut farm, now, before) = two();
    let later = now + 20 * TIMEOUT;
    let mut pulse = missed(&farm, &before);
    pulse.away = true;
    farm.hear(later, later, pulse);
    let (now, _) = pass(&mut farm, later, pulse::AWAY - TIMEOUT);
    assert_eq!(
        (farm.leader(), farm.count()),
        (Some(1), 0),
        "the kernel serves, and its word is old"
    );
    pass(&mut farm, now, 2 * TIMEOUT);
    assert_eq!((farm.leader(), farm.count()), (Some(0), BUCKETS));
}

#[test]
fn a_node_whose_daemon_ends_is_there_until_it_should_be_back() {
    let (mut farm, now, mut pulse) = two();
    (pulse.sequence, pulse.away) = (pulse.sequence + 1, true);
    farm.hear(now, now, pulse);
    let (now, wishes) = pass(&mut farm, now, pulse::AWAY - TIMEOUT);
    assert_eq!((shares(&wishes), farm.table.count(1)), (None, BUCKETS / 2));
    assert!(farm.is_member(1));
    let (_, wishes) = pass(&mut farm, now, 2 * TIMEOUT);
    assert!(wishes.contains(&Wish::Tell(Told::Lost(names(3)[1].clone()))));
    assert_eq!((farm.count(), farm.table.count(1)), (BUCKETS, 0));
}

#[test]
fn a_node_whose_daemon_is_away_is_neither_waited_for_nor_given_anything() {
    let (mut farm, now, mut pulse) = two();
    (pulse.sequence, pulse.away) = (pulse.sequence + 1, true);
    let stamp = farm.table.stamp;
    farm.hear(now, now, pulse.clone());
    let mut third = said(&farm, 2, 1);
    third.follows = Some(Follows { lead: stamp.lead(), heard: true });
    third.installed = stamp;
    farm.hear(now, now, third.clone());
    assert_eq!(farm.table.stamp, stamp, "who comes waits until it is back");
    // The leader itself leaves: its clients go to the third alone.
    farm.set_part(now, Part::Draining);
    assert_eq!((farm.table.count(0), farm.table.count(1)), (0, BUCKETS / 2));
    (third.sequence, third.installed) = (2, farm.table.stamp);
    let wished = shares(&farm.hear(now, now, third)).unwrap();
    farm.shares_set(now, wished.edition);
    assert_eq!(farm.pulse().heir, Some(2), "it leads on without the other's word");
}

#[test]
fn what_a_daemon_that_is_away_said_of_a_leader_makes_nobody_estranged() {
    let mut farm = farm(0, 3, Delivery::Directed);
    let now = Time::ZERO + TIMEOUT;
    farm.set_part(Time::ZERO, Part::Ready);
    let lead = Lead { term: 5, seat: 2 };
    let follows = Some(Follows { lead, heard: true });
    farm.hear(now, now, Pulse { follows, term: 5, away: true, ..said(&farm, 1, 1) });
    pass(&mut farm, now, 3 * TIMEOUT);
    assert!(farm.is_leader() && !farm.is_estranged());
}

#[test]
fn with_multicast_nobody_takes_what_a_kernel_may_serve_whose_daemon_is_away() {
    let take = |installed: Stamp, former: Seat| {
        let mut farm = farm(1, 4, Delivery::Multicast);
        let now = Time::ZERO + TIMEOUT;
        farm.set_part(Time::ZERO, Part::Ready);
        let stamp = Stamp { term: 5, leader: 0, serial: 3 };
        let follows = Some(Follows { lead: stamp.lead(), heard: true });
        let away = Pulse { away: true, installed, follows, ..said(&farm, 2, 1) };
        farm.hear(now, now, away);
        let line = Line { owner: Some(1), former: [Some(former), None, None], died: false };
        let table = Some(Table { stamp, lines: vec![line; BUCKETS] });
        let leader = Pulse { installed: stamp, follows, table, ..said(&farm, 0, 1) };
        farm.hear(now, now, leader);
        farm.count()
    };
    let stamp = |term, leader, serial| Stamp { term, leader, serial };
    assert_eq!(take(stamp(5, 0, 2), 3), BUCKETS, "it never had them");
    assert_eq!(take(stamp(5, 0, 2), 2), 0, "it may have them still");
    assert_eq!(take(stamp(5, 0, 3), 2), BUCKETS, "it has said that it has let go");
    assert_eq!(take(stamp(4, 3, 9), 3), 0, "by the table of another leader");
}

#[test]
fn with_multicast_nobody_takes_what_the_leader_gives_without_knowing_who_has_it() {
    let mut farm = farm(1, 4, Delivery::Multicast);
    let now = Time::ZERO + TIMEOUT;
    farm.set_part(Time::ZERO, Part::Ready);
    let stamp = |serial| Stamp { term: 5, leader: 0, serial };
    let follows = Some(Follows { lead: stamp(2).lead(), heard: true });
    let table = |serial, owner| {
        let line = Line { owner: Some(owner), ..Line::default() };
        Some(Table { stamp: stamp(serial), lines: vec![line; BUCKETS] })
    };
    let (table, later) = (table(2, 2), table(3, 1));
    let mut leader = Pulse { installed: stamp(2), follows, table, ..said(&farm, 0, 1) };
    let mut ends = Pulse { installed: stamp(2), follows, ..said(&farm, 2, 1) };
    farm.hear(now, now, ends.clone());
    let wished = shares(&farm.hear(now, now, leader.clone())).unwrap();
    farm.shares_set(now, wished.edition);
    // The leader has missed that the other's daemon ends, and takes the node for lost.
    (leader.sequence, leader.installed, leader.table) = (2, stamp(3), later);
    farm.hear(now, now, leader);
    (ends.sequence, ends.away) = (2, true);
    farm.hear(now, now, ends.clone());
    assert_eq!((farm.table.count(1), farm.count()), (BUCKETS, 0), "the kernel may have them");
    let mut leaves = farm.clone();
    leaves.set_part(now, Part::Out);
    assert_eq!((farm.left().late.len(), leaves.left().late.len()), (BUCKETS, 0));
    (ends.incarnation, ends.away, ends.installed) = (2, false, stamp(3));
    farm.hear(now, now, ends);
    assert_eq!(farm.count(), BUCKETS);
}

#[test]
fn with_multicast_who_has_let_go_once_is_not_waited_for_again() {
    let mut farm = farm(1, 4, Delivery::Multicast);
    let now = Time::ZERO + TIMEOUT;
    farm.set_part(Time::ZERO, Part::Ready);
    let stamp = |serial| Stamp { term: 5, leader: 0, serial };
    let follows = Some(Follows { lead: stamp(1).lead(), heard: true });
    // The second node's application fails, and its clients go to the leader; later to this node.
    for (serial, owner) in [(2, 2), (3, 0), (4, 1)] {
        let line = Line { owner: Some(owner), ..Line::default() };
        let table = Some(Table { stamp: stamp(serial), lines: vec![line; BUCKETS] });
        let away = serial == 4;
        let known = stamp(if away { 3 } else { serial });
        let other = Pulse { away, installed: known, follows, ..said(&farm, 2, serial) };
        let leader = Pulse { installed: stamp(serial), follows, table, ..said(&farm, 0, serial) };
        let wished = shares(&farm.hear(now, now, leader));
        wished.into_iter().for_each(|wished| drop(farm.shares_set(now, wished.edition)));
        farm.hear(now, now, other);
    }
    assert_eq!(farm.count(), BUCKETS, "it has said that it has none of them");
}

#[test]
fn with_multicast_a_daemon_that_goes_on_takes_what_it_is_given_once_it_hears_whom_the_leader_hears()
{
    let stamp = |serial| Stamp { term: 5, leader: 0, serial };
    let follows = Some(Follows { lead: stamp(1).lead(), heard: true });
    let mut lines = vec![Line { owner: Some(1), ..Line::default() }; BUCKETS];
    lines[0] = Line { owner: Some(0), ..Line::default() };
    let table = Table { stamp: stamp(2), lines };
    let mut before = farm(1, 4, Delivery::Multicast);
    before.table = table.clone();
    let left = Left { hears: 0b1101, ..before.left() };
    let mut farm = Farm::new(Time::ZERO, before.settings, (BootId(1), 2), Some(left));
    farm.set_part(Time::ZERO, Part::Ready);
    let mut given = table;
    given.stamp = stamp(3);
    given.lines[0] = Line { owner: Some(1), former: [Some(0), None, None], died: false };
    let now = Time::from_millis(1);
    // The leader hears the second node, and has lost the third.
    let mut leader = said(&farm, 0, 1);
    (leader.hears, leader.follows, leader.installed) = (0b0110, follows, stamp(3));
    leader.table = Some(given);
    let wished = shares(&farm.hear(now, now, leader)).unwrap();
    farm.shares_set(now, wished.edition);
    let owner = |farm: &Farm| farm.shares.buckets[0].owner;
    assert_eq!(owner(&farm), None, "the second may go by another table");
    let other = Pulse { installed: stamp(3), follows, ..said(&farm, 2, 1) };
    farm.hear(now, now, other);
    assert_eq!((owner(&farm), farm.now < farm.listening), (Some(1), true));
}

#[test]
fn a_daemon_that_goes_on_waits_until_all_whom_the_one_before_heard_are_there() {
    let (farm, now, mut pulse) = two();
    let start = || {
        let mut next = Farm::new(now, farm.settings.clone(), (BootId(1), 2), Some(farm.left()));
        let wished = shares(&next.set_part(now, Part::Ready)).unwrap();
        next.shares_set(now, wished.edition);
        next
    };
    let mut next = start();
    let (later, _) = pass(&mut next, now, RESUMES - TIMEOUT);
    assert_eq!(next.table, farm.table, "it may be that the others start anew as well");
    pass(&mut next, later, 2 * TIMEOUT);
    assert_eq!(next.table.count(1), 0);
    // The one that is there is told of a loss at once.
    let mut next = start();
    pulse.sequence += 1;
    next.hear(now, now, pulse);
    pass(&mut next, now, 2 * TIMEOUT);
    assert_eq!(next.table.count(1), 0);
}

#[test]
fn a_leader_that_forgot_its_last_tables_draws_up_a_later_one() {
    let (farm, now, mut pulse) = two();
    let mut next = Farm::new(now, farm.settings.clone(), (BootId(1), 2), Some(farm.left()));
    next.set_part(now, Part::Ready);
    pulse.sequence += 1;
    pulse.installed.serial += 5;
    let serial = pulse.installed.serial;
    next.hear(now, now, pulse);
    assert_eq!(next.table.stamp.serial, serial + 1);
    assert_eq!(next.table.lines, farm.table.lines);
}

#[test]
fn what_was_left_by_another_list_of_nodes_is_cleared_away() {
    let (farm, now, _) = two();
    let settings = Settings { nodes: names(2), ..farm.settings.clone() };
    let left = farm.left();
    let edition = left.shares.edition;
    let mut next = Farm::new(now, settings, (BootId(1), 2), Some(left));
    let wished = shares(&next.set_part(now, Part::Ready)).unwrap();
    assert!(!wished.serves() && wished.edition > edition);
    assert_eq!((next.count(), next.pulse().hears), (0, 0));
}

#[test]
fn who_stands_by_without_clients_is_not_waited_for() {
    let (mut farm, now, pulse) = two();
    let lead = farm.table.stamp.lead();
    let follows = Some(Follows { lead, heard: true });
    // The kernel of the third takes no table at all.
    farm.hear(now, now, Pulse { part: Part::Standby, follows, ..said(&farm, 2, 1) });
    let drains = Pulse { part: Part::Draining, sequence: pulse.sequence + 1, ..pulse };
    let wished = shares(&farm.hear(now, now, drains.clone())).unwrap();
    farm.shares_set(now, wished.edition);
    assert_eq!(farm.count(), BUCKETS);
    let (part, sequence) = (Part::Ready, drains.sequence + 1);
    farm.hear(now, now, Pulse { part, sequence, installed: farm.table.stamp, ..drains });
    assert_eq!(farm.table.count(1), BUCKETS / 2, "it gets its share again");
}

/// Has the second node of `two` come back after it was silent, with a share as soon as it may.
fn returns(farm: &mut Farm, now: Time, pulse: &mut Pulse) -> Time {
    let (now, _) = pass(farm, now, TIMEOUT);
    assert!(!farm.is_member(1));
    stays(farm, now, pulse)
}

fn stays(farm: &mut Farm, now: Time, pulse: &mut Pulse) -> Time {
    for _ in 0..4 {
        (pulse.sequence, pulse.installed) = (pulse.sequence + 1, farm.table.stamp);
        if let Some(wished) = shares(&farm.hear(now, now, pulse.clone())) {
            farm.shares_set(now, wished.edition);
        }
    }
    now
}

#[test]
fn a_node_that_comes_and_goes_has_no_clients_until_it_stays() {
    let (mut farm, mut now, mut pulse) = two();
    for shares in [BUCKETS / 2, 0, 0] {
        now = returns(&mut farm, now, &mut pulse);
        assert_eq!(farm.table.count(1), shares);
    }
    assert_eq!(farm.held(), names(3)[1..2]);
    let until = farm.peers[1].held_until().unwrap();
    assert_eq!(until.since(now), STEADY * 2, "it was lost three times");
    while now < until {
        assert_eq!(farm.table.count(1), 0);
        now = now + TIMEOUT / 4;
        stays(&mut farm, now, &mut pulse);
    }
    assert_eq!((farm.table.count(1), farm.held()), (BUCKETS / 2, Vec::new()));
    // What is long ago does not count.
    while now < until + UNSTEADY {
        now = now + TIMEOUT / 4;
        stays(&mut farm, now, &mut pulse);
    }
    returns(&mut farm, now, &mut pulse);
    assert_eq!(farm.table.count(1), BUCKETS / 2);
}

#[test]
fn what_counts_is_how_long_a_node_has_stayed_and_not_how_long_it_was_away() {
    let (mut farm, mut now, mut pulse) = two();
    for shares in [BUCKETS / 2, 0, 0, 0] {
        // It boots for longer than any node is held.
        (now, _) = pass(&mut farm, now, STEADY * (STEADY_MAX + 1));
        now = returns(&mut farm, now, &mut pulse);
        assert_eq!(farm.table.count(1), shares);
    }
    let until = now + STEADY * STEADY_MAX;
    // Nor does it begin anew for one that leaves with a word.
    pulse.sequence += 1;
    farm.hear(now, now, Pulse { part: Part::Out, ..pulse.clone() });
    while now < until {
        assert_eq!(farm.table.count(1), 0);
        now = now + TIMEOUT / 4;
        stays(&mut farm, now, &mut pulse);
    }
    assert_eq!(farm.table.count(1), BUCKETS / 2);
}

#[test]
fn what_counts_is_since_when_a_node_could_serve_and_not_since_when_it_is_back() {
    let (mut farm, mut now, mut pulse) = two();
    for shares in [BUCKETS / 2, 0, 0] {
        // Its application takes longer to start than any node is held.
        pulse.part = Part::Standby;
        now = returns(&mut farm, now, &mut pulse);
        let ready = now + UNSTEADY * 2;
        while now < ready {
            now = now + TIMEOUT / 4;
            stays(&mut farm, now, &mut pulse);
        }
        pulse.part = Part::Ready;
        stays(&mut farm, now, &mut pulse);
        assert_eq!(farm.table.count(1), shares);
    }
}

#[test]
fn a_node_that_comes_and_goes_serves_where_nobody_else_can() {
    let (mut farm, mut now, mut pulse) = two();
    for _ in 0..3 {
        now = returns(&mut farm, now, &mut pulse);
    }
    farm.set_part(now, Part::Standby);
    stays(&mut farm, now, &mut pulse);
    assert_eq!(farm.table.count(1), BUCKETS);
}

#[test]
fn a_node_that_says_that_it_leaves_may_come_back_as_often_as_it_likes() {
    let (mut farm, mut now, mut pulse) = two();
    for _ in 0..4 {
        pulse.sequence += 1;
        farm.hear(now, now, Pulse { part: Part::Out, ..pulse.clone() });
        now = returns(&mut farm, now, &mut pulse);
        assert_eq!(farm.table.count(1), BUCKETS / 2);
    }
}
