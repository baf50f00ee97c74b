//! Tests of `watchdog`: what is ordered and heard, and what becomes of the device.

#![allow(clippy::unwrap_used, reason = "a test says what it needs and stops")]

use crate::effect::Serve;
use crate::input::ScriptError;
use model::config::{Ack, Compression, InUse, ReplicationConfig};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn shop() -> ModuleName {
    ModuleName::new("shop").unwrap()
}

fn at(seconds: u32) -> Time {
    Time::ZERO + SECOND * seconds
}

fn assign(serial: u64, assignment: Assignment) -> Effect {
    Effect::Assign { module: shop(), serial, assignment }
}

fn serve() -> Assignment {
    Assignment::Serve(Serve {
        epoch: model::EpochId(1),
        role_term: 1,
        required: std::collections::BTreeSet::new(),
        session: None,
        replication: ReplicationConfig {
            ack: Ack::Write,
            stall_timeout: SECOND,
            resync_rate: None,
            compression: Compression::None,
            encrypt: true,
            in_use: InUse::Refuse,
            exclude: Vec::new(),
        },
    })
}

fn addresses(held: bool) -> Effect {
    Effect::SetAddresses { module: shop(), held }
}

fn service(action: ServiceAction) -> Effect {
    Effect::RunService { module: shop(), action }
}

fn dropped(error: Option<&str>) -> Input {
    Input::AddressesSet { module: shop(), held: false, error: error.map(str::to_owned) }
}

fn done(action: ServiceAction, error: Option<&str>) -> Input {
    let error = error.map(|how| ScriptError { how: how.to_owned(), said: Vec::new() });
    Input::ServiceDone { module: shop(), action, error }
}

fn assigned(serial: u64) -> Input {
    let event = ReplicatorEvent::Assigned { serial, number: 0, drained: false };
    Input::Replicator { module: shop(), event }
}

/// A node that serves since the first second.
fn serving() -> Policy {
    let mut policy = Policy::default();
    policy.order(at(1), &assign(1, serve()));
    policy.order(at(1), &addresses(true));
    policy.order(at(1), &service(ServiceAction::Start));
    policy.hear(&assigned(1));
    assert_eq!(policy.verdict(at(1000)), Verdict::Feed);
    policy
}

fn starves(policy: &Policy, now: Time, word: &str) -> bool {
    matches!(policy.verdict(now), Verdict::Starve(why) if why.contains(word))
}

#[test]
fn a_node_that_stops_in_order_is_watched_until_nothing_is_left() {
    let mut policy = serving();
    policy.order(at(2), &addresses(false));
    policy.hear(&dropped(None));
    // However long the application and what is still to be replicated take.
    policy.order(at(2), &service(ServiceAction::Stop));
    assert_eq!(policy.verdict(at(500)), Verdict::Feed);
    policy.hear(&done(ServiceAction::Stop, Some("exit status: 1")));
    policy.order(at(500), &assign(2, Assignment::Hold { ending: Ending::Drain }));
    policy.hear(&assigned(1));
    assert_eq!(policy.verdict(at(1000)), Verdict::Feed);
    policy.hear(&assigned(2));
    assert_eq!(policy.verdict(at(1000)), Verdict::Idle);
}

#[test]
fn a_loser_that_lets_go_in_time_is_not_reset() {
    let mut policy = serving();
    policy.order(at(2), &assign(2, Assignment::Hold { ending: Ending::Cut }));
    policy.order(at(2), &addresses(false));
    policy.order(at(2), &service(ServiceAction::Kill));
    assert_eq!(policy.verdict(at(12)), Verdict::Feed);
    policy.hear(&assigned(2));
    policy.hear(&dropped(None));
    policy.hear(&done(ServiceAction::Kill, None));
    assert_eq!(policy.verdict(at(100)), Verdict::Idle);
}

#[test]
fn a_loser_that_does_not_let_go_in_time_is_reset() {
    for (effect, word) in [
        (assign(2, Assignment::Hold { ending: Ending::Cut }), "directories"),
        (addresses(false), "address"),
        (service(ServiceAction::Kill), "application"),
    ] {
        let mut policy = serving();
        policy.order(at(2), &effect);
        // Asked again: that gives it no more time.
        policy.order(at(9), &effect);
        assert_eq!(policy.verdict(at(12)), Verdict::Feed);
        assert!(starves(&policy, at(13), word), "{effect:?}");
    }
}

#[test]
fn what_could_not_be_let_go_starves_the_device_until_it_could() {
    let mut policy = serving();
    policy.order(at(2), &addresses(false));
    policy.hear(&dropped(Some("no such device")));
    assert!(starves(&policy, at(2), "no such device"));
    policy.order(at(7), &addresses(false));
    assert!(starves(&policy, at(7), "no such device"));
    policy.hear(&dropped(None));
    assert_eq!(policy.verdict(at(7)), Verdict::Feed);

    policy.order(at(8), &service(ServiceAction::Kill));
    policy.hear(&done(ServiceAction::Kill, Some("systemctl kill: timed out")));
    assert!(starves(&policy, at(8), "timed out"));
}

