//! What others see of a farm module: its status for people, and what a following daemon finds.

use std::collections::BTreeMap;

use model::config::ModuleConfig;
use model::{Copy, Headline, NodeName, Phase, Role, Severity};

use super::{Farming, State};
use crate::application::Base;
use crate::effect::Assignment;
use crate::farm::Part;
use crate::input::{BootModule, DataState, Running};
use crate::status::{ModuleStatus, WitnessState};

impl Farming {
    pub(crate) fn role(&self) -> (Role, Phase) {
        match self.state {
            State::Stop => (Role::Stop, Phase::Ready),
            State::Wait if self.base.block.is_some() => (Role::Wait, Phase::NotReady),
            State::Take(_) if self.base.front.address_error.is_some() => {
                (Role::Wait, Phase::NotReady)
            }
            State::Wait | State::Take(_) => (Role::Wait, Phase::Transient),
            State::Leave(_) if self.base.record.started => (Role::Wait, Phase::Transient),
            State::Leave(_) => (Role::Stop, Phase::Transient),
            State::Up if self.base.start_failure().is_some() => (Role::Up, Phase::NotReady),
            State::Up if self.farm.is_estranged() => (Role::Up, Phase::NotReady),
            State::Up if self.base.is_restarting() => (Role::Up, Phase::Transient),
            State::Up if self.proving => (Role::Up, Phase::Transient),
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
            takes_clients: self.state == State::Up && self.farm.part() == Part::Ready,
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

    /// Whether its nodes stay with other modules' files, unless it is stopped: they count each
    /// other by their places in that list, so that it cannot change under them.
    pub(crate) fn keeps_nodes(&self, after: &[ModuleConfig]) -> Result<(), String> {
        let (name, nodes) = (&self.base.module, &self.base.config.nodes);
        let stays = after.iter().find(|config| config.name == *name);
        let same = stays.is_some_and(|config| config.nodes == *nodes);
        if same || self.role().0 == Role::Stop {
            return Ok(());
        }
        let nodes: Vec<String> = nodes.iter().map(|node| format!("\"{node}\"")).collect();
        let nodes = nodes.join(", ");
        Err(format!(
            "{name} is a farm of all nodes, and runs: stop it first, or name its nodes in its \
             file (nodes = [{nodes}]) and `evenkeel apply` that"
        ))
    }

    pub(super) fn update_reasons(&mut self) {
        let shown = self.role();
        self.base.note_shown(shown);
        let mut own = Vec::new();
        self.farm_reasons(&mut own);
        self.base.show_reasons(own, ": it takes no new clients", next_steps);
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
            let sentence = format!(
                "{me} serves nobody: the others follow a node that does not hear {me}, or that \
                 {me} does not hear"
            );
            found.push(("farm-estranged", Severity::Critical, sentence));
        }
        if let Some(node) = self.farm.other_roster() {
            let sentence = format!("the nodes of the farm are others in the file of {node}");
            found.push(("config-differs", Severity::Warning, sentence));
        }
        let held = self.farm.held();
        if !held.is_empty() && self.state == State::Up {
            let names: Vec<&str> = held.iter().map(NodeName::as_str).collect();
            let sentence = format!(
                "{} was lost again and again: it gets clients once it has stayed for a while",
                names.join(", ")
            );
            found.push(("farm-unsteady", Severity::Warning, sentence));
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
}

/// What to do about a reason.
pub(super) fn next_steps(base: &Base, code: &str) -> Vec<String> {
    match code {
        "farm-filter-failed" => base.next_steps("address-failed"),
        "farm-estranged" => vec!["mend the network between the nodes".to_owned()],
        "farm-incomplete" => vec!["start the module there, or bring the node back".to_owned()],
        "farm-unsteady" => vec!["find out why it comes and goes: evenkeel events".to_owned()],
        "farm-nobody" => vec![format!("evenkeel start {}", base.module)],
        "config-differs" => vec!["evenkeel plan".to_owned()],
        _ => base.next_steps(code),
    }
}
