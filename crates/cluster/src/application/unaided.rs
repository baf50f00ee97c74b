//! An application that no other node takes over: what light modules and farms have in common.
//!
//! Its failures are answered on this node or not at all, and a record that cannot be written loses
//! no data, so nothing is let go of for it. How the application is taken up and given up differs,
//! and is for the kinds.

use std::time::Duration;

use model::config::CheckAction;
use model::{Phase, Role, Severity};

use super::{Base, Failure, Found, Job, down, spoken};
use crate::effect::Outcome;
use crate::input::Command;

/// How long a start may be blocked by something that may pass before it is answered as refused.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Nothing, or not yet.
    Nothing,
    /// The application is being restarted in place.
    Restarts,
    /// It is to be given up, until it may run again or for good: as the record says.
    GivesUp,
}

/// Where the module stands, as its kind sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stand {
    /// It runs the application.
    pub(crate) up: bool,
    /// It runs nothing and is not meant to.
    pub(crate) stopped: bool,
    pub(crate) shown: (Role, Phase),
}

/// What to do about a reason.
type Next = fn(&Base, &str) -> Vec<String>;

impl Base {
    /// Tries a record again that could not be written; whether it is written by now.
    pub(crate) fn retry_record(&mut self) -> bool {
        if self.persist_error.is_none() {
            return false;
        }
        if self.is_written_again() {
            let sentence = format!("the record of {} can be written again", self.me);
            self.info("record-written", sentence);
            return true;
        }
        self.write_again();
        false
    }

    /// A record could not be written: all of its batch counts as undone.
    pub(crate) fn record_failed(&mut self, error: String) {
        let told = format!("the record cannot be written: {error}");
        if !self.undo_batch(error) {
            self.warn("record-failed", told);
        }
        self.undo_front();
    }

    /// Answers the failure of a running application, if it has failed.
    pub(crate) fn answer_failure(&mut self) -> Answered {
        // What is not written down would be forgotten by the next daemon: restarts are counted.
        let recorded = self.persist_error.is_none();
        if !recorded || self.front.busy.is_some() || self.is_paused() {
            return Answered::Nothing;
        }
        let Some(failure) = self.failure() else { return Answered::Nothing };
        match failure.action {
            CheckAction::None => Answered::Nothing,
            // Nobody else takes it over, not even if it fails as it is first started.
            CheckAction::Restart | CheckAction::Failover => self.restart_or_stop(failure),
            CheckAction::Wait => {
                let sentence =
                    format!("{} stops the application until: {}", self.me, failure.sentence);
                self.explain_with(Severity::Warning, "check-waits", sentence, failure.evidence);
                Answered::GivesUp
            }
            CheckAction::Stop => {
                let sentence = format!("{} stops the module: {}", self.me, failure.sentence);
                self.stop_for("stopped-by-check", sentence, failure.evidence)
            }
        }
    }

    fn restart_or_stop(&mut self, failure: Failure) -> Answered {
        let Err(failure) = self.restart(failure) else { return Answered::Restarts };
        let failover = &self.config.failover;
        let sentence = format!(
            "{} stops the module, as restarts within {} are used up ({}): {}",
            self.me,
            spoken(failover.restart_window),
            failover.max_restarts,
            failure.sentence
        );
        self.stop_for("gave-up", sentence, failure.evidence)
    }

    fn stop_for(&mut self, code: &str, sentence: String, evidence: Vec<String>) -> Answered {
        self.give_up(code, sentence, evidence);
        self.persist(|record| record.started = false);
        Answered::GivesUp
    }

    /// Why the application may not be started yet, which is then shown.
    pub(crate) fn blocked_by_check(&mut self) -> bool {
        let Some((check, evidence)) = self.down_for(CheckAction::Wait) else { return false };
        let why = down(&check, &evidence);
        let sentence = format!("{} does not start the application before: {why}", self.me);
        self.block("check-waits", sentence);
        true
    }

    /// The operator wants it to run, or not: what failed before is forgotten.
    pub(crate) fn operator_wants(&mut self, started: bool) {
        self.persist_error = None;
        self.rewritten = false;
        self.retry.at = self.now;
        self.forget_failures();
        if self.record.started != started {
            self.persist(|record| record.started = started);
        }
    }

