//! Those who wait for a module to be in a state: told of progress, answered when it is reached or
//! their time is up. Nothing is brought about here.

use std::sync::mpsc::Sender;

use cluster::status::ModuleStatus;
use model::config::{ModuleConfig, ModuleKind};
use model::{Headline, ModuleName, NodeName, Phase, Role, Time};
use wire::control::{Exit, Reply, WaitFor};

use crate::daemon::Daemon;
use crate::daemon::event::Line;

/// Somebody waits for a module to be in a state.
pub(super) struct Waiting {
    module: ModuleName,
    state: WaitFor,
    until: Time,
    told: String,
    lines: Sender<Line>,
}

impl Daemon {
    /// Answers those whose state has been reached or whose time is up.
    pub(super) fn answer_waiting(&mut self, now: Time) {
        if self.waiting.is_empty() {
            return;
        }
        let status = self.node.status(now);
        let modules = &self.modules;
        self.waiting.retain_mut(|waiting| {
            let Some(module) = status.modules.get(&waiting.module) else { return false };
            let progress = modules.get(&waiting.module).map(|module| &module.progress);
            waiting.look(module, progress, now)
        });
    }
}

impl Waiting {
    pub(super) fn new(
        module: ModuleName,
        state: WaitFor,
        until: Time,
        lines: Sender<Line>,
    ) -> Waiting {
        Waiting { module, state, until, told: String::new(), lines }
    }

    /// Whether to go on waiting.
    fn look(
        &mut self,
        module: &ModuleStatus,
        progress: Option<&wire::local::Progress>,
        now: Time,
    ) -> bool {
        let name = &self.module;
        let state = state_sentence(name, module);
        if self.is_reached(module) {
            let _ = self.lines.send(Line::Reply(Reply::new(Exit::Done, state)));
            return false;
        }
        if now >= self.until {
            let mut reply = Reply::new(Exit::Timeout, format!("not reached in time: {state}"));
            reply.next = vec![format!("evenkeel why {name}")];
            let _ = self.lines.send(Line::Reply(reply));
            return false;
        }
        let resync = progress.filter(|progress| progress.running).map(|progress| {
            let whole = progress.bytes_total.max(1);
            format!("; resync {} %", progress.bytes * 100 / whole)
        });
        let told = state + &resync.unwrap_or_default();
        if told != self.told {
            self.told.clone_from(&told);
            return self.lines.send(Line::Progress(told)).is_ok();
        }
        true
    }

    fn is_reached(&self, module: &ModuleStatus) -> bool {
        let last = module.peer_report();
        let peer = last.map(|last| last.role);
        // While a role is only being taken up, nothing is served yet.
        let ready = last.filter(|last| last.phase == Phase::Ready).map(|last| last.role);
        let serves = |role| matches!(role, Role::Prim | Role::Alone);
        match self.state {
            WaitFor::Protected => module.headline == Headline::Protected,
            // Each node of a light module is as good as it can be once it runs it.
            WaitFor::Serving if module.role == Role::Up => {
                module.service && module.phase == Phase::Ready
            }
            WaitFor::Serving => {
                (serves(module.role) && module.service) || ready.is_some_and(serves)
            }
            WaitFor::Alone => {
                let alone = module.role == Role::Alone && module.phase == Phase::Ready;
                alone || ready == Some(Role::Alone)
            }
            WaitFor::Stopped => {
                module.role == Role::Stop && peer.is_none_or(|role| role == Role::Stop)
            }
        }
    }
}

/// Why it would be waited for in vain.
pub(super) fn never_comes(
    config: &ModuleConfig,
    node: &NodeName,
    state: WaitFor,
) -> Option<String> {
    let name = &config.name;
    match (config.kind, state) {
        (ModuleKind::Light, _) if !config.nodes.contains(node) => {
            Some(format!("module {name} is not run on {node}: ask one of its nodes"))
        }
        (ModuleKind::Light, WaitFor::Protected | WaitFor::Alone) => Some(format!(
            "{name} is a light module, which no other node takes over: wait for `serving` or \
             `stopped`"
        )),
        (ModuleKind::Light, WaitFor::Serving | WaitFor::Stopped) => None,
        (ModuleKind::Mirror | ModuleKind::Farm, _) => None,
    }
}

fn state_sentence(name: &ModuleName, module: &ModuleStatus) -> String {
    let headline = module.headline.to_string().to_lowercase();
    match module.reasons.first() {
        Some(reason) => format!("{name} is {headline}: {}", reason.sentence),
        None => format!("{name} is {headline}, this node is {}", module.role),
    }
}
