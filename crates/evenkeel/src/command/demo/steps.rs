//! The steps of the demo, in the order in which they are shown.
//!
//! Each waits for what it announced, within a bound, and writes down what it measured. Faults come
//! from the lab, requests go over the control socket, and outages are what the client saw.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lab::compare;
use lab::interrupt::Interrupt;
use lab::ledger::Workload;
use model::NodeName;
use serde_json::Value;
use wire::control::Verb;

use super::cluster::{Cluster, NODES};
use super::report::Figures;
use super::screen::{Mark, Screen, count, seconds, size};
use super::watch::Watch;
use super::{Failure, Result};

mod wait;

/// How long the client works undisturbed before each fault, at least.
const WORK: Duration = Duration::from_secs(2);
/// The moment of a fault varies by so much, so that it hits another place each time.
const WORK_SPREAD_MS: u32 = 700;

/// The demo under way.
pub(super) struct Show<'a> {
    cluster: &'a mut Cluster,
    screen: &'a mut Screen,
    interrupt: &'a Interrupt,
    figures: &'a mut Figures,
    watches: [Watch; 2],
    workload: Option<Workload>,
}

impl<'a> Show<'a> {
    pub(super) fn new(
        cluster: &'a mut Cluster,
        screen: &'a mut Screen,
        interrupt: &'a Interrupt,
        figures: &'a mut Figures,
    ) -> Result<Show<'a>> {
        let [one, other] = NODES;
        let watches = [Watch::start(cluster.host(one)?)?, Watch::start(cluster.host(other)?)?];
        Ok(Show { cluster, screen, interrupt, figures, watches, workload: None })
    }

    /// All steps and the table.
    pub(super) fn all(&mut self, keep: bool) -> Result<()> {
        self.first_sync()?;
        self.work()?;
        self.failover()?;
        self.failback()?;
        self.switchover()?;
        self.reckoning()?;
        if keep {
            let mark = Instant::now();
            self.command(NODES[0], self.start_verb(), "starting again")?;
            self.protected(NODES[0], "starting again", mark)?;
        }
        self.figures.converged = true;
        self.figures.table(self.screen);
        Ok(())
    }

    fn first_sync(&mut self) -> Result<()> {
        let [one, other] = NODES;
        let application = self.cluster.application.spoken();
        self.screen.step(1, &format!("First sync: only {one} has data"));
        let booted = Instant::now();
        NODES.into_iter().try_for_each(|node| self.answers(node, booted))?;
        self.screen.say(Mark::Good, "two nodes, a witness and a client are up");
        let start = Instant::now();
        self.command(one, self.start_verb(), "first sync")?;
        let copied = self.protected(one, &format!("first sync to {other}"), start)?;
        self.figures.first_sync = Some(start.elapsed());
        self.figures.first_sync_bytes = copied;
        let what = if copied > 0.0 { format!(", {} copied", size(copied)) } else { String::new() };
        self.good(&format!(
            "Protected after {}{what}: {one} runs {application}, {other} has all of its data",
            seconds(start.elapsed())
        ));
        Ok(())
    }

    fn work(&mut self) -> Result<()> {
        let address = super::application::vip();
        self.screen.step(2, &format!("A client commits without pause, through {address}"));
        let client = self.cluster.client()?;
        let mut said = String::new();
        let answered = self.wait("first answer of the application", |show| {
            show.screen.moving(&format!("waiting for its first answer {said}"));
            Ok(match show.cluster.application.set_up(&client)? {
                Ok(()) => Some(()),
                Err(error) => {
                    said = error.to_string();
                    None
                }
            })
        });
        answered.map_err(|failure| failure.because(&said))?;
        self.workload = Some(self.cluster.application.workload(&client)?);
        let start = Instant::now();
        self.answered("first transaction", start)?;
        self.keep_working()?;
        let rate = self.acknowledged() as f64 / start.elapsed().as_secs_f64();
        let done = count(self.acknowledged());
        self.good(&format!("{done} transactions acknowledged, {rate:.0} per second"));
        Ok(())
    }

    fn failover(&mut self) -> Result<()> {
        let [one, other] = NODES;
        self.screen.step(3, &format!("{one} is killed, with everything that runs on it"));
        let wall = wall_ms();
        let killed = Instant::now();
        self.cluster.kill(one)?;
        self.screen.say(Mark::Risk, &format!("{one} is gone; the client has no answer"));
        self.answered(&format!("first answer of {other}"), Instant::now())?;
        let outage = self.outage_since(killed);
        self.figures.outage_failover = Some(outage);
        let events = self.events(other, wall)?;
        let decided = at(&events, "takes-over");
        self.figures.detection = decided.map(|at| Duration::from_millis(at.saturating_sub(wall)));
        match self.figures.detection {
            Some(detection) => self.good(&format!(
                "{other} noticed, asked the witness and decided to go on: {}",
                seconds(detection)
            )),
            None => self.screen.say(Mark::Risk, &format!("{other} has no event of its decision")),
        }
        if let (Some(decided), Some(serves)) = (decided, at(&events, "serves")) {
            let takeover = Duration::from_millis(serves.saturating_sub(decided));
            self.good(&format!("took the address and started: {} later", seconds(takeover)));
        }
        self.good(&format!("the client has its answers again: {} outage", seconds(outage)));
        self.keep_working()?;
        self.check_present(other)
    }

    fn failback(&mut self) -> Result<()> {
        let [one, other] = NODES;
        self.screen.step(4, &format!("{one} comes back and is brought up to date"));
        let wall = wall_ms();
        let mark = Instant::now();
        let before = self.acknowledged();
        self.cluster.lab.start(one)?;
        self.cluster.start_daemon(one)?;
        self.answers(one, mark)?;
        let copied = self.protected(other, &format!("resync of {one}"), mark)?;
        let whole = mark.elapsed();
        let pause = self.outage_since(mark);
        let events = self.events(other, wall)?;
        let resync = match (at(&events, "resync"), last(&events, "protected")) {
            (Some(from), Some(to)) => Duration::from_millis(to.saturating_sub(from)),
            (_, _) => whole,
        };
        self.figures.resync = Some(resync);
        self.figures.resync_bytes = copied;
        self.figures.pause_resync = Some(pause);
        let what = if copied > 0.0 { format!(", {} copied", size(copied)) } else { String::new() };
        self.good(&format!(
            "Protected again {} after its boot; the resync took {}{what}",
            seconds(whole),
            seconds(resync)
        ));
        self.good(&format!(
            "{} transactions meanwhile, no pause longer than {}",
            count(self.acknowledged().saturating_sub(before)),
            seconds(pause)
        ));
        self.keep_working()
    }

    fn switchover(&mut self) -> Result<()> {
        let [one, other] = NODES;
        self.screen.step(5, &format!("Switchover: {other} hands over to {one}, in order"));
        let to = NodeName::new(one).map_err(|error| Failure::Other(error.to_string()))?;
        let verb = Verb::Switchover { module: self.cluster.module.clone(), to: Some(to) };
        let mark = Instant::now();
        self.command(other, verb, &format!("switchover to {one}"))?;
        self.answered(&format!("first answer of {one}"), Instant::now())?;
        let outage = self.outage_since(mark);
        self.figures.outage_switchover = Some(outage);
        self.good(&format!("{one} serves: {} outage", seconds(outage)));
        self.protected(one, "protection after the switchover", mark)?;
        let role = self.module(one, mark).map_or(Value::Null, |module| module["role"].clone());
        if role != "PRIM" {
            let what = format!("after the switchover {one} is {role}, not PRIM");
            return Err(Failure::Other(what));
        }
        self.good("Protected");
        self.keep_working()?;
        self.check_present(one)
    }

    fn reckoning(&mut self) -> Result<()> {
        let [one, other] = NODES;
        self.screen.step(6, "The reckoning");
        let acknowledged = self.workload.take().map(Workload::stop).unwrap_or_default();
        let missing = self.missing(&acknowledged)?;
        self.figures.acknowledged = Some(acknowledged.len());
        let whole = count(acknowledged.len());
        if missing.is_empty() {
            self.good(&format!("all {whole} acknowledged transactions are there"));
        } else {
            let lost = format!("{} of {whole} acknowledged are missing", count(missing.len()));
            self.screen.say(Mark::Bad, &lost);
        }
        self.figures.lost = Some(missing);
        let mark = Instant::now();
        self.protected(one, "protection before the end", mark)?;
        let verb = Verb::Stop { module: self.cluster.module.clone(), node: None };
        self.command(one, verb, "stopping on both nodes")?;
        self.stopped(mark)?;
        self.screen.moving("comparing both replicas");
        let found = compare::trees(&self.cluster.replica(one)?, &self.cluster.replica(other)?)?;
        let whole = format!("{} files, {}", found.entries, size(found.bytes as f64));
        if found.is_identical() {
            self.good(&format!("both replicas are identical: {whole}"));
        } else {
            let differences = count(found.differences.len());
            self.screen.say(Mark::Bad, &format!("the replicas differ: {differences} differences"));
        }
        self.figures.comparison = Some(found);
        Ok(())
    }

    /// Lets the client go on for a while that is never quite the same.
    fn keep_working(&mut self) -> Result<()> {
        let spread = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let spread = u64::from(spread.subsec_micros() % WORK_SPREAD_MS);
        let until = Instant::now() + WORK + Duration::from_millis(spread);
        self.wait("the client's work", |show| {
            let done = count(show.acknowledged());
            show.screen.moving(&format!("{done} transactions acknowledged"));
            Ok((Instant::now() >= until).then_some(()))
        })
    }

    /// Counts while the client goes on; what is missing here is missing at the end, too.
    fn check_present(&mut self, node: &str) -> Result<()> {
        let acknowledged = self.workload.as_ref().map(Workload::acknowledged).unwrap_or_default();
        let missing = self.missing(&acknowledged)?;
        let whole = count(acknowledged.len());
        if missing.is_empty() {
            self.good(&format!("all {whole} transactions acknowledged so far are on {node}"));
        } else {
            let lost = format!("{} of {whole} are missing on {node}", count(missing.len()));
            self.screen.say(Mark::Bad, &lost);
        }
        Ok(())
    }

    fn missing(&mut self, acknowledged: &[u64]) -> Result<Vec<u64>> {
        let client = self.cluster.client()?;
        let mut said = String::new();
        let ids = self.wait("reading all transactions", |show| {
            show.screen.moving("counting transactions");
            match show.cluster.application.ids(&client)? {
                Ok(ids) => Ok(Some(ids)),
                Err(error) => {
                    said = error.to_string();
                    Ok(None)
                }
            }
        });
        let ids = ids.map_err(|failure| failure.because(&said))?;
        Ok(acknowledged.iter().copied().filter(|id| !ids.contains(id)).collect())
    }

    fn start_verb(&self) -> Verb {
        Verb::Start { module: self.cluster.module.clone(), node: None }
    }

    fn acknowledged(&self) -> usize {
        self.workload.as_ref().map_or(0, Workload::count)
    }

    fn outage_since(&self, mark: Instant) -> Duration {
        self.workload.as_ref().map_or(Duration::ZERO, |work| work.outages_since(mark).length)
    }

    fn good(&mut self, text: &str) {
        self.screen.say(Mark::Good, text);
    }
}

/// Wall time, as the nodes' events have it: they share this machine's clock.
fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// When the first event of this kind happened.
fn at(events: &[Value], code: &str) -> Option<u64> {
    events.iter().find(|event| event["code"] == code)?["at_ms"].as_u64()
}

/// When the last event of this kind happened.
fn last(events: &[Value], code: &str) -> Option<u64> {
    events.iter().rfind(|event| event["code"] == code)?["at_ms"].as_u64()
}
