//! The steps of the farm's demo, in the order in which they are shown.
//!
//! Each waits until the visitors have seen what it announced, within a bound, and writes down what
//! they saw meanwhile. Faults come from the lab, requests go over the control socket.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use lab::interrupt::Interrupt;
use lab::web::{Tally, Visitors};
use model::NodeName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wire::control::{Exit, Verb};

use super::figures::Figures;
use super::site::{NODES, Site};
use crate::command::demo::cluster::control;
use crate::command::demo::screen::{Mark, Screen, bar, count, seconds};
use crate::command::demo::{Failure, Result};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How often one looks.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// For so long the visitors must have seen the same before it counts as settled.
const STEADY: Duration = Duration::from_secs(1);
/// With so many of them at least, so that a node with a third cannot have been missed by chance.
const STEADY_VISITORS: usize = 60;
/// Connections that are kept.
const KEPT: usize = 60;
/// How long a node is worked on; it ends earlier.
const MAINTENANCE_SECONDS: u64 = 600;

/// Which node is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Victim {
    /// The one that leads the farm.
    Leader,
    /// One that does not.
    Other,
}

/// The demo under way.
pub(super) struct Show<'a> {
    site: &'a mut Site,
    screen: &'a mut Screen,
    interrupt: &'a Interrupt,
    figures: &'a mut Figures,
    visitors: Visitors,
}

