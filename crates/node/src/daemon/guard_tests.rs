//! Two guards that speak with each other while somebody in between records and repeats.

use std::path::PathBuf;

use model::BootId;

use super::*;
use crate::daemon::farms::pulses::tests::said;
use crate::keys::tests::Site;

struct Pair {
    cluster: ModuleName,
    nodes: [NodeName; 2],
    keys: [Keys; 2],
    _site: Site,
}

impl Pair {
    fn new() -> Pair {
        let site = Site::new("guard");
        let nodes = ["node1", "node2"].map(|name| NodeName::new(name).unwrap());
        let keys = ["node1", "node2"].map(|name| site.keys(name));
        Pair { cluster: ModuleName::new("demo").unwrap(), nodes, keys, _site: site }
    }

    fn guard(&self, index: usize) -> Guard {
        Guard::new(self.keys[index].clone(), &self.cluster, &self.nodes[index])
    }

    fn heartbeat(&self, index: usize) -> Heartbeat {
        Heartbeat {
            from: self.nodes[index].clone(),
            boot: BootId(1),
            incarnation: 1,
            sequence: 1,
            echo: 0,
            echo_incarnation: 0,
            cluster_digest: 0,
            configuration: model::config::Stand::default(),
            reports: BTreeMap::new(),
        }
    }

    /// What one guard sends to the other.
    fn said(&self, from: usize, guard: &Guard) -> Vec<Vec<u8>> {
        guard.datagrams(&self.nodes[1 - from], &self.heartbeat(from))
    }

    /// How many of these datagrams of a node the other's guard lets pass.
    fn heard(&self, from: usize, by: &Guard, datagrams: &[Vec<u8>]) -> usize {
        let judged = datagrams.iter().map(|one| by.judge(NOW, &self.nodes[from], one));
        let passed = judged.filter(|passage| {
            if let Passage::Passed(guarded) = passage {
                by.met(guarded);
            }
            matches!(passage, Passage::Passed(_))
        });
        passed.count()
    }
}

const NOW: Time = Time::from_millis(1_000_000);

#[test]
fn both_are_heard_after_one_exchange_also_when_one_of_them_starts_anew() {
    let pair = Pair::new();
    let (one, mut other) = (pair.guard(0), pair.guard(1));
    for _ in 0..3 {
        let first = pair.said(0, &one);
        assert_eq!(pair.heard(0, &other, &first), 0, "it does not know this session yet");
        let answer = pair.said(1, &other);
        assert!(pair.heard(1, &one, &answer) > 0, "it answers");
        let second = pair.said(0, &one);
        assert!(pair.heard(0, &other, &second) > 0);
        other = pair.guard(1);
    }
}

#[test]
fn what_was_said_to_an_earlier_daemon_is_not_heard_by_the_next() {
    let pair = Pair::new();
    let (one, other) = (pair.guard(0), pair.guard(1));
    let mut recorded = Vec::new();
    for _ in 0..4 {
        recorded.extend(pair.said(0, &one));
        pair.heard(0, &other, &recorded);
        let answers = pair.said(1, &other);
        pair.heard(1, &one, &answers);
    }
    assert!(pair.heard(0, &other, &recorded) > 0, "the one that they were said to knows them");
    let next = pair.guard(1);
    assert_eq!(pair.heard(0, &next, &recorded), 0);
    // They are answered, which is how a peer is met, but nobody is there to answer that.
    assert_eq!(pair.said(1, &next).len(), 1);
    assert_eq!(pair.heard(0, &next, &recorded), 0);
    assert_eq!(next.turned_away().unanswered, 2 * recorded.len() as u64);
    // The node itself is met all the same.
    let answers = pair.said(1, &next);
    pair.heard(1, &one, &answers);
    let live = pair.said(0, &one);
    assert!(pair.heard(0, &next, &live) > 0);
}

#[test]
fn a_session_that_is_not_met_yet_is_answered_as_well_as_the_one_that_is() {
    let pair = Pair::new();
    let (one, other) = (pair.guard(0), pair.guard(1));
    for _ in 0..2 {
        pair.heard(0, &other, &pair.said(0, &one));
        pair.heard(1, &one, &pair.said(1, &other));
    }
    let next = pair.guard(0);
    pair.heard(1, &next, &pair.said(1, &other));
    // It knows the other's session, but it may have booted anew, or be a recorded one.
    let passed = other.judge(NOW, &pair.nodes[0], &pair.said(0, &next)[0]);
    assert!(matches!(passed, Passage::Passed(_)));
    let answers = pair.said(1, &other);
    assert_eq!(pair.heard(1, &one, &answers), 1);
    assert_eq!(pair.heard(1, &next, &answers), 1);
}

