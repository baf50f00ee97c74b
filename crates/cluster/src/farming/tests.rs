//! A farm module on one node, as the shell leads it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::config::{Source, parse_cluster, parse_module};
use model::{BootId, Headline, ModuleName, NodeName, Phase, Role, Time};

use crate::effect::{Effect, Outcome};
use crate::farm::{BUCKETS, Follows, Left, Part, Pulse, Shares, Stamp};
use crate::input::{Boot, BootModule, Command, DataState, Input, JobId, Running};
use crate::record::Record;
use crate::status::ModuleStatus;
use crate::{Node, effect::Assignment};

const CLUSTER: &str = "cluster = 'c'\n\
    [[node]]\nname = 'node1'\naddresses = { lan0 = '10.0.0.1' }\n\
    [[node]]\nname = 'node2'\naddresses = { lan0 = '10.0.0.2' }\n";
const MODULE: &str = "module = 'web'\nkind = 'farm'\nscripts = { start = 'true' }\n\
    check = [{ kind = 'tcp', port = 80, grace = '0s', fail_after = 1 }]\n";
const VIP: &str = "[[vip]]\naddress = '10.0.0.9/24'\n";

fn web() -> ModuleName {
    ModuleName::new("web").unwrap()
}

/// A node with a shell that does at once what it is told, and succeeds.
struct Shell {
    node: Node,
    now: Time,
    /// What the kernel does.
    kernel: Shares,
    pulse: Option<Pulse>,
    serial: u64,
    sequence: u64,
    events: Vec<String>,
    outcomes: BTreeMap<JobId, Outcome>,
    done: Vec<String>,
    /// Records cannot be written.
    full: bool,
    /// Why addresses cannot be set.
    addresses_fail: Option<&'static str>,
    /// What has come of effects, and is to be told.
    queue: VecDeque<Input>,
}

impl Shell {
    fn start(running: Option<Running>, started: bool) -> Shell {
        Self::with(&format!("{MODULE}{VIP}"), running, started)
    }

    fn with(module: &str, running: Option<Running>, started: bool) -> Shell {
        let cluster = parse_cluster(&Source { file: "cluster.toml", text: CLUSTER }).unwrap();
        let config = parse_module(&Source { file: "web.toml", text: module }, &cluster).unwrap();
        let module = BootModule {
            digest: model::config::digest(&config),
            config,
            record: Record { started, ..Record::default() },
            data: DataState::Empty,
            running,
        };
        let boot = Boot {
            name: NodeName::new("node1").unwrap(),
            boot: BootId(1),
            cluster,
            cluster_digest: 0,
            modules: vec![module],
            wall: Duration::ZERO,
            seed: 1,
        };
        let now = Time::from_millis(1000);
        let (node, effects) = Node::new(now, boot);
        let mut shell = Shell {
            node,
            now,
            kernel: Shares::none(),
            pulse: None,
            serial: 0,
            sequence: 0,
            events: Vec::new(),
            outcomes: BTreeMap::new(),
            done: Vec::new(),
            full: false,
            addresses_fail: None,
            queue: VecDeque::new(),
        };
        shell.perform(effects);
        shell.give(Input::Tick);
        shell
    }

    fn give(&mut self, input: Input) {
        self.queue.push_back(input);
        while let Some(input) = self.queue.pop_front() {
            let effects = self.node.handle(self.now, input);
            self.perform(effects);
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist { module, .. } if self.full => {
                    let error = "no space left".to_owned();
                    self.queue.push_front(Input::PersistFailed { module, error });
                    return;
                }
                Effect::SetAddresses { module, held } => {
                    self.done.push(format!("addresses {held}"));
                    let error = self.addresses_fail.map(str::to_owned);
                    self.queue.push_back(Input::AddressesSet { module, held, error });
                }
                Effect::RunService { module, action } => {
                    self.done.push(format!("{action:?}"));
                    self.queue.push_back(Input::ServiceDone { module, action, error: None });
                }
                Effect::RunChecks { serial, .. } => self.serial = serial,
                Effect::SetShares { module, shares } => {
                    let edition = shares.edition;
                    self.kernel = *shares;
                    self.queue.push_back(Input::SharesSet { module, edition, error: None });
                }
                Effect::Pulse { pulse, .. } => self.pulse = Some(*pulse),
                Effect::Explain(event) => self.events.push(event.code),
                Effect::Answer { job, outcome } => {
                    self.outcomes.insert(job, outcome);
                }
                Effect::Persist { .. }
                | Effect::Announce
                | Effect::AskWitness { .. }
                | Effect::Assign { .. }
                | Effect::HoldOff { .. }
                | Effect::PrepareResync { .. } => {}
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            let next = self.node.deadline().unwrap_or(end).max(self.now + Duration::from_millis(1));
            self.now = next.min(end);
            self.give(Input::Tick);
        }
    }