#[test]
fn what_an_earlier_daemon_was_to_end_and_runs_still_is_to_end_in_time() {
    let begin = || {
        let mut policy = Policy::of(&[]);
        policy.left(at(1), &shop());
        assert_eq!(policy.verdict(at(11)), Verdict::Feed);
        policy
    };
    assert!(starves(&begin(), at(12), "application"));
    let mut policy = begin();
    policy.order(at(1), &service(ServiceAction::Kill));
    policy.hear(&done(ServiceAction::Kill, Some("it cannot be killed")));
    assert!(starves(&policy, at(2), "cannot be killed"));
    // It is killed again until it has ended.
    policy.hear(&done(ServiceAction::Kill, None));
    assert_eq!(policy.verdict(at(100)), Verdict::Idle);
}

#[test]
fn a_node_that_has_nothing_cannot_have_failed_to_let_it_go() {
    let mut policy = Policy::default();
    policy.order(at(1), &addresses(false));
    policy.hear(&dropped(Some("no such device")));
    policy.order(at(1), &service(ServiceAction::Kill));
    policy.hear(&done(ServiceAction::Kill, Some("systemctl kill: timed out")));
    assert_eq!(policy.verdict(at(100)), Verdict::Idle);
}

#[test]
fn an_answer_to_an_earlier_order_changes_nothing() {
    let mut policy = serving();
    policy.order(at(2), &addresses(false));
    policy.order(at(2), &addresses(true));
    policy.hear(&dropped(Some("it was taken again")));
    policy.order(at(2), &service(ServiceAction::Stop));
    policy.order(at(3), &service(ServiceAction::Kill));
    policy.hear(&done(ServiceAction::Stop, None));
    assert!(starves(&policy, at(100), "application"), "the kill has not been answered");
}

#[test]
fn a_secondary_is_not_watched_and_one_that_lost_its_replicator_neither() {
    let mut policy = Policy::default();
    policy.order(at(1), &assign(1, Assignment::Hold { ending: Ending::Cut }));
    policy.order(at(1), &addresses(false));
    policy.order(at(1), &service(ServiceAction::Kill));
    assert_eq!(policy.verdict(at(100)), Verdict::Idle);

    policy.order(at(100), &assign(2, serve()));
    policy.order(at(101), &assign(3, Assignment::Hold { ending: Ending::Cut }));
    let event = ReplicatorEvent::Died { how: "killed".to_owned() };
    policy.hear(&Input::Replicator { module: shop(), event: event.clone() });
    assert_eq!(policy.verdict(at(200)), Verdict::Idle);

    // The next one is refused, such as where the disk is gone: it holds nothing.
    policy.order(at(200), &assign(4, serve()));
    policy.hear(&Input::Replicator { module: shop(), event });
    policy.order(at(201), &assign(5, Assignment::Hold { ending: Ending::Cut }));
    assert_eq!(policy.verdict(at(300)), Verdict::Idle);
}

fn stand(open: bool, fed: Time) -> Stand {
    let open = open.then_some(Open { timeout: 10 * SECOND, fed });
    Stand { open, stops: true, runs: open.is_some(), tried: None, failed: false }
}

#[test]
fn the_device_is_fed_often_enough_and_stopped_when_nothing_depends_on_it() {
    let open = stand(true, at(10));
    let act = |now: Time, verdict: Verdict| act(now, &verdict, open);
    assert_eq!(act(at(10), Verdict::Feed), Act::Nothing);
    assert_eq!(act(at(11), Verdict::Feed), Act::Feed);
    assert_eq!(act(at(11), Verdict::Idle), Act::Stop);
    assert_eq!(act(at(11), Verdict::Starve(String::new())), Act::Nothing);
    for timeout in [2, 5, 120] {
        assert!(feed_every(SECOND * timeout) * FEEDS <= SECOND * timeout);
    }
}

#[test]
fn a_device_that_nothing_stops_is_fed_whatever_the_node_does() {
    let open = Stand { stops: false, ..stand(true, at(10)) };
    assert_eq!(act(at(11), &Verdict::Idle, open), Act::Feed);
    let left = Stand { runs: true, stops: false, ..stand(false, at(10)) };
    assert_eq!(act(at(11), &Verdict::Idle, left), Act::Open);
    // One that stops when it is told, and was left by a feed that failed, is opened for that.
    let failed = Stand { stops: true, tried: Some(at(10)), ..left };
    assert_eq!(act(at(11), &Verdict::Idle, failed), Act::Probe);
    assert_eq!(act(at(11), &Verdict::Feed, failed), Act::Open);
    assert_eq!(act(at(10), &Verdict::Feed, failed), Act::Nothing);
    // One that nobody has started is left alone.
    let never = Stand { runs: false, ..left };
    assert_eq!(act(at(11), &Verdict::Idle, never), Act::Nothing);
}

#[test]
fn a_device_is_opened_when_it_is_needed_and_looked_at_when_not() {
    let fresh = stand(false, at(0));
    assert_eq!(act(at(1), &Verdict::Idle, fresh), Act::Probe);
    assert_eq!(act(at(1), &Verdict::Feed, fresh), Act::Open);
    assert_eq!(act(at(1), &Verdict::Starve(String::new()), fresh), Act::Nothing);
    let good = Stand { tried: Some(at(1)), ..fresh };
    assert_eq!(act(at(1000), &Verdict::Idle, good), Act::Nothing);
    let failed = Stand { failed: true, ..good };
    assert_eq!(act(at(60), &Verdict::Idle, failed), Act::Nothing);
    assert_eq!(act(at(61), &Verdict::Idle, failed), Act::Probe);
    assert_eq!(act(at(5), &Verdict::Feed, failed), Act::Nothing);
    assert_eq!(act(at(6), &Verdict::Feed, failed), Act::Open);
}