#[test]
fn a_peer_is_answered_at_once_but_not_without_end() {
    let pair = Pair::new();
    let other = pair.guard(1);
    let greetings: Vec<_> = (0..3).flat_map(|_| pair.said(0, &pair.guard(0))).collect();
    let judge = |at: &Vec<u8>, after| other.judge(NOW + after, &pair.nodes[0], at);
    assert_eq!(judge(&greetings[0], Duration::ZERO), Passage::Answer);
    assert_eq!(judge(&greetings[1], ANSWER_PAUSE / 2), Passage::Refused);
    assert_eq!(judge(&greetings[2], ANSWER_PAUSE), Passage::Answer);
}

#[test]
fn nobody_without_the_key_is_heard_and_all_of_it_is_counted() {
    let (pair, foreign) = (Pair::new(), Pair::new());
    let other = pair.guard(1);
    let plain = vec![put_heartbeat(&pair.heartbeat(0)).unwrap()];
    let theirs = pair.said(0, &foreign.guard(0));
    let ours = pair.said(0, &pair.guard(0));
    let garbage = vec![Vec::new(), vec![0; 7], vec![0xff; DATAGRAM_BYTES_MAX + 1]];
    // As if node2 itself had said it: what is sent back to a node is not its peer's.
    let reflected = pair.said(1, &other);
    for datagrams in [&plain, &theirs, &garbage, &reflected] {
        assert_eq!(pair.heard(0, &other, datagrams), 0);
    }
    other.stranger(&"10.0.0.9");
    pair.heard(0, &other, &ours);
    let expected = TurnedAway {
        strangers: 1,
        plain: 1,
        unauthentic: 5,
        unanswered: 1,
        ..TurnedAway::default()
    };
    assert_eq!(other.turned_away(), expected);
}

#[test]
fn with_a_key_of_no_use_nothing_is_sent_or_heard_until_it_is_mended() {
    let pair = Pair::new();
    let (one, other) = (pair.guard(0), pair.guard(1));
    let file = pair.keys[1].cluster_key_file();
    let good = fs::read(&file).unwrap();
    fs::write(&file, "broken").unwrap();
    other.refresh();
    assert!(pair.said(1, &other).is_empty());
    assert_eq!(other.judge(NOW, &pair.nodes[0], &pair.said(0, &one)[0]), Passage::Refused);
    fs::write(&file, good).unwrap();
    other.refresh();
    assert_eq!(other.judge(NOW, &pair.nodes[0], &pair.said(0, &one)[0]), Passage::Answer);
}

#[test]
fn a_good_key_is_kept_while_its_file_cannot_be_read() {
    let pair = Pair::new();
    let (one, other) = (pair.guard(0), pair.guard(1));
    let file = pair.keys[1].cluster_key_file();
    let good = fs::read(&file).unwrap();
    let answers = || other.judge(NOW, &pair.nodes[0], &pair.said(0, &one)[0]);
    // Reading a directory is an error of the system, as a failing disk or a lack of descriptors is.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    other.refresh();
    assert!(other.state().doubtful);
    assert_eq!(answers(), Passage::Answer);
    // A daemon that starts then has none to keep, and does not go on in the clear.
    assert!(pair.said(1, &pair.guard(1)).is_empty());
    fs::remove_dir(&file).unwrap();
    other.refresh();
    assert_eq!(answers(), Passage::Refused, "a file that is gone was taken away");
    fs::write(&file, good).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    other.refresh();
    assert!(!pair.said(1, &other).is_empty() && !other.state().doubtful);
}

#[test]
fn without_keys_heartbeats_go_in_the_clear_as_before() {
    let pair = Pair::new();
    let none = Keys::new(&PathBuf::from("/nowhere/evenkeel/keys"));
    let plain = |index: usize| Guard::new(none.clone(), &pair.cluster, &pair.nodes[index]);
    let datagrams = pair.said(0, &plain(0));
    assert_eq!(pair.heard(0, &plain(1), &datagrams), 1);
    let guarded = pair.guard(0);
    assert_eq!(pair.heard(0, &plain(1), &pair.said(0, &guarded)), 0, "one cannot be read");
    assert_eq!(pair.heard(1, &plain(1), &datagrams), 0, "it says that it is somebody else");
}

fn pulse() -> Vec<u8> {
    let pulse = cluster::farm::Pulse { sequence: 7, ..said(cluster::farm::Part::Ready) };
    wire::pulse::put_pulse(&ModuleName::new("web").unwrap(), &pulse).unwrap()
}