    fn command(&mut self, job: u64, command: Command) {
        self.give(Input::Operator { job: JobId(job), module: web(), command });
    }

    fn check(&mut self, up: bool) {
        let check = ModuleName::new("tcp-80").unwrap();
        let (serial, evidence) = (self.serial, vec!["refused".to_owned()]);
        self.give(Input::CheckResult { module: web(), serial, check, up, evidence });
    }

    fn status(&self) -> ModuleStatus {
        self.node.status(self.now).modules[&web()].clone()
    }

    fn part(&self) -> Part {
        self.pulse.as_ref().map_or(Part::Out, |pulse| pulse.part)
    }

    /// Another node follows this one, and has installed what it was told.
    fn other(&mut self, part: Part) {
        let pulse = self.pulse_of_other(part);
        self.give(Input::Pulse { module: web(), received: self.now, pulse, more: false });
    }

    fn pulse_of_other(&mut self, part: Part) -> Box<Pulse> {
        let table = self.pulse.as_ref().and_then(|pulse| pulse.table.as_ref());
        let installed = table.map_or(Stamp::default(), |table| table.stamp);
        let follows = table.map(|table| Follows { lead: table.stamp.lead(), heard: true });
        self.sequence += 1;
        Box::new(Pulse {
            from: 1,
            roster: self.node.farm_roster(&web()).unwrap(),
            boot: BootId(2),
            incarnation: 1,
            sequence: self.sequence,
            part,
            away: false,
            weight: 100,
            hears: 3,
            follows,
            term: installed.term,
            installed,
            switched: 0,
            heir: None,
            table: None,
            place: Vec::new(),
        })
    }

    /// The daemon that follows.
    fn next(&self) -> Shell {
        let left: Left = self.node.farm_left(&web()).unwrap();
        let running = Running {
            assignment: Assignment::Close,
            addresses: true,
            service: true,
            farm: Some(Box::new(left)),
        };
        Shell::start(Some(running), true)
    }

    /// Both nodes for so long, with a pulse each 50 milliseconds.
    fn together(&mut self, millis: u64) {
        for _ in 0..millis / 50 {
            self.other(Part::Ready);
            self.pass(50);
        }
    }
}

#[test]
fn a_node_that_is_started_takes_up_address_and_application_and_then_serves() {
    let mut shell = Shell::start(None, false);
    assert_eq!(shell.status().role, Role::Stop);
    shell.command(1, Command::Start);
    assert_eq!(shell.done, ["addresses true", "Start"]);
    assert_eq!(shell.part(), Part::Standby, "its check has not been up yet");
    shell.check(true);
    assert_eq!((shell.part(), shell.status().phase), (Part::Ready, Phase::Transient));
    assert!(shell.outcomes.is_empty(), "it serves nobody yet");
    shell.pass(250);
    let status = shell.status();
    assert_eq!((status.role, status.phase), (Role::Up, Phase::Ready));
    let farm = status.farm.unwrap();
    assert_eq!((farm.members[0].percent, farm.members[1].percent), (100, 0));
    assert!(matches!(shell.outcomes[&JobId(1)], Outcome::Done(_)));
    assert_eq!(status.headline, Headline::AtRisk);
    assert!(status.reasons.iter().any(|reason| reason.code == "farm-incomplete"));
    shell.together(300);
    let status = shell.status();
    assert_eq!(status.headline, Headline::Protected, "{:?}", status.reasons);
    assert_eq!(status.farm.unwrap().members[1].percent, 50);
}

