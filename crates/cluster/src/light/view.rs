//! What others see of a light module: its status for people, and its reasons.
//!
//! Reads only, but for the reasons, which keep when they began.

use std::collections::BTreeMap;

use model::{Copy, Headline, Phase, Role, Severity};

use super::{Light, State};
use crate::application::Base;
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
            takes_clients: (role, phase) == (Role::Up, Phase::Ready),
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
        self.base.show_reasons(Vec::new(), "", Base::next_steps);
    }
}
