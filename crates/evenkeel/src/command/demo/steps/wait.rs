//! How the demo waits: always within a bound, open to Ctrl-C, and showing what the nodes say.

use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use lab::ledger::Workload;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use wire::control::{Exit, Reply, Verb};

use super::Show;
use crate::command::demo::cluster::{NODES, control};
use crate::command::demo::screen::{Mark, bar, count, seconds, size};
use crate::command::demo::watch::Watch;
use crate::command::demo::{Failure, Result};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How often one looks: the screen is drawn no more often.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// Events looked through for a step.
const EVENTS: usize = 500;

impl Show<'_> {
    /// Looks until there is something to return, or too much time has passed.
    pub(super) fn wait<T>(
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

    /// Waits until a daemon has answered a question asked after `since`.
    pub(super) fn answers(&mut self, node: &'static str, since: Instant) -> Result<()> {
        let what = format!("start of {node}'s daemon");
        let answered = self.wait(&what, |show| {
            show.cluster.check_daemons()?;
            show.screen.moving(&format!("{node} boots"));
            Ok(show.watch(node).status(since).map(drop))
        });
        answered.map_err(|failure| failure.because(&self.watch(node).error()))
    }

    /// Waits until a node says that the pair is protected; bytes copied by the sync before.
    pub(super) fn protected(
        &mut self,
        node: &'static str,
        what: &str,
        since: Instant,
    ) -> Result<f64> {
        let mut copied = 0.0;
        self.wait(what, |show| {
            show.cluster.check_daemons()?;
            let Some(module) = show.module(node, since) else { return Ok(None) };
            let progress = &module["detail"]["progress"];
            copied = progress["copied"].as_f64().unwrap_or(copied);
            if module["headline"] == "protected" {
                return Ok(Some(()));
            }
            show.draw(what, &module);
            Ok(None)
        })?;
        Ok(copied)
    }

    /// Waits until both nodes have stopped.
    pub(super) fn stopped(&mut self, since: Instant) -> Result<()> {
        self.wait("stopping on both nodes", |show| {
            let stopped = |node| {
                let role = show.module(node, since)?["role"].as_str()?.to_owned();
                (role == "STOP").then_some(())
            };
            Ok(NODES.into_iter().all(|node| stopped(node).is_some()).then_some(()))
        })
    }

    /// Waits until the client has an acknowledgement that came after `mark`.
    pub(super) fn answered(&mut self, what: &str, mark: Instant) -> Result<()> {
        let answered = self.wait(what, |show| {
            let Some(workload) = &show.workload else { return Ok(Some(())) };
            if workload.wait_for_progress(mark, Duration::ZERO) {
                return Ok(Some(()));
            }
            show.cluster.check_daemons()?;
            let silence = seconds(mark.elapsed());
            let says = NODES.iter().find_map(|node| {
                let module = show.module(node, mark)?;
                Some(format!("; {node} is {}", text(&module, "role")))
            });
            let says = says.unwrap_or_default();
            show.screen.moving(&format!("no answer for {silence}{says}"));
            Ok(None)
        });
        let said = self.workload.as_ref().and_then(Workload::last_error).unwrap_or_default();
        answered.map_err(|failure| failure.because(&said))
    }

    /// Has a node carry something out, and waits for the outcome.
    pub(super) fn command(&mut self, node: &'static str, verb: Verb, what: &str) -> Result<()> {
        let reply = self.ask(node, verb, what)?;
        if reply.outcome == Exit::Done {
            return Ok(());
        }
        Err(Failure::Other(format!("{what}: {node} says: {}", reply.sentence)))
    }

    /// What happened on a node since a moment, in milliseconds of wall time.
    pub(super) fn events(&mut self, node: &'static str, since_ms: u64) -> Result<Vec<Value>> {
        let verb = Verb::Events { module: Some(self.cluster.module.clone()), limit: EVENTS };
        let reply = self.ask(node, verb, &format!("reading the events of {node}"))?;
        let events = reply.data["events"].as_array().cloned().unwrap_or_default();
        let later = |event: &Value| event["at_ms"].as_u64().is_some_and(|at| at >= since_ms);
        Ok(events.into_iter().filter(later).collect())
    }

    /// What a node says of the module.
    pub(super) fn module(&self, node: &str, since: Instant) -> Option<Value> {
        let mut status = self.watch(node).status(since)?;
        let module = status["modules"][self.cluster.module.as_str()].take();
        (!module.is_null()).then_some(module)
    }

    /// Shows what each node says of a failure, and passes that on.
    pub(in crate::command::demo) fn explain(&mut self, failure: Failure) -> Failure {
        if matches!(failure, Failure::Interrupted) {
            return failure;
        }
        self.screen.say(Mark::Bad, "the demo cannot go on; the nodes say:");
        let module = self.cluster.module.as_str().to_owned();
        for (node, watch) in NODES.into_iter().zip(&self.watches) {
            let long_ago = Instant::now().checked_sub(LIMIT).unwrap_or_else(Instant::now);
            let says = match watch.status(long_ago) {
                Some(status) => crate::render::why(&status, &module),
                None => format!("does not answer: {}", watch.error()),
            };
            self.screen.plain(&format!("   {node}: {}", says.trim_end().replace('\n', "\n     ")));
        }
        failure
    }

    fn ask(&mut self, node: &'static str, verb: Verb, what: &str) -> Result<Reply> {
        let client = control(&self.cluster.host(node)?)?;
        let (sender, receiver) = channel();
        let ask = move || {
            // Nobody waits any more after the bound; the thread ends with the daemon's reply.
            let _ = sender.send(client.request(verb, &mut |_| {}));
        };
        let started = thread::Builder::new().name("ask".into()).spawn(ask);
        started.map_err(Failure::io("cannot start a thread"))?;
        let asked = Instant::now();
        let reply = self.wait(what, |show| match receiver.try_recv() {
            Ok(reply) => Ok(Some(reply)),
            Err(TryRecvError::Disconnected) => {
                Err(Failure::Other(format!("{what}: the question to {node} was lost")))
            }
            Err(TryRecvError::Empty) => {
                if let Some(module) = show.module(node, asked) {
                    show.draw(what, &module);
                }
                Ok(None)
            }
        })?;
        reply.map_err(Failure::io(&format!("{what}: the daemon of {node} does not answer")))
    }

    /// One line about what a node is doing: the sync's progress if there is one.
    fn draw(&mut self, what: &str, module: &Value) {
        let progress = &module["detail"]["progress"];
        let mut line = if progress["running"] == true {
            format!("{what} {}", describe(progress))
        } else {
            let reason = module["reasons"][0]["sentence"].as_str();
            format!("{what}: {}", reason.unwrap_or(text(module, "role")))
        };
        if self.workload.is_some() {
            line += &format!("  {} transactions", count(self.acknowledged()));
        }
        self.screen.moving(&line);
    }

    fn watch(&self, node: &str) -> &Watch {
        let [first, second] = &self.watches;
        if node == NODES[0] { first } else { second }
    }

    fn tick(&self) -> Result<()> {
        let mut interrupted = [PollFd::new(self.interrupt, PollFlags::IN)];
        // Cut short only by signals, and by the user's wish to stop.
        let _ = poll(&mut interrupted, Some(&TICK));
        if self.interrupt.requested() { Err(Failure::Interrupted) } else { Ok(()) }
    }
}

