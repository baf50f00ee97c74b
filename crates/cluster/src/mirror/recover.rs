//! What is done when the application fails: restart in place, failover, wait, stop.
//!
//! A check that is down and a start that fails are failures alike, and go through the same rules:
//!
//! ```text
//!   restart   stopped and started here, as long as `max_restarts` are not used up; then failover
//!   failover  the peer takes over if it is up to date and has not failed itself; else restart,
//!             and when those are used up, the module is stopped here
//!   wait      the peer takes over, or the application waits here until the check is up
//!   stop      the module is stopped here, and the peer takes over if it can
//!   none      shown
//! ```
//!
//! A start that fails as the role is taken up counts as `failover`: the peer had it a moment ago.
//! All that must be remembered is in the record, so that neither an end of the daemon nor one of
//! the node gives a failing application new attempts. When checks run is decided in `checks`.

use std::sync::Arc;
use std::time::Duration;

use model::config::CheckAction;
use model::{Role, Severity, Time};
use serde::{Deserialize, Serialize};

use super::checks::{Checks, down};
use super::facts::is_acting;
use super::{Mirror, Quit};
use crate::effect::ServiceAction;
use crate::input::ScriptError;
use crate::record::{GivenUp, Moment, Newest};
use crate::report::Report;

/// Failures that follow each other more closely are answered with a pause before the next start.
const PAUSE_WITHIN: Duration = Duration::from_secs(60);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is being done about a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recovery {
    pub(super) checks: Checks,
    step: Step,
    /// The last start failed, and nothing has been stopped or started since.
    start_failed: Option<ScriptError>,
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
struct Failure {
    action: CheckAction,
    sentence: String,
    evidence: Vec<String>,
}

impl Mirror {
    /// The application is started as the role is taken up.
    pub(super) fn start_service(&mut self) {
        self.recovery.taking = true;
        self.run_service(ServiceAction::Start);
    }

    /// A start has ended.
    pub(super) fn service_started(&mut self, error: Option<ScriptError>) {
        match &error {
            Some(error) => {
                let sentence = format!("the application did not start: {}", error.how);
                let said = error.said.clone();
                self.explain_with(Severity::Warning, "service-failed", sentence, said);
            }
            None if self.record.recovery.given_up.is_some() => {
                self.persist(|record| record.recovery.given_up = None);
            }
            None => {}
        }
        self.recovery.taking &= error.is_some();
        self.recovery.start_failed = error;
    }

    /// A stop has ended. In a restart what failed is shown until the next start is through.
    pub(super) fn service_stopped(&mut self) {
        if self.recovery.step != Step::Stopping {
            self.recovery.start_failed = None;
        }
    }

    /// Something else than a restart is done now.
    pub(super) fn leave_recovery(&mut self) {
        self.recovery.step = Step::Idle;
    }

    /// The operator's word: the application has all its attempts again.
    pub(super) fn forget_failures(&mut self) {
        if self.record.recovery != crate::record::Recovery::default() {
            self.persist(|record| record.recovery = crate::record::Recovery::default());
        }
        if let Step::Pausing { until } = &mut self.recovery.step {
            *until = self.now;
        }
    }

    /// Whether the application was started and nothing is being done to it.
    pub(super) fn is_at_rest(&self) -> bool {
        self.front.running
            && self.front.busy.is_none()
            && self.recovery.step == Step::Idle
            && self.recovery.start_failed.is_none()
            && self.undecided_since.is_none()
    }

    pub(super) fn is_restarting(&self) -> bool {
        self.recovery.step != Step::Idle
    }

    /// Why the last start failed, as long as that is so.
    pub(super) fn start_failure(&self) -> Option<&str> {
        self.recovery.start_failed.as_ref().map(|failed| failed.how.as_str())
    }

    /// A node that serves looks after its application.
    pub(super) fn recover_step(&mut self) -> bool {
        match self.recovery.step {
            Step::Idle => self.answer_failure(),
            Step::Stopping if self.front.busy.is_some() => false,
            Step::Stopping => {
                let until = self.now + self.breather();
                self.recovery.step = Step::Pausing { until };
                true
            }
            Step::Pausing { until } => {
                if !self.due(until) {
                    return false;
                }
                self.recovery.taking = false;
                self.run_service(ServiceAction::Start);
                self.recovery.step = Step::Starting;
                true
            }
            Step::Starting if self.front.busy.is_some() => false,
            Step::Starting => {
                self.recovery.step = Step::Idle;
                if self.recovery.start_failed.is_none() {
                    let sentence = format!("{} runs the application again", self.me);
                    self.info("restarted", sentence);
                }
                true
            }
        }
    }

    fn answer_failure(&mut self) -> bool {
        // While writes wait the application cannot do better.
        if self.undecided_since.is_some() || self.front.busy.is_some() || self.is_paused() {
            return false;
        }
        let Some(failure) = self.failure() else { return false };
        match failure.action {
            CheckAction::None => return false,
            CheckAction::Restart => self.restart_or_leave(failure),
            CheckAction::Failover if self.is_peer_fit() => self.leave_to_peer(failure),
            CheckAction::Failover => self.restart_or_leave(failure),
            CheckAction::Wait => self.wait_for_check(&failure),
            CheckAction::Stop => {
                let sentence = format!("{} stops the module: {}", self.me, failure.sentence);
                self.give_up("stopped-by-check", sentence, failure.evidence);
                self.begin_stop(false);
            }
        }
        true
    }

    /// The failure to answer first: the one whose answer settles the others.
    fn failure(&self) -> Option<Failure> {
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

    /// Whether the application may be left to the peer by itself, and the peer can take it.
    fn is_peer_fit(&mut self) -> bool {
        self.moves_by_itself() && self.is_peer_able()
    }

    /// Whether the peer can take over in order and has not failed itself.
    pub(super) fn is_peer_able(&mut self) -> bool {
        let able = |peer: Arc<Report>| !peer.hindered && !peer.maintained && !peer.leaving;
        self.heard().is_some_and(able) && self.is_protected() && self.in_contact()
    }

    fn restart_or_leave(&mut self, failure: Failure) {
        let (most, window) =
            (self.config.failover.max_restarts, self.config.failover.restart_window);
        let done = self.restarts_in_window();
        if u32::try_from(done).unwrap_or(u32::MAX) < most {
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
            return;
        }
        if self.is_peer_fit() {
            return self.leave_to_peer(failure);
        }
        let sentence = format!(
            "{} stops the module, as restarts within {} are used up ({most}) and {} cannot take \
             over: {}",
            self.me,
            spoken(window),
            self.peer_name,
            failure.sentence
        );
        self.give_up("gave-up", sentence, failure.evidence);
        self.begin_stop(true);
    }

    fn leave_to_peer(&mut self, failure: Failure) {
        let sentence = format!(
            "{} is to run the application, which failed on {}: {}",
            self.peer_name, self.me, failure.sentence
        );
        self.give_up("failed-over", sentence, failure.evidence);
        self.begin_hand_over(false);
    }

    /// Notes durably that this node is not to be given the application by its peer.
    fn give_up(&mut self, code: &str, sentence: String, evidence: Vec<String>) {
        self.explain_with(Severity::Critical, code, sentence.clone(), evidence.clone());
        let given_up = GivenUp { at: self.moment(), code: code.to_owned(), sentence, evidence };
        self.persist(|record| record.recovery.given_up = Some(given_up));
    }

    fn wait_for_check(&mut self, failure: &Failure) {
        let evidence = failure.evidence.clone();
        if self.is_peer_fit() {
            let (me, peer) = (&self.me, &self.peer_name);
            let why = &failure.sentence;
            let sentence = format!("{peer} is to run the application, which {me} cannot: {why}");
            self.explain_with(Severity::Warning, "failed-over", sentence, evidence);
            self.begin_hand_over(false);
            return;
        }
        let sentence = format!("{} stops the application until: {}", self.me, failure.sentence);
        self.explain_with(Severity::Warning, "check-waits", sentence, evidence);
        self.set_addresses(false);
        self.quit(Quit::Address);
    }

    /// A waiting node whose application could not run here only follows. None when nothing is in
    /// its way.
    pub(super) fn held_back(&mut self, peer: Option<&Report>) -> Option<bool> {
        if peer.is_some_and(is_acting) {
            return None;
        }
        if let Some((check, evidence)) = self.down_for(CheckAction::Wait) {
            let idle = peer.filter(|peer| peer.role == Role::Wait && !peer.hindered);
            if self.record.holds_role && idle.is_some_and(|peer| self.in_sync_with(peer)) {
                self.give_role(false);
                return Some(true);
            }
            let why = down(&check, &evidence);
            let sentence = format!("{} does not start the application before: {why}", self.me);
            return Some(self.block("check-waits", sentence));
        }
        let both = peer.is_some_and(|peer| peer.hindered && peer.role == Role::Stop);
        if both && self.given_up().is_some() {
            let sentence = format!(
                "the application failed on {} and on {}: neither starts it again by itself",
                self.peer_name, self.me
            );
            return Some(self.block("gave-up", sentence));
        }
        None
    }

    /// Whether the peer is not to leave the application to this node.
    pub(super) fn is_hindered(&self) -> bool {
        self.given_up().is_some() || self.down_for(CheckAction::Wait).is_some()
    }

    fn given_up(&self) -> Option<&GivenUp> {
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

    fn restarts_in_window(&self) -> usize {
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

    /// Why the application is not as it should be on this node.
    pub(super) fn recovery_reasons(&self, found: &mut Vec<(&'static str, Severity, String)>) {
        if let Some(why) = self.start_failure().filter(|_| self.front.running) {
            let sentence = format!("the application did not start: {why}");
            found.push(("service-failed", Severity::Critical, sentence));
        }
        let names = self.names_down();
        let taken = self.block.as_ref().is_some_and(|block| block.code == "check-waits");
        if !names.is_empty() && !taken {
            let sentence = match names.as_slice() {
                [one] => format!("check {one} is down on {}", self.me),
                _ => format!("checks {} are down on {}", names.join(", "), self.me),
            };
            found.push(("check-down", Severity::Warning, sentence));
        }
        if let Some(given_up) = self.given_up() {
            let severity = if self.record.started { Severity::Warning } else { Severity::Critical };
            let code = match given_up.code.as_str() {
                "gave-up" => "gave-up",
                "stopped-by-check" => "stopped-by-check",
                _ => "failed-over",
            };
            found.push((code, severity, given_up.sentence.clone()));
        }
        let hindered = self.peer.report.as_ref().is_some_and(|peer| peer.hindered);
        if hindered && self.is_acting_state() {
            let sentence = format!(
                "the application has failed on {}, or cannot run there: it takes over only if this \
                 node is lost",
                self.peer_name
            );
            found.push(("peer-hindered", Severity::Warning, sentence));
        }
        let count = self.restarts_in_window();
        if let Some(newest) = self.record.recovery.newest.as_ref().filter(|_| count > 0) {
            let sentence = format!(
                "the application was restarted {count} of {} times within {}, most recently as {}",
                self.config.failover.max_restarts,
                spoken(self.config.failover.restart_window),
                newest.sentence
            );
            found.push(("restarted", Severity::Info, sentence));
        }
    }

    /// What a failure showed itself by.
    pub(super) fn failure_said(&self, code: &str) -> Vec<String> {
        match code {
            "service-failed" => {
                let failed = self.recovery.start_failed.as_ref();
                failed.map(|failed| failed.said.clone()).unwrap_or_default()
            }
            "check-down" | "check-waits" => self.checks_say(),
            "gave-up" | "stopped-by-check" | "failed-over" => {
                self.given_up().map(|given_up| given_up.evidence.clone()).unwrap_or_default()
            }
            "restarted" => {
                let newest = self.record.recovery.newest.as_ref();
                newest.map(|newest| newest.evidence.clone()).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}

/// A span of time as people say it.
pub(super) fn spoken(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        seconds if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
