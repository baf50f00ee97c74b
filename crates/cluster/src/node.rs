//! A node: its modules, and the one timer they share.
//!
//! It only distributes what happens; every decision about a module is taken by its kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::config::ModuleConfig;
use model::{ModuleName, NodeName, Phase, Role, Time};
use serde::{Deserialize, Serialize};

use crate::effect::Effect;
use crate::farm::{Left, Pulse};
use crate::input::{Boot, Input};
use crate::module::Module;
use crate::report::Report;
use crate::status::{ModuleStatus, NodeStatus};

/// All decisions of one node. Feed it inputs, perform its effects in order. Written down, it can be
/// gone on with: that is where a replay begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    name: NodeName,
    modules: BTreeMap<ModuleName, Module>,
    handled: Time,
    announced: BTreeMap<ModuleName, Arc<Report>>,
}

impl Node {
    /// A node that starts at `now`, with its first effects.
    #[must_use]
    pub fn new(now: Time, boot: Boot) -> (Node, Vec<Effect>) {
        let name = boot.name.clone();
        let mut modules = BTreeMap::new();
        let mut effects = Vec::new();
        for (stream, module) in (0u64..).zip(&boot.modules) {
            let Some((kind, first)) = Module::new(now, &boot, module, stream) else { continue };
            effects.extend(first);
            modules.insert(module.config.name.clone(), kind);
        }
        let mut node = Node { name, modules, handled: now, announced: BTreeMap::new() };
        node.announce(&mut effects);
        (node, effects)
    }

    /// Handles one input; the effects are to be performed in this order.
    pub fn handle(&mut self, now: Time, input: Input) -> Vec<Effect> {
        let input = match input {
            Input::Pulse { module, received, pulse, more: true } => {
                self.note(&module, received, *pulse);
                return Vec::new();
            }
            input => input,
        };
        if let Input::PersistFailed { module, .. } = &input {
            return self.undo(now, &module.clone(), input);
        }
        let gap = now.since(self.handled);
        self.handled = self.handled.max(now);
        let mut effects = Vec::new();
        for module in self.modules.values_mut() {
            module.begin(now, gap);
        }
        match input {
            Input::Tick => {}
            Input::Heartbeat { heartbeat, received, echoed } => {
                for module in self.modules.values_mut() {
                    effects.extend(module.hear(now, &heartbeat, received, echoed));
                }
            }
            Input::Reach(reach) => {
                for module in self.modules.values_mut() {
                    effects.extend(module.reach(now, &reach));
                }
            }
            Input::Unread { from, received, version } => {
                for module in self.modules.values_mut() {
                    effects.extend(module.hear_unread(now, &from, received, version));
                }
            }
            input => {
                if let Some(module) = input.module().and_then(|m| self.modules.get_mut(m)) {
                    effects.extend(module.take_in(now, input));
                }
            }
        }
        for module in self.modules.values_mut() {
            effects.extend(module.wake(now));
        }
        self.announce(&mut effects);
        effects
    }

    /// Something is handed in right after a pulse, perhaps that a record could not be written, or a
    /// pulse of somebody who would be missed by now: nothing at all is decided in between.
    fn note(&mut self, module: &ModuleName, received: Time, pulse: Pulse) {
        if let Some(Module::Farm(farm)) = self.modules.get_mut(module) {
            farm.note(received, pulse);
        }
    }

    /// A record of a module could not be written. No other module decides anything before it, too,
    /// knows whether its own record of the same batch could.
    fn undo(&mut self, now: Time, name: &ModuleName, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(module) = self.modules.get_mut(name) {
            module.begin(now, Duration::ZERO);
            effects.extend(module.take_in(now, input));
        }
        self.announce(&mut effects);
        effects
    }

    /// When to hand in `Input::Tick`, at the latest; none when there is nothing to decide.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.modules.values().filter_map(|module| module.deadline(self.handled)).min()
    }

    /// What heartbeats are to say of this node's modules.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<ModuleName, Arc<Report>> {
        self.announced.clone()
    }

    /// The node as people and programs see it.
    #[must_use]
    pub fn status(&self, now: Time) -> NodeStatus {
        let each = |(name, module): (&ModuleName, &Module)| (name.clone(), module.status(now));
        NodeStatus { node: self.name.clone(), modules: self.modules.iter().map(each).collect() }
    }

    /// What the node knows about one of its modules.
    #[must_use]
    pub fn status_of(&self, now: Time, module: &ModuleName) -> Option<ModuleStatus> {
        Some(self.modules.get(module)?.status(now))
    }

    /// What one of its modules is on this node.
    #[must_use]
    pub fn role(&self, module: &ModuleName) -> Option<(Role, Phase)> {
        Some(self.modules.get(module)?.role())
    }

    /// What the kernel does for a farm, for a following daemon of this boot; to be written down
    /// before the kernel is told. None of what is no farm, or serves nobody.
    #[must_use]
    pub fn farm_left(&self, module: &ModuleName) -> Option<Left> {
        let farm = self.modules.get(module)?.farm()?;
        farm.shares().serves().then(|| farm.left())
    }

    /// Digest of the list of a farm's nodes, which a pulse must have to be for it.
    #[must_use]
    pub fn farm_roster(&self, module: &ModuleName) -> Option<u64> {
        Some(self.modules.get(module)?.farm()?.roster())
    }

    /// Whether the farms that run here keep their nodes with other modules' files.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn keeps_farms(&self, after: &[ModuleConfig]) -> Result<(), String> {
        self.modules.values().try_for_each(|module| match module {
            Module::Farm(farm) => farm.keeps_nodes(after),
            Module::Mirror(_) | Module::Light(_) => Ok(()),
        })
    }

    pub(crate) fn name(&self) -> &NodeName {
        &self.name
    }

    pub(crate) fn module(&self, module: &ModuleName) -> Option<&Module> {
        self.modules.get(module)
    }

    fn announce(&mut self, effects: &mut Vec<Effect>) {
        let mut changed = false;
        for (name, module) in &self.modules {
            let Some(report) = module.report() else { continue };
            if self.announced.get(name).is_none_or(|announced| **announced != report) {
                self.announced.insert(name.clone(), Arc::new(report));
                changed = true;
            }
        }
        if changed {
            effects.push(Effect::Announce);
        }
    }
}

/// The longest silence of a node's own ticks after which its knowledge of peers still counts.
pub(crate) fn gap_allowed(timeout: Duration) -> Duration {
    timeout / 2
}