impl Failure {
    /// Adds what was said last to a wait that was too long.
    pub(super) fn because(self, said: &str) -> Failure {
        match self {
            Failure::Late { what, limit } if !said.is_empty() => {
                Failure::Late { what: format!("{what} ({said})"), limit }
            }
            other => other,
        }
    }
}

/// A sync's progress: bar, amount, rate, time left.
fn describe(progress: &Value) -> String {
    let number = |key: &str| progress[key].as_f64().unwrap_or(0.0);
    let (done, whole, rate) = (number("bytes"), number("bytes_total"), number("rate"));
    let mut line = format!("{}  {}", bar(done, whole), size(done));
    if whole > 0.0 {
        line += &format!(" of {}", size(whole));
    }
    if rate > 0.0 {
        line += &format!("  {}/s", size(rate));
        if whole > done {
            line += &format!("  {:.0} s left", (whole - done) / rate);
        }
    }
    line
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_amount_rate_and_time_left() {
        let progress = serde_json::json!({
            "running": true, "bytes": 33_554_432, "bytes_total": 67_108_864, "rate": 16_777_216.0,
        });
        let line = describe(&progress);
        assert!(line.ends_with(" 50 %  32.0 MiB of 64.0 MiB  16.0 MiB/s  2 s left"), "{line}");
        assert_eq!(describe(&Value::Null), "  0 B");
    }

    #[test]
    fn a_wait_that_was_too_long_says_what_was_heard_last() {
        let late = Failure::Late { what: "start".into(), limit: LIMIT };
        let text = late.because("refused").to_string();
        assert_eq!(text, "start (refused): that did not happen within 60 s");
    }
}
