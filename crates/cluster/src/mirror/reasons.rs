//! Why the module is not green: derived from the facts after every input.
//!
//! How reasons are kept is in `application`, as are those of the application.

use std::borrow::Cow;

use model::{Copy, Phase, Role, Severity};

use super::facts::Standing;
use super::{Mirror, State};
use crate::application::Found;
use crate::status::ContactState;

impl Mirror {
    pub(crate) fn update_reasons(&mut self) {
        let shown = self.role();
        self.note_shown(shown);
        let mut found: Vec<(&'static str, Severity, String)> = Vec::new();
        self.copy_reason(&mut found);
        self.front_reasons(&mut found);
        self.pair_reasons(shown, &mut found);
        self.witness_reasons(&mut found);
        self.reach_reasons(&mut found);
        self.held_reasons(&mut found);
        // Most of the time there is nothing to tell, and then no facts are put into words.
        let nothing = found.is_empty() && self.block.is_none();
        let others = found.into_iter().map(|(code, severity, sentence)| {
            let code: Cow<'static, str> = code.into();
            (code, severity, sentence)
        });
        let evidence = if nothing { Vec::new() } else { self.evidence() };
        let all = self.block_reason().into_iter().chain(others);
        let all = all.map(|(code, severity, sentence)| {
            let blocks = self.block.as_ref().is_some_and(|block| block.code == code);
            Found {
                told: blocks || code == "split-brain",
                evidence: [self.says(&code), evidence.clone()].concat(),
                next: self.next_steps(&code),
                code,
                severity,
                sentence,
            }
        });
        let all = all.collect();
        self.keep_reasons(all);
    }

    /// The facts behind a reason that are its own.
    fn says(&self, code: &str) -> Vec<String> {
        let (script, failure) = (self.script_said(code), self.failure_said(code));
        [script, failure, self.span_says(code), self.reach_says(code), self.hold_off_said(code)]
            .concat()
    }

    fn block_reason(&self) -> Option<(Cow<'static, str>, Severity, String)> {
        let block = self.block.as_ref()?;
        let red = block.critical || self.is_acting_state();
        let severity = if red { Severity::Critical } else { Severity::Warning };
        Some((block.code.clone(), severity, block.sentence.clone()))
    }

    fn copy_reason(&self, found: &mut Vec<(&'static str, Severity, String)>) {
        let blocked = self.block.as_ref().is_some_and(|block| block.code == "copy-failed");
        if let Some(why) = self.copy_failed.as_ref().filter(|_| !blocked) {
            found.push(("copy-failed", Severity::Critical, format!("this copy failed: {why}")));
        }
    }

    fn front_reasons(&self, found: &mut Vec<(&'static str, Severity, String)>) {
        self.application_reasons(found);
        self.peer_reason(found);
        if self.fenced {
            let sentence = format!(
                "{} cannot tell whether {} went on, so it dropped its addresses",
                self.me, self.peer_name
            );
            found.push(("fenced", Severity::Critical, sentence));
        }
    }

    fn pair_reasons(
        &self,
        (role, phase): (Role, Phase),
        found: &mut Vec<(&'static str, Severity, String)>,
    ) {
        let keys = self.config_differences();
        let contact = self.contact(self.now);
        let peer = &self.peer_name;
        if !keys.is_empty() && contact == ContactState::Alive {
            let text = format!("the configuration of {peer} differs in: {}", keys.join(", "));
            found.push(("config-differs", Severity::Warning, text));
        }
        let split = self.peer.report.as_ref().is_some_and(|report| {
            let apart = matches!(self.standing(report), Standing::Split | Standing::Foreign);
            apart && report.copy != Copy::Inconsistent
        });
        if split && self.is_acting_state() && contact == ContactState::Alive {
            let text = format!("{} and {peer} both went on without the other", self.me);
            found.push(("split-brain", Severity::Critical, text));
        }
        let started = self.state != State::Stop;
        // Silent is a peer only that cannot be heard.
        let silent = started && !self.unread_reason(found);
        match contact {
            ContactState::DataLinkOnly if silent => {
                let text = format!("no heartbeats of {peer} arrive, but its data link lives");
                found.push(("control-plane-down", Severity::Warning, text));
            }
            ContactState::Lost if silent => {
                let text = format!("{peer} is silent");
                found.push(("peer-silent", Severity::Warning, text));
            }
            ContactState::Alive
            | ContactState::Listening
            | ContactState::DataLinkOnly
            | ContactState::Lost => {}
        }
        self.role_reasons((role, phase), contact, found);
        if let Some(how) = &self.replicator.owners_differ {
            let text = format!(
                "{how}: what belongs to them at one node belongs to somebody else at the other"
            );
            found.push(("owners-differ", Severity::Warning, text));
        }
        if self.undecided_since.is_some() {
            let text = format!("writes wait until it is decided how to go on without {peer}");
            found.push(("undecided", Severity::Critical, text));
        }
    }

    /// What a role that is not the wanted one says of this node's copy and its peer's.
    fn role_reasons(
        &self,
        (role, phase): (Role, Phase),
        contact: ContactState,
        found: &mut Vec<(&'static str, Severity, String)>,
    ) {
        let peer = &self.peer_name;
        if role == Role::Alone && phase == Phase::Ready {
            let text = if self.session.as_ref().is_some_and(|session| session.joined) {
                format!(
                    "{peer} is being brought up to date: until then only this node's copy counts"
                )
            } else {
                let text = format!("{peer} is not up to date: only this node's copy counts");
                match &self.join_failed {
                    Some(why) => format!("{text}; the last attempt to mend that ended: {why}"),
                    None => text,
                }
            };
            found.push(("alone", Severity::Warning, text));
        }
        let waits = self.state == State::Wait && contact == ContactState::Alive;
        if waits && self.block.is_none() {
            let text = format!("this node waits until {peer} brings it up to date");
            let text = match self.replicator.lost.as_ref().filter(|(id, _)| self.burnt == Some(*id))
            {
                Some((_, why)) => format!("{text}; the last attempt ended: {why}"),
                None => text,
            };
            found.push(("waits", Severity::Warning, text));
        }
        if role == Role::Second && phase != Phase::Ready {
            let text = "this copy is being brought up to date and cannot take over yet".to_owned();
            found.push(("resync", Severity::Warning, text));
        }
    }

    fn witness_reasons(&self, found: &mut Vec<(&'static str, Severity, String)>) {
        if !self.has_witness {
            let code_taken = self.block.as_ref().is_some_and(|block| block.code == "no-witness");
            if !code_taken && self.state != State::Stop && self.is_unwitnessed_policy() {
                let text = "no witness is configured: a cut link may let both nodes run".to_owned();
                found.push(("no-witness", Severity::Warning, text));
            }
            return;
        }
        let taken = self.block.as_ref().is_some_and(|block| block.code == "witness-unreachable");
        if let Some(why) = self.talk.unreachable.as_ref().filter(|_| !taken) {
            let text = format!("the witness cannot be asked, so a failover would wait: {why}");
            found.push(("witness-unreachable", Severity::Warning, text));
        }
        if self.witness_lags() && self.names_peer() && !self.is_sole() {
            let text = "the witness does not know this pair: a failover would wait".to_owned();
            found.push(("not-enrolled", Severity::Warning, text));
        }
        let acting = self.is_acting_state();
        let unfinished = self.names_peer() && self.is_sole();
        if acting && unfinished && self.record.registered != self.epoch_id() {
            let text = "the pair is not registered with the witness yet: no failover".to_owned();
            found.push(("join-unregistered", Severity::Warning, text));
        }
        if let Some(why) = self.talk.trouble.clone().filter(|_| acting) {
            found.push(("register-differs", Severity::Warning, why));
        }
    }

    fn evidence(&self) -> Vec<String> {
        let epoch = self.record.epoch.as_ref();
        let mut facts = vec![match epoch {
            Some(epoch) => {
                format!("own copy {} in epoch {} ({})", self.copy(), epoch.number, epoch.id)
            }
            None => "no data of the module yet".to_owned(),
        }];
        if let Some(report) = &self.peer.report {
            let silent = self.now.since(self.peer.received.unwrap_or_default());
            facts.push(format!(
                "{} said {} with copy {}, {} ms ago",
                self.peer_name,
                report.role,
                report.copy,
                silent.as_millis()
            ));
        }
        facts
    }

    pub(crate) fn next_steps(&self, code: &str) -> Vec<String> {
        let (module, peer) = (&self.module, &self.peer_name);
        let force = format!("evenkeel force-primary {module} --node {}", self.me);
        match code {
            "first-start-choice" | "no-current-copy" => vec![format!(
                "evenkeel force-primary {module} --node NODE, the one whose data are to be kept"
            )],
            "owners-differ" => vec![
                "give users and groups the same numbers on both nodes (usermod -u, groupmod -g)"
                    .to_owned(),
                format!("then: evenkeel stop {module}; evenkeel start {module}"),
            ],
            "config-differs" => vec![
                "on the node that has the right files: evenkeel plan".to_owned(),
                "evenkeel apply".to_owned(),
            ],
            "data-missing" => self.missing_steps(),
            "not-up-to-date" | "peer-blocked" | "outvoted" => vec![
                format!("evenkeel start {module} on {peer}"),
                format!("if {peer} is lost for ever: {force}"),
            ],
            "isolated"
            | "undecided"
            | "crashed-copy"
            | "witness-unreachable"
            | "witness-unsure"
            | "not-enrolled"
            | "no-witness" => vec![
                format!("bring {peer} back"),
                format!("only if {peer} is certainly dead: {force}"),
            ],
            "no-consent" => vec![
                format!("evenkeel why {module} on {peer}: it may not be able to write that down"),
                format!("only if {peer} must stay behind: {force}"),
            ],
            "peer-hindered" => vec![format!("evenkeel why {module} on {peer}")],
            "copy-failed" => vec![
                format!("mend or replace the disk of {}", self.me),
                format!("then: evenkeel start {module}"),
            ],
            "before-resync-failed" => vec![
                "mend the script, or what it needs: it is tried again by itself".to_owned(),
                format!("to have it tried at once: evenkeel start {module}"),
            ],
            "split-brain" | "different-data" => self.heal_steps(),
            "waits" => vec![format!("evenkeel why {module} on {peer}")],
            "alone" | "peer-silent" => vec![format!("bring {peer} back; it joins by itself")],
            _ => {
                [self.application_steps(code), self.held_steps(code), self.unwitnessed_steps(code)]
                    .concat()
            }
        }
    }

    fn missing_steps(&self) -> Vec<String> {
        let (module, peer) = (&self.module, &self.peer_name);
        let mut steps = vec![
            "mount the data disk".to_owned(),
            format!("then restart the daemon and: evenkeel start {module}"),
        ];
        if self.is_fillable() {
            steps.push(format!("only if it was replaced: evenkeel heal {module} --keep {peer}"));
        }
        steps
    }

    fn application_steps(&self, code: &str) -> Vec<String> {
        let (module, peer) = (&self.module, &self.peer_name);
        match code {
            "service-failed" => {
                vec![format!("evenkeel events {module}"), format!("evenkeel start {module}")]
            }
            "gave-up" | "stopped-by-check" => vec![
                "mend what the facts above name".to_owned(),
                format!("then: evenkeel start {module}, which also forgets earlier failures"),
            ],
            "failed-over" => vec![
                format!("mend the application on {}", self.me),
                format!("then: evenkeel start {module} --node {}", self.me),
            ],
            "check-down" => vec![format!("evenkeel checks {module}")],
            "check-waits" => vec![
                "mend what the check looks at: the application starts by itself then".to_owned(),
                format!("to have {peer} run it: evenkeel stop {module} --node {}", self.me),
            ],
            _ => Vec::new(),
        }
    }
}
