//! What is sent when, and what of what comes is heard.

use std::sync::mpsc::channel;

use super::*;

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn farm() -> (Pulses, ModuleName) {
    let places = Arc::new(Places::new(BTreeMap::new(), channel().0));
    let module = ModuleName::new("web").unwrap();
    let farm = Farm {
        own: name("node1"),
        nodes: ["node1", "node2", "node3"].map(name).to_vec(),
        pace: Duration::from_millis(50),
        places,
        said: Mutex::default(),
        heard: Mutex::default(),
    };
    let farms = BTreeMap::from([(module.clone(), farm)]);
    (Pulses { farms, ..Pulses::default() }, module)
}

/// What a node says of a farm, for tests.
pub(crate) fn said(part: Part) -> Pulse {
    Pulse {
        from: 0,
        roster: 1,
        boot: BootId(1),
        incarnation: 1,
        sequence: 0,
        part,
        away: false,
        weight: 100,
        hears: 0,
        follows: None,
        term: 0,
        installed: cluster::farm::Stamp::default(),
        switched: 0,
        heir: None,
        table: None,
        place: Vec::new(),
    }
}

#[test]
fn a_pulse_is_sent_at_once_and_at_its_pace_to_all_others() {
    let (pulses, module) = farm();
    assert_eq!(pulses.take_due(Time::from_millis(1000)), (Vec::new(), None));
    pulses.say(&module, said(Part::Ready));
    let (due, next) = pulses.take_due(Time::from_millis(1000));
    assert_eq!(next, Some(Time::from_millis(1050)));
    let [(_, others, first)] = &due[..] else { panic!("{due:?}") };
    assert_eq!(others, &["node2", "node3"].map(name));
    assert!(pulses.take_due(Time::from_millis(1049)).0.is_empty());
    let (due, _) = pulses.take_due(Time::from_millis(1050));
    let numbers =
        [first, &due[0].2].map(|bytes| wire::pulse::take_pulse(bytes).unwrap().1.sequence);
    assert!(numbers[0] < numbers[1]);
}

#[test]
fn a_node_that_is_out_says_so_a_few_times_and_falls_silent() {
    let (pulses, module) = farm();
    pulses.say(&module, said(Part::Out));
    let sent =
        (0..100).filter(|round| !pulses.take_due(Time::from_millis(round * 50)).0.is_empty());
    assert_eq!(sent.count(), FAREWELLS as usize);
    pulses.say(&module, said(Part::Ready));
    assert_eq!(pulses.take_due(Time::from_millis(10_000)).0.len(), 1);
}

#[test]
fn each_pulse_is_heard_once_and_as_its_senders() {
    let (pulses, module) = farm();
    let hear = |peer: &str, from: u8, number: (u64, u64)| {
        let (incarnation, sequence) = number;
        let pulse = Pulse { from, incarnation, sequence, ..said(Part::Ready) };
        match pulses.hear(Time::ZERO, &name(peer), module.clone(), Box::new(pulse)) {
            Some(Input::Pulse { pulse, .. }) => Some(pulse.from),
            _ => None,
        }
    };
    assert_eq!(hear("node3", 2, (1, 5)), Some(2));
    assert_eq!(hear("node3", 2, (1, 5)), None, "by another network");
    assert_eq!(hear("node3", 2, (1, 4)), None, "an older one");
    assert_eq!(hear("node2", 1, (1, 5)), Some(1));
    assert_eq!(hear("node3", 1, (1, 6)), Some(2), "nobody speaks for another");
    assert_eq!(hear("node3", 2, (2, 1)), Some(2), "a daemon that was started anew");
    assert_eq!(hear("node3", 2, (1, 9)), None, "one from before that");
    assert_eq!(hear("node9", 2, (3, 1)), None, "no node of the farm");
}

#[test]
fn a_daemon_that_ends_says_so_for_what_goes_on_in_the_kernel() {
    let (pulses, module) = farm();
    assert!(pulses.end().is_empty(), "nothing was said yet");
    pulses.say(&module, said(Part::Ready));
    pulses.take_due(Time::from_millis(1000));
    let away = |due: &[Due]| {
        let [(_, others, bytes)] = due else { panic!("{due:?}") };
        assert_eq!(others, &["node2", "node3"].map(name));
        wire::pulse::take_pulse(bytes).unwrap().1.away
    };
    pulses.hurry();
    assert!(!away(&pulses.take_due(Time::from_millis(1001)).0));
    assert!(away(&pulses.end()));
    assert!(away(&pulses.take_due(Time::from_millis(1051)).0), "nor anything else from then on");
    pulses.say(&module, said(Part::Out));
    assert!(pulses.end().is_empty(), "one that is out leaves nothing");
}
