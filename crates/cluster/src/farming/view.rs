//! What others see of a farm module: its status for people, and what a following daemon finds.

use std::collections::BTreeMap;

use model::{Copy, Headline, Phase, Role, Severity};

use super::{Farming, State};
use crate::application::{Found, spoken};
use crate::effect::Assignment;
use crate::farm::Part;
use crate::input::{BootModule, DataState, Running};
use crate::status::{ModuleStatus, WitnessState};

impl Farming {
    pub(super) fn role(&self) -> (Role, Phase) {
        match self.state {
            State::Stop => (Role::Stop, Phase::Ready),
            State::Wait if self.base.block.is_some() => (Role::Wait, Phase::NotReady),
            State::Wait | State::Take(_) => (Role::Wait, Phase::Transient),
            State::Leave(_) if self.base.record.started => (Role::Wait, Phase::Transient),
            State::Leave(_) => (Role::Stop, Phase::Transient),
            State::Up if self.base.start_failure().is_some() => (Role::Up, Phase::NotReady),
            State::Up if self.farm.is_estranged() => (Role::Up, Phase::NotReady),
            State::Up if self.base.is_restarting() => (Role::Up, Phase::Transient),
            State::Up if self.farm.leader().is_none() => (Role::Up, Phase::Transient),
            State::Up if self.awaits_share() => (Role::Up, Phase::Transient),
            State::Up => (Role::Up, Phase::Ready),
        }
    }

    /// Whether it may serve, and has no share yet.
    fn awaits_share(&self) -> bool {
        let may = self.farm.part() == Part::Ready && self.farm.settings().weight > 0;
        may && self.farm.count() == 0
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
            witness: WitnessState::None,
            session: None,
            addresses: self.base.front.addresses,
            service: self.base.front.running,
            checks: self.base.check_statuses(),
            farm: Some(self.farm.view()),
        }
    }

    fn headline(&self, role: Role, phase: Phase) -> Headline {
        let amber = self.base.reasons.values().any(|reason| reason.severity > Severity::Info);
        let view = self.farm.view();
        let others = view.members.iter().filter(|member| member.node != self.base.me);
        let served = others.clone().any(|member| member.heard && member.buckets > 0);
        match (role, phase) {
            (Role::Up, Phase::Ready) if !amber => Headline::Protected,
            (Role::Up | Role::Wait | Role::Stop, _) if served && phase != Phase::Transient => {
                Headline::AtRisk
            }
            (Role::Up, Phase::Ready) => Headline::AtRisk,
            (_, Phase::Transient) => Headline::Changing,
            (Role::Stop, _) => Headline::Unknown,
            (Role::Up | Role::Wait | Role::Prim | Role::Alone | Role::Second, _) => Headline::Down,
        }
    }

    /// What a daemon that is started now would find.
    pub(crate) fn found(&self) -> BootModule {
        let front = &self.base.front;
        let running = Running {
            assignment: Assignment::Close,
            addresses: front.addresses,
            service: front.running,
            farm: Some(Box::new(self.farm.left())),
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
            found.push((block.code.clone(), Severity::Warning, block.sentence.clone(), true));
        }
        let mut others = Vec::new();
        if let Some(error) = &self.base.persist_error {
            let sentence = format!("the record cannot be written: {error}");
            others.push(("record-failed", Severity::Warning, sentence));
        }
        self.base.application_reasons(&mut others);
        self.farm_reasons(&mut others);
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

    fn farm_reasons(&self, found: &mut Vec<(&'static str, Severity, String)>) {
        if matches!(self.state, State::Stop | State::Wait) {
            return;
        }
        let me = &self.base.me;
        if let Some((error, _)) = &self.filter_failed {
            let sentence = format!("the kernel does not take the shares: {error}");
            found.push(("farm-filter-failed", Severity::Critical, sentence));
        }
        if self.farm.is_estranged() {
            let sentence =
                format!("{me} serves nobody: the others follow a node that {me} does not hear");
            found.push(("farm-estranged", Severity::Critical, sentence));
        }
        if let Some(node) = self.farm.other_roster() {
            let sentence = format!("the nodes of the farm are others in the file of {node}");
            found.push(("config-differs", Severity::Warning, sentence));
        }
        let view = self.farm.view();
        let away = view
            .members
            .iter()
            .filter(|member| member.node != *me && (!member.heard || member.part < Part::Draining));
        let names: Vec<&str> = away.map(|member| member.node.as_str()).collect();
        if !names.is_empty() && self.state == State::Up {
            let sentence = format!("the farm goes on without {}", names.join(", "));
            found.push(("farm-incomplete", Severity::Warning, sentence));
        }
        let owned: usize = view.members.iter().map(|member| member.buckets).sum();
        if owned == 0 && view.leader.is_some() && self.state == State::Up {
            let sentence = "no node of the farm may serve: clients get no answer".to_owned();
            found.push(("farm-nobody", Severity::Critical, sentence));
        }
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
            let sentence = format!("{me} is in maintenance for {length}: it takes no new clients");
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
            "address-failed" | "farm-filter-failed" => {
                vec!["mend what the sentence names: it is tried again by itself".to_owned()]
            }
            "farm-estranged" => vec!["mend the network between the nodes".to_owned()],
            "farm-incomplete" => vec!["start the module there, or bring the node back".to_owned()],
            "farm-nobody" => vec![format!("evenkeel start {module}")],
            "config-differs" => vec!["evenkeel plan".to_owned()],
            "record-failed" => {
                vec![format!("make room on the disk of {me} that holds Evenkeel's state")]
            }
            "paused" => vec![format!("evenkeel resume {module}")],
            "maintenance" => vec![format!("evenkeel maintenance off {me}")],
            _ => Vec::new(),
        }
    }
}
