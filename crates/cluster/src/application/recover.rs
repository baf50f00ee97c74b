//! What is done about an application that fails, as far as it is done in place.
//!
//! A check that is down and a start that fails are failures alike. Each is answered by what its
//! check says, which kinds of modules understand in their own ways; here is what they share: which
//! failure is answered first, how often the application is restarted, with which pauses, and that a
//! node has given it up. All that must be remembered is in the record, so that neither an end of
//! the daemon nor one of the node gives a failing application new attempts.

use std::time::Duration;

use model::config::CheckAction;
use model::{Severity, Time};
use serde::{Deserialize, Serialize};

use super::checks::{Checks, down};
use super::{Base, spoken};
use crate::effect::ServiceAction;
use crate::input::ScriptError;
use crate::record::{GivenUp, Moment, Newest};

/// Failures that follow each other more closely are answered with a pause before the next start.
const PAUSE_WITHIN: Duration = Duration::from_secs(60);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is being done about a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recovery {
    pub(crate) checks: Checks,
    step: Step,
    /// The last start failed, and nothing has been stopped or started since.
    pub(super) start_failed: Option<ScriptError>,
    /// The start under way is the first one since the role was taken up.
    taking: bool,
}

/// Steps of a restart in place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    #[default]
    Idle,
    Stopping,
    Pausing {
        until: Time,
    },
    Starting,
}

/// A failure, and what is to be done about it.
pub(crate) struct Failure {
    pub(crate) action: CheckAction,
    pub(crate) sentence: String,
    pub(crate) evidence: Vec<String>,
}

impl Base {
    /// The application is started as this node is to have it: if that fails, another node should.
    pub(crate) fn start_service(&mut self) {
        self.recovery.taking = true;
        self.run_service(ServiceAction::Start);
    }

    /// A start has ended.
    pub(crate) fn service_started(&mut self, error: Option<ScriptError>) {
        self.recovery.taking &= error.is_some();
        self.recovery.start_failed.clone_from(&error);
        match error {
            Some(error) => {
                let sentence = format!("the application did not start: {}", error.how);
                self.explain_with(Severity::Warning, "service-failed", sentence, error.said);
            }
            None if self.record.recovery.given_up.is_some() => {
                self.persist(|record| record.recovery.given_up = None);
            }
            None => {}
        }
    }

    /// A stop has ended. In a restart what failed is shown until the next start is through.
    pub(crate) fn service_stopped(&mut self) {
        if self.recovery.step != Step::Stopping {
            self.recovery.start_failed = None;
        }
    }

    /// Something else than a restart is done now.
    pub(crate) fn leave_recovery(&mut self) {
        self.recovery.step = Step::Idle;
    }

    /// The operator's word: the application has all its attempts again.
    pub(crate) fn forget_failures(&mut self) {
        if self.record.recovery != crate::record::Recovery::default() {
            self.persist(|record| record.recovery = crate::record::Recovery::default());
        }
        if let Step::Pausing { until } = &mut self.recovery.step {
            *until = self.now;
        }
    }