#[test]
fn pulses_are_heard_between_daemons_that_have_met_and_not_of_an_earlier_one() {
    let pair = Pair::new();
    let (one, other) = (pair.guard(0), pair.guard(1));
    assert_eq!(one.pulse_to(&pair.nodes[1], &pulse()), None, "it has not met the other");
    for _ in 0..2 {
        pair.heard(0, &other, &pair.said(0, &one));
        pair.heard(1, &one, &pair.said(1, &other));
    }
    let sealed = one.pulse_to(&pair.nodes[1], &pulse()).unwrap();
    let judge =
        |by: &Guard, from: usize, datagram: &[u8]| by.judge(NOW, &pair.nodes[from], datagram);
    let heard = judge(&other, 0, &sealed);
    assert!(matches!(&heard, Passage::Pulse(module, pulse)
        if module.as_str() == "web" && pulse.sequence == 7));
    assert_eq!(judge(&other, 1, &sealed), Passage::Refused, "of another sender");
    assert_eq!(judge(&other, 0, &pulse()), Passage::Refused, "in the clear");
    let mut spoiled = sealed.clone();
    *spoiled.last_mut().unwrap() ^= 1;
    assert_eq!(judge(&other, 0, &spoiled), Passage::Refused);
    assert_eq!(judge(&pair.guard(1), 0, &sealed), Passage::Refused, "said to an earlier daemon");
    let anew = pair.guard(0);
    pair.heard(0, &other, &pair.said(0, &anew));
    pair.heard(1, &anew, &pair.said(1, &other));
    pair.heard(0, &other, &pair.said(0, &anew));
    assert_eq!(judge(&other, 0, &sealed), Passage::Refused, "said by an earlier daemon");
}

/// A datagram as another version seals it.
fn of_another_version(
    pair: &Pair,
    from: usize,
    count: u64,
    (session, answers): (u128, u128),
) -> Vec<u8> {
    let mut said = wire::datagram::put_heartbeat(&pair.heartbeat(from)).unwrap();
    said[4] += 1;
    let sealed = ClusterKey::read(&pair.keys[from].cluster_key_file()).unwrap();
    let (own, to) = (&pair.nodes[from], &pair.nodes[1 - from]);
    let route = Route { cluster: &pair.cluster, from: own, to };
    sealed.seal(route, count, put_envelope(session, answers, &said).unwrap()).unwrap()
}

#[test]
fn a_peer_of_another_version_is_known_to_be_alive_once_it_answers() {
    let pair = Pair::new();
    let (from, guard) = (&pair.nodes[0], pair.guard(1));
    let first = of_another_version(&pair, 0, 1, (77, 0));
    assert_eq!(guard.judge(NOW, from, &first), Passage::Answer, "it does not know this session");
    // It learns of it from what it cannot read either.
    let datagrams = pair.said(1, &guard);
    assert_eq!(datagrams.len(), 1);
    let answer = of_another_version(&pair, 0, 2, (77, guard.session));
    assert!(matches!(guard.judge(NOW, from, &answer), Passage::Unread(_)));
    assert_eq!(guard.turned_away().other_version, 1);
    // What was said to an earlier daemon proves nothing, nor does what is not sealed.
    let next = pair.guard(1);
    assert!(!matches!(next.judge(NOW, from, &answer), Passage::Unread(_)));
    let mut plain = wire::datagram::put_heartbeat(&pair.heartbeat(0)).unwrap();
    plain[4] += 1;
    assert_eq!(next.judge(NOW, from, &plain), Passage::Refused);
}

#[test]
fn what_another_version_said_counts_once() {
    let pair = Pair::new();
    let (from, guard) = (&pair.nodes[0], pair.guard(1));
    let of = |session, count| of_another_version(&pair, 0, count, (session, guard.session));
    let counts = |datagram: &[u8]| matches!(guard.judge(NOW, from, datagram), Passage::Unread(_));
    let [first, second, third] = [1, 2, 3].map(|count| of(77, count));
    assert!(counts(&first));
    assert!(counts(&third));
    for repeated in [&first, &second, &third] {
        assert!(!counts(repeated), "recorded, or late");
    }
    assert_eq!(guard.turned_away().repeated, 3);
    // Its next daemon begins to count anew; of the one before nothing new comes.
    assert!(counts(&of(78, 1)));
    assert!(!counts(&third) && !counts(&of(78, 1)));
    // Once it could be read in between, what was recorded counts as little.
    let heartbeat = pair.heartbeat(0);
    assert!(guard.met(&Guarded { session: 79, answers: guard.session, heartbeat }));
    assert!(!counts(&third));
    assert!(counts(&of(77, 4)));
}