impl<'a> Show<'a> {
    pub(super) fn new(
        site: &'a mut Site,
        screen: &'a mut Screen,
        interrupt: &'a Interrupt,
        figures: &'a mut Figures,
    ) -> Result<Show<'a>> {
        let namespace = Some(site.client()?.netns()?);
        let visitors = Visitors::start(Site::address(), KEPT, namespace)
            .map_err(Failure::io("cannot start the visitors"))?;
        Ok(Show { site, screen, interrupt, figures, visitors })
    }

    /// All steps and the table.
    pub(super) fn all(&mut self, victim: Victim) -> Result<()> {
        self.start()?;
        let victim = self.choose(victim)?;
        self.kill(victim)?;
        self.come_back(victim)?;
        let drained = NODES[1];
        self.drain(drained)?;
        self.take_in(drained)?;
        self.figures.converged = true;
        self.figures.table(self.screen);
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        self.screen.step(1, &format!("Three nodes serve {} together", Site::address()));
        // The first one passes the command on to the others.
        for node in NODES {
            self.command(node, &Verb::Status, "the start of the daemons")?;
        }
        let verb = Verb::Start { module: self.site.module.clone(), node: None };
        self.command(NODES[0], &verb, "starting")?;
        let shares = self.settled("the first answers of all nodes", &NODES)?;
        self.figures.shares = shares;
        self.all_kept()?;
        let each = self.shares(STEADY);
        self.good(&format!("all nodes answer: {each}"));
        self.good(&format!("{KEPT} connections are kept beside a new one every 10 ms"));
        Ok(())
    }

    /// The node that is to be killed; of several the last one.
    fn choose(&self, victim: Victim) -> Result<&'static str> {
        let status = control(&self.site.host(NODES[0])?)?
            .request(Verb::Status, &mut |_| {})
            .map_err(Failure::io("cannot ask who leads the farm"))?;
        let leader = &status.data["modules"][self.site.module.as_str()]["farm"]["leader"];
        let fits = |node: &&str| (leader == *node) == (victim == Victim::Leader);
        NODES.into_iter().rev().find(fits).ok_or_else(|| Failure::Other("nobody leads".to_owned()))
    }

    fn kill(&mut self, victim: &'static str) -> Result<()> {
        let others: Vec<&str> = NODES.into_iter().filter(|node| *node != victim).collect();
        self.screen.step(2, &format!("{victim} is killed, with everything that runs on it"));
        let owned = self.visitors.kept().get(victim).copied().unwrap_or(0);
        let mark = Instant::now();
        self.site.kill(victim)?;
        self.screen.say(Mark::Risk, &format!("{victim} is gone, and {owned} kept connections"));
        self.settled("the others' taking over", &others)?;
        self.wait(&format!("the resets of {victim}'s connections"), |show| {
            let broken = show.visitors.since(mark).broken();
            Ok((broken >= owned).then_some(()))
        })?;
        self.all_kept()?;
        let tally = self.visitors.since(mark);
        self.figures.outage_kill = Some(tally.outage);
        self.figures.lost_kill = Some(tally.lost);
        self.figures.kept_by_killed = Some(owned);
        self.figures.broken_others = Some(tally.broken() - of(&tally, victim));
        self.figures.broken_kill = Some(tally.broken());
        self.good(&format!(
            "a part of the clients had no answer for {}: {} of {} new ones",
            seconds(tally.outage),
            count(tally.lost),
            count(tally.new)
        ));
        let others = tally.broken() - of(&tally, victim);
        let why: String = tally
            .why
            .iter()
            .filter(|(node, _)| *node != victim)
            .map(|(node, why)| format!("; {node}'s: {why}"))
            .collect();
        let broken = tally.broken();
        let text = format!("{broken} kept connections broke, {others} of them not {victim}'s{why}");
        self.judge(others == 0, &text);
        Ok(())
    }

    fn come_back(&mut self, victim: &'static str) -> Result<()> {
        self.screen.step(3, &format!("{victim} comes back and joins"));
        let mark = Instant::now();
        self.site.lab.start(victim)?;
        self.site.start_daemon(victim)?;
        self.settled(&format!("{victim}'s joining"), &NODES)?;
        self.joined(victim, mark);
        Ok(())
    }

    fn drain(&mut self, node: &'static str) -> Result<()> {
        let others: Vec<&str> = NODES.into_iter().filter(|other| *other != node).collect();
        self.screen.step(4, &format!("{node} is drained, for work on it"));
        let mark = Instant::now();
        let verb = self.maintenance(node, Some(MAINTENANCE_SECONDS))?;
        self.command(NODES[0], &verb, &format!("draining {node}"))?;
        self.settled(&format!("the others' taking over from {node}"), &others)?;
        let tally = self.visitors.since(mark);
        self.figures.broken_drain = Some(tally.broken());
        self.figures.lost_drain = Some(tally.lost);
        self.outcome(&tally);
        let still = self.visitors.kept().get(node).copied().unwrap_or(0);
        self.good(&format!("{node} gets nobody new; {still} kept connections live on there"));
        Ok(())
    }

    fn take_in(&mut self, node: &'static str) -> Result<()> {
        self.screen.step(5, &format!("{node} is taken in again"));
        let mark = Instant::now();
        let verb = self.maintenance(node, None)?;
        self.command(NODES[0], &verb, &format!("taking {node} in"))?;
        self.settled(&format!("{node}'s joining"), &NODES)?;
        self.joined(node, mark);
        Ok(())
    }

    fn joined(&mut self, node: &str, mark: Instant) {
        let tally = self.visitors.since(mark);
        let add = |sum: &mut Option<usize>, more| *sum = Some(sum.unwrap_or(0) + more);
        add(&mut self.figures.broken_join, tally.broken());
        add(&mut self.figures.lost_join, tally.lost);
        self.outcome(&tally);
        let each = self.shares(STEADY);
        self.good(&format!("{node} serves again: {each}"));
    }

    fn outcome(&mut self, tally: &Tally) {
        let why = tally.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        let text = format!(
            "{} connections broke, {} of {} new clients had no answer{why}",
            tally.broken(),
            tally.lost,
            count(tally.new)
        );
        self.judge(tally.broken() == 0 && tally.lost == 0, &text);
    }

    /// Waits until for a while exactly these nodes have answered, and everybody was answered; who
    /// answered how much then.
    fn settled(&mut self, what: &str, nodes: &[&str]) -> Result<BTreeMap<String, usize>> {
        let begin = Instant::now();
        self.wait(what, |show| {
            show.site.check_daemons()?;
            let since = Instant::now().checked_sub(STEADY).unwrap_or(begin).max(begin);
            let tally = show.visitors.since(since);
            let shares = show.shares(STEADY);
            show.screen.moving(&shares);
            let exactly = tally.served.keys().map(String::as_str).eq(nodes.iter().copied());
            let steady = begin.elapsed() > STEADY && tally.new >= STEADY_VISITORS;
            Ok((steady && exactly && tally.lost == 0).then_some(tally.served))
        })
    }

    /// Waits until every kept connection is there.
    fn all_kept(&mut self) -> Result<()> {
        self.wait("all connections", |show| {
            Ok((show.visitors.kept().values().sum::<usize>() == KEPT).then_some(()))
        })
    }

    /// Who has answered how much lately, drawn.
    fn shares(&self, lately: Duration) -> String {
        let since = Instant::now().checked_sub(lately).unwrap_or_else(Instant::now);
        let tally = self.visitors.since(since);
        let whole: usize = tally.served.values().sum();
        let mut text = String::new();
        for node in NODES {
            let part = tally.served.get(node).copied().unwrap_or(0);
            let drawn = bar(part as f64, whole.max(1) as f64);
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{node} {drawn}", if text.is_empty() { "" } else { "  " });
        }
        text
    }

    fn maintenance(&self, node: &str, seconds: Option<u64>) -> Result<Verb> {
        let node = NodeName::new(node).map_err(|error| Failure::Other(error.to_string()))?;
        Ok(Verb::Maintenance { node, module: None, seconds })
    }

    /// Has a node carry something out, and waits for the outcome.
    fn command(&mut self, node: &'static str, verb: &Verb, what: &str) -> Result<()> {
        let until = Instant::now() + LIMIT;
        loop {
            let client = control(&self.site.host(node)?)?;
            let (sender, receiver) = channel();
            let verb = verb.clone();
            let ask = move || {
                // Nobody waits any more after the bound; the thread ends with the daemon's reply.
                let _ = sender.send(client.request(verb, &mut |_| {}));
            };
            let started = thread::Builder::new().name("ask".into()).spawn(ask);
            started.map_err(Failure::io("cannot start a thread"))?;
            let reply = self.wait(what, |show| match receiver.try_recv() {
                Ok(reply) => Ok(Some(reply)),
                Err(TryRecvError::Disconnected) => {
                    Err(Failure::Other(format!("{what}: the question to {node} was lost")))
                }
                Err(TryRecvError::Empty) => show.site.check_daemons().map(|()| None),
            })?;
            match reply {
                Ok(reply) if reply.outcome == Exit::Done => return Ok(()),
                Ok(reply) => {
                    let said = reply.sentence;
                    return Err(Failure::Other(format!("{what}: {node} says: {said}")));
                }
                // Its socket comes a moment after the daemon.
                Err(_) if Instant::now() < until => self.tick()?,
                Err(error) => {
                    let lead = format!("{what}: the daemon of {node} does not answer");
                    return Err(Failure::io(&lead)(error));
                }
            }
        }
    }

    /// Shows what each node says of a failure, and passes that on.
    pub(super) fn explain(&mut self, failure: Failure) -> Failure {
        if matches!(failure, Failure::Interrupted) {
            return failure;
        }
        self.screen.say(Mark::Bad, "the demo cannot go on; the nodes say:");
        for node in NODES {
            let host = self.site.host(node);
            let reply = host.and_then(|host| control(&host)).and_then(|client| {
                let failed = Failure::io("does not answer");
                client.request(Verb::Status, &mut |_| {}).map_err(failed)
            });
            let says = match reply {
                Ok(reply) => crate::render::why(&reply.data, self.site.module.as_str()),
                Err(failure) => failure.to_string(),
            };
            self.screen.plain(&format!("   {node}: {}", says.trim_end().replace('\n', "\n     ")));
        }
        failure
    }

    fn wait<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if Instant::now() >= until {
                return Err(Failure::Late { what: what.to_owned(), limit: LIMIT });
            }
            self.tick()?;
        }
    }

    fn tick(&self) -> Result<()> {
        let mut interrupted = [PollFd::new(self.interrupt, PollFlags::IN)];
        // Cut short only by signals, and by the user's wish to stop.
        let _ = poll(&mut interrupted, Some(&TICK));
        if self.interrupt.requested() { Err(Failure::Interrupted) } else { Ok(()) }
    }

    fn good(&mut self, text: &str) {
        self.screen.say(Mark::Good, text);
    }

    fn judge(&mut self, is_good: bool, text: &str) {
        self.screen.say(if is_good { Mark::Good } else { Mark::Bad }, text);
    }
}

fn of(tally: &Tally, node: &str) -> usize {
    tally.broken.get(node).copied().unwrap_or(0)
}