    /// The outcome of a job, once it has one. Maintenance is for the kinds.
    pub(crate) fn outcome(&mut self, job: &Job, stand: Stand, next: Next) -> Option<Outcome> {
        if let Some(error) = &self.persist_error {
            return Some(Outcome::Failed(format!("the record cannot be written: {error}")));
        }
        let (me, module) = (&self.me, &self.module);
        let done = match job.command {
            Command::Start => return self.start_outcome(job, stand, next),
            Command::Stop | Command::StopAll if self.record.started => {
                return Some(Outcome::Failed("it was started again".to_owned()));
            }
            Command::Stop | Command::StopAll if !stand.stopped => return None,
            Command::Stop | Command::StopAll => format!("{me} is stopped"),
            Command::Pause(length) => {
                format!("{me} answers no failure of {module} for {}", spoken(length))
            }
            Command::Resume => format!("{me} answers failures of {module} by itself"),
            Command::EndMaintenance => format!("{me} is not in maintenance"),
            Command::Maintain(_)
            | Command::Switchover
            | Command::ForcePrimary
            | Command::Discard => return None,
        };
        Some(Outcome::Done(done))
    }

    fn start_outcome(&mut self, job: &Job, stand: Stand, next: Next) -> Option<Outcome> {
        let me = &self.me;
        if !self.record.started {
            return Some(Outcome::Failed(format!("{me} was stopped")));
        }
        if let Some(why) = self.start_failure().filter(|_| stand.up) {
            return Some(Outcome::Failed(format!("it did not start: {why}")));
        }
        let (role, phase) = stand.shown;
        if stand.up && phase == Phase::Ready {
            return Some(Outcome::Done(format!("{me} is {role}")));
        }
        if let Some(error) = self.front.address_error.clone().filter(|_| !stand.up) {
            return Some(Outcome::Failed(format!("its addresses could not be taken: {error}")));
        }
        let block = self.block.clone()?;
        self.due(job.since + PATIENCE).then(|| {
            let next = next(self, &block.code);
            Outcome::Refused { why: block.sentence, next }
        })
    }

    /// Shows why all is not well: what blocks it, what every such application may have, and these
    /// of the kind's own. `maintained` says what maintenance means for the kind.
    pub(crate) fn show_reasons(
        &mut self,
        own: Vec<(&'static str, Severity, String)>,
        maintained: &str,
        next: Next,
    ) {
        let mut found = Vec::new();
        if let Some(error) = &self.persist_error {
            let sentence = format!("the record cannot be written: {error}");
            found.push(("record-failed", Severity::Warning, sentence));
        }
        self.application_reasons(&mut found);
        found.extend(own);
        let me = self.me.clone();
        if let Some(span) = self.record.paused.filter(|_| self.is_paused()) {
            let length = spoken(span.length);
            let sentence = format!("{me} answers no failure, for {length}: the operator's wish");
            found.push(("paused", Severity::Warning, sentence));
        }
        if let Some(span) = self.record.maintenance.filter(|_| self.is_maintained()) {
            let length = spoken(span.length);
            let sentence = format!("{me} is in maintenance for {length}{maintained}");
            found.push(("maintenance", Severity::Warning, sentence));
        }
        let block = self.block.clone();
        let block = block.map(|block| (block.code, Severity::Warning, block.sentence, true));
        let found = found.into_iter();
        let found =
            found.map(|(code, severity, sentence)| (code.into(), severity, sentence, false));
        let found = block.into_iter().chain(found).map(|(code, severity, sentence, told)| Found {
            told,
            evidence: [self.failure_said(&code), self.span_says(&code)].concat(),
            next: next(self, &code),
            code,
            severity,
            sentence,
        });
        let found = found.collect();
        self.keep_reasons(found);
    }

    /// What to do about a reason that every such application may have.
    pub(crate) fn next_steps(&self, code: &str) -> Vec<String> {
        let (module, me) = (&self.module, &self.me);
        let start = format!("evenkeel start {module} --node {me}");
        match code {
            "service-failed" => vec![format!("evenkeel events {module}"), start],
            "gave-up" | "stopped-by-check" => vec![
                "mend what the facts above name".to_owned(),
                format!("then: {start}, which also forgets earlier failures"),
            ],
            "check-down" => vec![format!("evenkeel checks {module}")],
            "address-failed" => {
                vec!["mend what the sentence names: it is tried again by itself".to_owned()]
            }
            "check-waits" => vec![
                "mend what the check looks at: the application starts by itself then".to_owned(),
            ],
            "record-failed" => {
                vec![format!("make room on the disk of {me} that holds Evenkeel's state")]
            }
            "paused" => vec![format!("evenkeel resume {module}")],
            "maintenance" => vec![format!("evenkeel maintenance off {me}")],
            _ => Vec::new(),
        }
    }
}