#[test]
fn a_late_node_hears_all_pulses_that_wait_before_it_misses_anybody() {
    let mut shell = Shell::start(None, true);
    shell.check(true);
    shell.together(400);
    shell.events.clear();
    let (early, late) = (shell.pulse_of_other(Part::Ready), shell.pulse_of_other(Part::Draining));
    let (heard, at) = (shell.now, shell.now + Duration::from_millis(150));
    // It is late several times, each time by less than would be noticed, and finds two pulses.
    for millis in [70, 140] {
        shell.now = heard + Duration::from_millis(millis);
        shell.give(Input::Tick);
    }
    shell.now = heard + Duration::from_millis(210);
    shell.give(Input::Pulse { module: web(), received: heard, pulse: early, more: true });
    assert_eq!(shell.events, [""; 0], "the other one still waits");
    shell.give(Input::Pulse { module: web(), received: at, pulse: late, more: true });
    assert_eq!(shell.status().farm.unwrap().members[1].buckets, BUCKETS / 2, "not decided yet");
    shell.give(Input::Tick);
    assert_eq!(shell.events, [""; 0], "nobody was silent for too long");
    assert_eq!(shell.status().farm.unwrap().members[1].buckets, 0, "it drains");
}

#[test]
fn a_check_that_is_down_takes_the_node_out_until_it_is_up() {
    let mut shell = Shell::start(None, true);
    shell.pass(250);
    shell.check(true);
    shell.together(200);
    assert_eq!(shell.part(), Part::Ready);
    shell.check(false);
    // The shell restarts the application at once.
    assert_eq!(shell.done[2..], ["Stop", "Start"]);
    assert!(shell.events.iter().any(|code| code == "restarts"));
    assert_eq!(shell.part(), Part::Standby);
    shell.check(true);
    assert_eq!(shell.part(), Part::Ready);
    let mut shell = Shell::start(None, true);
    shell.pass(250);
    shell.check(true);
    shell.together(200);
    let effects = shell.node.handle(shell.now, {
        let check = ModuleName::new("tcp-80").unwrap();
        let (serial, evidence) = (shell.serial, Vec::new());
        Input::CheckResult { module: web(), serial, check, up: false, evidence }
    });
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Pulse { pulse, .. } => Some(pulse.part),
        _ => None,
    });
    assert_eq!(told, Some(Part::Standby));
}

#[test]
fn a_stop_drains_first_and_then_lets_go_of_everything() {
    let mut shell = Shell::start(None, true);
    shell.check(true);
    shell.together(400);
    assert_eq!(shell.status().farm.unwrap().members[0].buckets, BUCKETS / 2);
    shell.done.clear();
    shell.command(1, Command::Stop);
    assert_eq!((shell.part(), shell.done.len()), (Part::Draining, 0), "{:?}", shell.done);
    shell.together(200);
    assert_eq!(shell.status().farm.unwrap().members[0].buckets, 0);
    assert_eq!(shell.done.len(), 0, "its leadership is not with another yet");
    shell.pass(11_000);
    assert_eq!(shell.done, ["Stop", "addresses false"]);
    assert!(!shell.kernel.serves());
    assert!(matches!(shell.outcomes[&JobId(1)], Outcome::Done(_)));
    assert_eq!(shell.part(), Part::Out);
}

#[test]
fn the_last_node_stops_without_waiting() {
    let mut shell = Shell::start(None, true);
    shell.check(true);
    shell.pass(250);
    shell.command(1, Command::Stop);
    shell.pass(5);
    assert!(matches!(shell.outcomes[&JobId(1)], Outcome::Done(_)), "{:?}", shell.done);
    assert_eq!(shell.status().role, Role::Stop);
}

#[test]
fn where_a_balancer_sends_the_clients_it_is_given_the_time_to_see_that_the_node_goes() {
    let mut shell = Shell::with(MODULE, None, true);
    shell.check(true);
    shell.together(400);
    shell.done.clear();
    shell.command(1, Command::Stop);
    shell.together(14_000);
    assert_eq!((shell.part(), shell.done.len()), (Part::Draining, 0), "{:?}", shell.done);
    assert!(!shell.status().takes_clients);
    shell.together(2_000);
    assert_eq!(shell.done[0], "Stop");
    // With nobody else to send them to, nothing is waited for.
    let mut shell = Shell::with(MODULE, None, true);
    shell.check(true);
    shell.pass(250);
    shell.command(1, Command::Stop);
    shell.pass(5);
    assert_eq!(shell.status().role, Role::Stop);
}