    /// Whether the application was started and nothing is being done to it.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.front.running
            && self.front.busy.is_none()
            && self.recovery.step == Step::Idle
            && self.recovery.start_failed.is_none()
    }

    pub(crate) fn is_restarting(&self) -> bool {
        self.recovery.step != Step::Idle
    }

    /// Why the last start failed, as long as that is so.
    pub(crate) fn start_failure(&self) -> Option<&str> {
        self.recovery.start_failed.as_ref().map(|failed| failed.how.as_str())
    }

    /// Goes on with a restart; none when the application is not being restarted.
    pub(crate) fn restart_step(&mut self) -> Option<bool> {
        match self.recovery.step {
            Step::Idle => return None,
            Step::Stopping | Step::Starting if self.front.busy.is_some() => return Some(false),
            Step::Stopping => {
                let until = self.now + self.breather();
                self.recovery.step = Step::Pausing { until };
            }
            Step::Pausing { until } => {
                if !self.due(until) {
                    return Some(false);
                }
                self.recovery.taking = false;
                self.run_service(ServiceAction::Start);
                self.recovery.step = Step::Starting;
            }
            Step::Starting => {
                self.recovery.step = Step::Idle;
                if self.recovery.start_failed.is_none() {
                    let sentence = format!("{} runs the application again", self.me);
                    self.info("restarted", sentence);
                }
            }
        }
        Some(true)
    }

    /// The failure to answer first: the one whose answer settles the others.
    pub(crate) fn failure(&self) -> Option<Failure> {
        if let Some(failed) = &self.recovery.start_failed {
            let taking = self.recovery.taking;
            return Some(Failure {
                action: if taking { CheckAction::Failover } else { CheckAction::Restart },
                sentence: format!("the application did not start: {}", failed.how),
                evidence: failed.said.clone(),
            });
        }
        let order =
            [CheckAction::Stop, CheckAction::Wait, CheckAction::Failover, CheckAction::Restart];
        order.into_iter().find_map(|action| {
            let (check, evidence) = self.down_for(action)?;
            Some(Failure { action, sentence: down(&check, &evidence), evidence })
        })
    }

    /// Restarts the application in place, unless it was restarted as often as it may be: then the
    /// failure is handed back.
    pub(crate) fn restart(&mut self, failure: Failure) -> Result<(), Failure> {
        let (most, window) =
            (self.config.failover.max_restarts, self.config.failover.restart_window);
        let done = self.restarts_in_window();
        if u32::try_from(done).unwrap_or(u32::MAX) >= most {
            return Err(failure);
        }
        let sentence = format!(
            "{} restarts the application, {} of {most} times within {}: {}",
            self.me,
            done + 1,
            spoken(window),
            failure.sentence
        );
        self.note_restart(failure);
        self.warn("restarts", sentence);
        self.run_service(ServiceAction::Stop);
        self.recovery.step = Step::Stopping;
        Ok(())
    }

    /// Notes durably that this node does not run the application any more because that failed.
    pub(crate) fn give_up(&mut self, code: &str, sentence: String, evidence: Vec<String>) {
        self.explain_with(Severity::Critical, code, sentence.clone(), evidence.clone());
        let given_up = GivenUp { at: self.moment(), code: code.to_owned(), sentence, evidence };
        self.persist(|record| record.recovery.given_up = Some(given_up));
    }

    pub(crate) fn given_up(&self) -> Option<&GivenUp> {
        let given_up = self.record.recovery.given_up.as_ref()?;
        self.is_remembered(given_up.at).then_some(given_up)
    }

    fn note_restart(&mut self, failure: Failure) {
        let now = self.moment();
        let remembered: Vec<Moment> = self.remembered().collect();
        let newest = Newest { sentence: failure.sentence, evidence: failure.evidence };
        self.persist(|record| {
            record.recovery.restarts = remembered;
            record.recovery.restarts.push(now);
            record.recovery.newest = Some(newest);
        });
    }

    fn moment(&self) -> Moment {
        Moment { boot: self.boot, at: self.now }
    }

    fn remembered(&self) -> impl Iterator<Item = Moment> + '_ {
        let all = self.record.recovery.restarts.iter().copied();
        all.filter(|moment| self.is_remembered(*moment))
    }

    pub(super) fn restarts_in_window(&self) -> usize {
        self.remembered().count()
    }

    /// How long ago something in an earlier boot was cannot be known: it counts as if it had been
    /// when this one began.
    fn is_remembered(&self, moment: Moment) -> bool {
        let at = if moment.boot == self.boot { moment.at } else { Time::ZERO };
        self.now.since(at) < self.config.failover.restart_window
    }

    /// None before the first restart in a while; then longer from one to the next.
    fn breather(&self) -> Duration {
        let close =
            |moment: &Moment| moment.boot == self.boot && self.now.since(moment.at) < PAUSE_WITHIN;
        let before = self.remembered().filter(close).count().saturating_sub(1);
        match u32::try_from(before).unwrap_or(u32::MAX) {
            0 => Duration::ZERO,
            count => Duration::from_secs(1 << (count - 1).min(5)).min(PAUSE_MAX),
        }
    }
}
