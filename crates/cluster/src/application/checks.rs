//! What the checks of the application say, and which of them are to be carried out.
//!
//! All of them run where the application runs and nothing is being done to it; while it starts,
//! stops or is being restarted, or while writes wait for a decision, a failure would not be its
//! own. A check that the application waits for goes on while it is down, whatever the node does, as
//! that is how its end is noticed. Each change of what runs has a new serial: what an earlier one
//! said is not believed. What follows from a check that is down is in `recover`.

use std::collections::{BTreeMap, BTreeSet};

use model::config::{CheckAction, CheckConfig};
use model::{ModuleName, Severity, Time};
use serde::{Deserialize, Serialize};

use super::Base;
use crate::effect::Effect;
use crate::status::{CheckState, CheckStatus};

/// What is known of the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checks {
    serial: u64,
    /// Which are carried out.
    running: BTreeSet<ModuleName>,
    /// What they have said, as long as they are carried out.
    seen: BTreeMap<ModuleName, Seen>,
    /// Since when the set is what it is.
    since: Time,
    /// The shell may carry out others: what it was told last came after a record that could not be
    /// written, and was dropped.
    #[serde(default)]
    untold: bool,
}

/// What a check has said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    up: bool,
    since: Time,
    evidence: Vec<String>,
}

impl Checks {
    /// A record could not be written: whatever was wanted of the shell after it was not done. It is
    /// told anew what to carry out, under a serial that it has not heard.
    pub(super) fn retell(&mut self, heard: u64) {
        self.serial = self.serial.max(heard);
        self.untold = true;
    }

    /// The newest that the shell may have heard.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }
}

impl Base {
    /// A check is up or down, other than before.
    pub(crate) fn hear_check(
        &mut self,
        serial: u64,
        check: ModuleName,
        up: bool,
        evidence: Vec<String>,
    ) {
        if serial != self.recovery.checks.serial || !self.recovery.checks.running.contains(&check) {
            return;
        }
        let before = self.recovery.checks.seen.get(&check).map(|seen| seen.up);
        if before == Some(up) {
            return;
        }
        if !up {
            let sentence = down(&check, &evidence);
            self.explain_with(Severity::Warning, "check-down", sentence, evidence.clone());
        } else if before.is_some() {
            self.info("check-up", format!("check {check} is up again"));
        }
        self.recovery.checks.seen.insert(check, Seen { up, since: self.now, evidence });
    }

    /// Has those checks carried out that the present state wants: all of them where the application
    /// `runs` and is left alone.
    pub(crate) fn run_checks(&mut self, runs: bool) {
        let wanted = self.wanted_checks(runs);
        if wanted == self.recovery.checks.running && !self.recovery.checks.untold {
            return;
        }
        self.recovery.checks.untold = false;
        self.recovery.checks.seen.retain(|name, _| wanted.contains(name));
        self.recovery.checks.serial += 1;
        self.recovery.checks.since = self.now;
        self.recovery.checks.running.clone_from(&wanted);
        self.effects.push(Effect::RunChecks {
            module: self.module.clone(),
            serial: self.recovery.checks.serial,
            checks: wanted,
        });
    }

    fn wanted_checks(&self, runs: bool) -> BTreeSet<ModuleName> {
        let all = self.config.checks.iter();
        if runs {
            all.map(|check| check.name.clone()).collect()
        } else if self.record.started {
            all.filter(|check| self.is_waited_for(check)).map(|check| check.name.clone()).collect()
        } else {
            BTreeSet::new()
        }
    }

    fn is_waited_for(&self, check: &CheckConfig) -> bool {
        check.action == CheckAction::Wait && self.is_down(&check.name)
    }

    /// Whether a check that matters has not yet been up since the application was started.
    pub(crate) fn awaits_checks(&self) -> bool {
        let matters = self.config.checks.iter().filter(|check| check.action != CheckAction::None);
        let seen = &self.recovery.checks.seen;
        matters.into_iter().any(|check| seen.get(&check.name).is_none_or(|seen| !seen.up))
    }

    fn is_down(&self, check: &ModuleName) -> bool {
        self.recovery.checks.seen.get(check).is_some_and(|seen| !seen.up)
    }

    /// A check that is down whose action is this one: the first in the configuration.
    pub(crate) fn down_for(&self, action: CheckAction) -> Option<(ModuleName, Vec<String>)> {
        let mut checks = self.config.checks.iter();
        let check = checks.find(|check| check.action == action && self.is_down(&check.name))?;
        let evidence = self.recovery.checks.seen.get(&check.name).map(|seen| seen.evidence.clone());
        Some((check.name.clone(), evidence.unwrap_or_default()))
    }

    /// What checks that are down say, as evidence.
    pub(crate) fn checks_say(&self) -> Vec<String> {
        let down = self.recovery.checks.seen.iter().filter(|(_, seen)| !seen.up);
        down.flat_map(|(name, seen)| {
            seen.evidence.iter().map(move |fact| format!("{name}: {fact}"))
        })
        .collect()
    }

    pub(crate) fn names_down(&self) -> Vec<&str> {
        let down = self.recovery.checks.seen.iter().filter(|(_, seen)| !seen.up);
        down.map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn check_statuses(&self) -> BTreeMap<ModuleName, CheckStatus> {
        let each = |check: &CheckConfig| {
            let seen = self.recovery.checks.seen.get(&check.name);
            let state = match seen {
                Some(Seen { up: true, .. }) => CheckState::Up,
                Some(Seen { up: false, .. }) => CheckState::Down,
                None if self.recovery.checks.running.contains(&check.name) => CheckState::Unknown,
                None => CheckState::Paused,
            };
            let status = CheckStatus {
                state,
                since: seen.map_or(self.recovery.checks.since, |seen| seen.since),
                looks_at: check.kind.to_string(),
                action: check.action,
                evidence: seen.map(|seen| seen.evidence.clone()).unwrap_or_default(),
            };
            (check.name.clone(), status)
        };
        self.config.checks.iter().map(each).collect()
    }
}

/// That a check is down, and how that shows.
pub(crate) fn down(check: &ModuleName, evidence: &[String]) -> String {
    match evidence.first() {
        Some(first) => format!("check {check} is down: {first}"),
        None => format!("check {check} is down"),
    }
}