#[test]
fn addresses_that_cannot_be_taken_keep_it_waiting_with_the_reason_and_are_tried_again() {
    let mut shell = Shell::start(None, false);
    shell.addresses_fail = Some("10.0.0.9 is in use by 02:00:00:00:00:07");
    shell.command(1, Command::Start);
    assert_eq!(shell.done, ["addresses true"]);
    assert!(matches!(&shell.outcomes[&JobId(1)], Outcome::Failed(why) if why.contains("in use")));
    let status = shell.status();
    assert_eq!((status.role, status.phase), (Role::Wait, Phase::NotReady));
    let reason = status.reasons.iter().find(|reason| reason.code == "address-failed").unwrap();
    assert!(reason.sentence.contains("02:00:00:00:00:07"), "{}", reason.sentence);
    shell.pass(4_900);
    assert_eq!(shell.done.len(), 1);
    shell.addresses_fail = None;
    shell.pass(200);
    assert_eq!(shell.done, ["addresses true", "addresses true", "Start"]);
    shell.check(true);
    shell.pass(250);
    assert_eq!(shell.status().role, Role::Up);
    assert!(shell.status().reasons.iter().all(|reason| reason.code != "address-failed"));
}

#[test]
fn addresses_that_cannot_be_dropped_keep_a_stop_going_until_they_are() {
    let mut shell = Shell::start(None, true);
    shell.check(true);
    shell.pass(250);
    shell.done.clear();
    shell.addresses_fail = Some("no such device");
    shell.command(1, Command::Stop);
    shell.pass(20_000);
    assert_eq!(shell.done[..2], ["Stop", "addresses false"]);
    assert!(!shell.outcomes.contains_key(&JobId(1)), "{:?}", shell.outcomes);
    assert!(shell.status().reasons.iter().any(|reason| reason.sentence.contains("be dropped")));
    shell.addresses_fail = None;
    shell.pass(5_000);
    assert!(matches!(shell.outcomes[&JobId(1)], Outcome::Done(_)), "{:?}", shell.done);
    assert_eq!(shell.status().role, Role::Stop);
}

#[test]
fn maintenance_drains_and_its_end_brings_the_share_back() {
    let mut shell = Shell::start(None, true);
    shell.check(true);
    shell.together(400);
    shell.command(1, Command::Maintain(Duration::from_secs(600)));
    shell.together(200);
    assert!(matches!(shell.outcomes[&JobId(1)], Outcome::Done(_)));
    let status = shell.status();
    assert_eq!((status.role, status.farm.unwrap().members[0].buckets), (Role::Up, 0));
    assert!(status.service && status.reasons.iter().any(|reason| reason.code == "maintenance"));
    shell.command(2, Command::EndMaintenance);
    shell.together(200);
    assert_eq!(shell.status().farm.unwrap().members[0].buckets, BUCKETS / 2);
}

#[test]
fn what_a_mirror_does_is_refused_with_what_to_do_instead() {
    let mut shell = Shell::start(None, true);
    shell.command(1, Command::Switchover);
    let Outcome::Refused { why, next } = &shell.outcomes[&JobId(1)] else { panic!("refused") };
    assert!(why.contains("farm") && next[0].contains("maintenance"));
}

#[test]
fn a_following_daemon_goes_on_with_what_the_kernel_does() {
    let mut shell = Shell::start(None, true);
    shell.check(true);
    shell.together(400);
    let next = shell.next();
    assert!(next.kernel.buckets == shell.kernel.buckets);
    assert_eq!((next.part(), next.status().role), (Part::Ready, Role::Up));
    assert!(next.kernel.leader && next.done.is_empty());
    assert_eq!(next.pulse.unwrap().hears, 2);
}

#[test]
fn a_following_daemon_leaves_the_connections_of_a_node_that_has_no_share() {
    let mut shell = Shell::start(None, true);
    shell.check(true);
    shell.together(400);
    shell.command(1, Command::Maintain(Duration::from_secs(600)));
    shell.together(200);
    assert_eq!(
        (shell.part(), shell.status().farm.unwrap().members[0].buckets),
        (Part::Draining, 0)
    );
    let mut next = shell.next();
    assert_eq!(next.part(), Part::Draining, "its checks have not been up yet");
    // It is given clients only once they have, and none after a failure.
    next.together(200);
    assert_eq!((next.part(), next.status().phase), (Part::Draining, Phase::Transient));
    next.check(true);
    assert_eq!(next.part(), Part::Ready);
    next.check(false);
    assert_eq!(next.part(), Part::Standby);
}

