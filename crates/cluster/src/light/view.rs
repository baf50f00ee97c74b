//! What others see of a light module: its status for people, and its reasons.
//!
//! Reads only, but for the reasons, which keep when they began.

use std::collections::BTreeMap;

use model::{Copy, Headline, Phase, Role, Severity};

use super::{Light, State};
use crate::application::{Found, spoken};
use crate::effect::Assignment;
use crate::input::{BootModule, DataState, Running};
use crate::status::{ModuleStatus, WitnessState};

impl Light {
    pub(crate) fn role(&self) -> (Role, Phase) {
        match self.state {
            State::Stop => (Role::Stop, Phase::Ready),
            State::Wait if self.base.block.is_some() => (Role::Wait, Phase::NotReady),
            State::Wait => (Role::Wait, Phase::Transient),
            State::Take(_) | State::Leave(_) => (Role::Up, Phase::Transient),
            State::Up if self.base.start_failure().is_some() => (Role::Up, Phase::NotReady),
            State::Up if self.base.is_restarting() => (Role::Up, Phase::Transient),
            State::Up => (Role::Up, Phase::Ready),
        }
    }

    pub(crate) fn status(&self) -> ModuleStatus {
        let (role, phase) = self.role();
        ModuleStatus {
            kind: self.base.config.kind,
            headline: self.headline(role, phase),
            role,
            phase,
            since: self.base.since,
            started: self.base.record.started,
            copy: Copy::None,
            up_to_date: false,
            epoch: 0,
            reasons: self.base.reasons(),
            peer: None,
            farm: None,
            witness: WitnessState::None,
            session: None,
            addresses: self.base.front.addresses,
            service: self.base.front.running,
            checks: self.base.check_statuses(),
        }
    }

    fn headline(&self, role: Role, phase: Phase) -> Headline {
        let amber = self.base.reasons.values().any(|reason| reason.severity > Severity::Info);
        match (role, phase) {
            (Role::Up, Phase::NotReady) => Headline::Down,
            (Role::Up | Role::Wait, Phase::Transient) => Headline::Changing,
            (Role::Up, Phase::Ready) if amber => Headline::AtRisk,
            (Role::Up, Phase::Ready) => Headline::Runs,
            (Role::Wait | Role::Stop, _) | (Role::Prim | Role::Alone | Role::Second, _) => {
                Headline::Down
            }
        }
    }

    /// What a daemon that is started now would find.
    pub(crate) fn found(&self) -> BootModule {
        let front = &self.base.front;
        let running = Running {
            assignment: Assignment::Close,
            addresses: front.addresses,
            service: front.running,
            farm: None,
        };
        BootModule {
            config: self.base.config.clone(),
            digest: BTreeMap::new(),
            record: self.base.record.clone(),
            data: DataState::Empty,
            running: (front.addresses || front.running).then_some(running),
        }
    }

    pub(super) fn update_reasons(&mut self) {
        let shown = self.role();
        self.base.note_shown(shown);
        let mut found = Vec::new();
        if let Some(block) = &self.base.block {
            let severity = Severity::Warning;
            found.push((block.code.clone(), severity, block.sentence.clone(), true));
        }
        let mut others = Vec::new();
        if let Some(error) = &self.base.persist_error {
            let sentence = format!("the record cannot be written: {error}");
            others.push(("record-failed", Severity::Warning, sentence));
        }
        self.base.application_reasons(&mut others);
        self.span_reasons(&mut others);
        let others = others.into_iter();
        found.extend(
            others.map(|(code, severity, sentence)| (code.into(), severity, sentence, false)),
        );
        let found = found.into_iter().map(|(code, severity, sentence, told)| Found {
            told,
            evidence: [self.base.failure_said(&code), self.base.span_says(&code)].concat(),
            next: self.next_steps(&code),
            code,
            severity,
            sentence,
        });
        let found = found.collect();
        self.base.keep_reasons(found);
    }

    fn span_reasons(&mut self, found: &mut Vec<(&'static str, Severity, String)>) {
        let me = self.base.me.clone();
        if let Some(span) = self.base.record.paused.filter(|_| self.base.is_paused()) {
            let length = spoken(span.length);
            let sentence = format!("{me} answers no failure, for {length}: the operator's wish");
            found.push(("paused", Severity::Warning, sentence));
        }
        if let Some(span) = self.base.record.maintenance.filter(|_| self.base.is_maintained()) {
            let length = spoken(span.length);
            let sentence = format!("{me} is in maintenance for {length}");
            found.push(("maintenance", Severity::Warning, sentence));
        }
    }

    /// What to do about a reason.
    pub(super) fn next_steps(&self, code: &str) -> Vec<String> {
        let (module, me) = (&self.base.module, &self.base.me);
        let start = format!("evenkeel start {module} --node {me}");
        match code {
            "service-failed" => vec![format!("evenkeel events {module}"), start],
            "gave-up" | "stopped-by-check" => vec![
                "mend what the facts above name".to_owned(),
                format!("then: {start}, which also forgets earlier failures"),
            ],
            "check-down" => vec![format!("evenkeel checks {module}")],
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
