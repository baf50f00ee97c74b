//! Why an application is not as it should be, and how reasons are kept.
//!
//! A reason keeps its time of beginning as long as it holds. Which ones there are besides those of
//! the application, and what to do about any of them, is for the kinds of modules.

use std::borrow::Cow;

use model::{Phase, Reason, Role, Severity};

use super::{Base, spoken};

/// Something that is so now, and is shown.
pub(crate) struct Found {
    pub(crate) code: Cow<'static, str>,
    pub(crate) severity: Severity,
    pub(crate) sentence: String,
    /// To be told as an event too, as it begins.
    pub(crate) told: bool,
    pub(crate) evidence: Vec<String>,
    pub(crate) next: Vec<String>,
}

impl Base {
    /// Role and phase are these now.
    pub(crate) fn note_shown(&mut self, shown: (Role, Phase)) {
        if shown != self.shown {
            self.shown = shown;
            self.since = self.now;
        }
    }

    /// These reasons hold now, and no others; of two with the same code the first one.
    pub(crate) fn keep_reasons(&mut self, found: Vec<Found>) {
        let mut kept = std::mem::take(&mut self.reasons);
        for Found { code, severity, sentence, told, evidence, next } in found {
            if self.reasons.contains_key(code.as_ref()) {
                // Why the node waits comes first; told again in other words it would look new.
                continue;
            }
            let before = kept.remove(code.as_ref());
            let since = before.as_ref().map_or(self.now, |reason| reason.since);
            if before.is_none() && told {
                self.explain(severity, &code, sentence.clone());
            }
            let code = code.into_owned();
            let reason = Reason { code: code.clone(), sentence, severity, since, evidence, next };
            self.reasons.insert(code, reason);
        }
    }

    /// The reasons of now, worst first.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        let mut reasons: Vec<_> = self.reasons.values().cloned().collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.severity));
        reasons
    }

    /// Why the application is not as it should be on this node.
    pub(crate) fn application_reasons(&self, found: &mut Vec<(&'static str, Severity, String)>) {
        if let Some(error) = &self.front.address_error {
            let verb = if self.front.addresses { "taken" } else { "dropped" };
            let sentence = format!("the virtual addresses could not be {verb}: {error}");
            found.push(("address-failed", Severity::Critical, sentence));
        }
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

    /// What a failure of the application showed itself by.
    pub(crate) fn failure_said(&self, code: &str) -> Vec<String> {
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