#[test]
fn an_application_that_is_given_up_is_stopped_without_a_drain() {
    let mut shell = Shell::start(None, true);
    shell.together(400);
    for _ in 0..4 {
        shell.check(true);
        shell.check(false);
        shell.pass(20_000);
    }
    assert!(shell.events.iter().any(|code| code == "gave-up"), "{:?}", shell.events);
    assert_eq!((shell.status().role, shell.part()), (Role::Stop, Part::Out));
    assert!(!shell.kernel.serves());
}

#[test]
fn what_was_decided_with_a_record_that_cannot_be_written_is_undone_and_done_later() {
    let mut shell = Shell::start(None, true);
    shell.check(true);
    shell.together(400);
    shell.done.clear();
    shell.full = true;
    shell.check(false);
    assert_eq!(shell.done.len(), 0, "a restart that is not counted is not made");
    assert_eq!(shell.part(), Part::Standby, "others serve its clients nevertheless");
    let reasons = shell.status().reasons;
    assert!(reasons.iter().any(|reason| reason.code == "record-failed"), "{reasons:?}");
    shell.command(1, Command::Stop);
    assert!(matches!(shell.outcomes[&JobId(1)], Outcome::Failed(_)));
    shell.full = false;
    shell.pass(5_000);
    assert_eq!(shell.done, ["Stop", "Start"], "{:?}", shell.events);
    shell.check(true);
    shell.together(400);
    let status = shell.status();
    assert_eq!((shell.part(), status.headline), (Part::Ready, Headline::Protected));
    assert_eq!(status.farm.unwrap().members[0].percent, 50);
    shell.full = true;
    shell.command(2, Command::Maintain(Duration::from_secs(600)));
    assert!(matches!(shell.outcomes[&JobId(2)], Outcome::Failed(_)));
    assert_eq!((shell.part(), shell.kernel.leader), (Part::Ready, true));
}

#[test]
fn where_a_farm_runs_is_known_to_a_node_on_which_it_is_stopped() {
    let mut shell = Shell::start(None, false);
    let [own, other] = ["node1", "node2"].map(|name| NodeName::new(name).unwrap());
    let runs = |shell: &Shell, node| shell.node.status(shell.now).running_on(node).cloned();
    assert_eq!((runs(&shell, &own), runs(&shell, &other)), (None, None));
    shell.other(Part::Standby);
    assert_eq!((runs(&shell, &own), runs(&shell, &other)), (None, Some(web())));
    shell.other(Part::Out);
    assert_eq!(runs(&shell, &other), None, "it was stopped there");
    shell.other(Part::Ready);
    shell.pass(60_000);
    assert_eq!(runs(&shell, &other), None, "it is heard no more");
    shell.command(1, Command::Start);
    assert_eq!(runs(&shell, &own), Some(web()));
}

#[test]
fn a_farm_that_runs_keeps_its_nodes() {
    let mut shell = Shell::start(None, false);
    let read = |cluster: &str, module: &str| {
        let cluster = parse_cluster(&Source { file: "cluster.toml", text: cluster }).unwrap();
        parse_module(&Source { file: "web.toml", text: module }, &cluster).unwrap()
    };
    let third = format!("{CLUSTER}[[node]]\nname = 'node3'\naddresses = {{ lan0 = '10.0.0.3' }}\n");
    let of_all = format!("{MODULE}{VIP}");
    let named = format!("nodes = ['node1', 'node2']\n{of_all}");
    assert_eq!(shell.node.keeps_farms(&[]), Ok(()), "it is stopped");
    shell.command(1, Command::Start);
    for same in [read(CLUSTER, &of_all), read(&third, &named)] {
        assert_eq!(shell.node.keeps_farms(&[same]), Ok(()));
    }
    for (after, why) in [(vec![read(&third, &of_all)], "more nodes"), (vec![], "it is gone")] {
        let refused = shell.node.keeps_farms(&after).unwrap_err();
        assert!(refused.contains("nodes = [\"node1\", \"node2\"]"), "{why}: {refused}");
    }
}
