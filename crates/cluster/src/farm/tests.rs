//! Single steps of a farm, as far as the random plans of `sim` would not name what broke.

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
