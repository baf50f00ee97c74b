//! A module on one node, of whatever kind: who is given what.
//!
//! No decision is taken here, and none is shared here: a kind may take any input, and leaves out
//! what does not concern it.

use model::config::ModuleKind;
use model::{NodeName, Phase, Role, Time};
use serde::{Deserialize, Serialize};

use crate::effect::Effect;
use crate::farm::Farm;
use crate::farming::Farming;
use crate::found::Found;
use crate::input::{Boot, BootModule, Input};
use crate::isolation::Reach;
use crate::light::Light;
use crate::mirror::Mirror;
use crate::report::{Heartbeat, Report};
use crate::status::ModuleStatus;

/// One module on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Module {
    Mirror(Box<Mirror>),
    Farm(Box<Farming>),
    Light(Box<Light>),
}

impl Module {
    /// A module when a daemon starts, with its first effects; none if it is not run on this node.
    pub(crate) fn new(
        now: Time,
        boot: &Boot,
        module: &BootModule,
        stream: u64,
    ) -> Option<(Module, Vec<Effect>)> {
        match module.config.kind {
            ModuleKind::Mirror => {
                let mut mirror = Box::new(Mirror::new(now, boot, module, stream));
                let effects = mirror.run(now, |mirror| mirror.resume(module.running.as_ref()));
                Some((Module::Mirror(mirror), effects))
            }
            ModuleKind::Farm => {
                let mut farm = Box::new(Farming::new(now, boot, module)?);
                let effects = farm.run(now, |farm| farm.resume(module.running.as_ref()));
                Some((Module::Farm(farm), effects))
            }
            ModuleKind::Light if !module.config.nodes.contains(&boot.name) => None,
            ModuleKind::Light => {
                let mut light = Box::new(Light::new(now, boot, module));
                let effects = light.run(now, |light| light.resume(module.running.as_ref()));
                Some((Module::Light(light), effects))
            }
        }
    }

    /// A new batch of effects begins, `gap` after the one before.
    pub(crate) fn begin(&mut self, now: Time, gap: std::time::Duration) {
        match self {
            Module::Mirror(mirror) => {
                mirror.begin_batch();
                mirror.notice_gap(now, gap);
            }
            Module::Farm(farm) => farm.begin_batch(),
            Module::Light(light) => light.begin_batch(),
        }
    }

    /// The pings have told something.
    pub(crate) fn reach(&mut self, now: Time, reach: &Reach) -> Vec<Effect> {
        match self {
            Module::Mirror(mirror) => mirror.run(now, |mirror| mirror.hear_reach(reach.clone())),
            // Each part of a farm goes on: there is nothing that could diverge.
            Module::Farm(_) => Vec::new(),
            // Nothing of it depends on whether this node is cut off.
            Module::Light(_) => Vec::new(),
        }
    }

    /// A heartbeat came, of whatever node.
    pub(crate) fn hear(
        &mut self,
        now: Time,
        heartbeat: &Heartbeat,
        received: Time,
        echoed: Option<Time>,
    ) -> Vec<Effect> {
        match self {
            Module::Mirror(mirror) if *mirror.peer_name() == heartbeat.from => {
                mirror.run(now, |mirror| mirror.hear(heartbeat, received, echoed))
            }
            Module::Mirror(_) | Module::Farm(_) | Module::Light(_) => Vec::new(),
        }
    }

    /// A heartbeat came that cannot be read, of whatever node.
    pub(crate) fn hear_unread(
        &mut self,
        now: Time,
        from: &NodeName,
        received: Time,
        version: u16,
    ) -> Vec<Effect> {
        match self {
            Module::Mirror(mirror) if mirror.peer_name() == from => {
                mirror.run(now, |mirror| mirror.hear_unread(received, version))
            }
            Module::Mirror(_) | Module::Farm(_) | Module::Light(_) => Vec::new(),
        }
    }

    /// Something happened to this module.
    pub(crate) fn take_in(&mut self, now: Time, input: Input) -> Vec<Effect> {
        match self {
            Module::Mirror(mirror) => mirror.run(now, |mirror| mirror.take_in(input)),
            Module::Farm(farm) => farm.run(now, |farm| farm.take_in(now, input)),
            Module::Light(light) => light.run(now, |light| light.take_in(input)),
        }
    }

    /// Decides what was put off until now.
    pub(crate) fn wake(&mut self, now: Time) -> Vec<Effect> {
        match self {
            Module::Mirror(mirror) if mirror.is_due(now) => mirror.run(now, |_| {}),
            Module::Farm(farm) => farm.wake_up(now),
            Module::Light(light) if light.base().is_due(now) => light.run(now, |_| {}),
            Module::Mirror(_) | Module::Light(_) => Vec::new(),
        }
    }

    /// When to be woken, at the latest, by a node that was handled last at `handled`.
    pub(crate) fn deadline(&self, handled: Time) -> Option<Time> {
        match self {
            Module::Mirror(mirror) => {
                let tick = handled + mirror.timeout() / 4;
                Some(mirror.wake().map_or(tick, |wake| wake.min(tick)))
            }
            Module::Farm(farm) => farm.wake(),
            Module::Light(light) => light.base().wake(),
        }
    }

    /// What heartbeats are to say of it; nothing where it concerns nobody.
    pub(crate) fn report(&self) -> Option<Report> {
        match self {
            Module::Mirror(mirror) => Some(mirror.report()),
            // Its nodes hear of each other by pulses.
            Module::Farm(_) | Module::Light(_) => None,
        }
    }

    /// The farm, if it is one.
    pub(crate) fn farm(&self) -> Option<&Farm> {
        match self {
            Module::Farm(farm) => Some(farm.farm()),
            Module::Mirror(_) | Module::Light(_) => None,
        }
    }

    pub(crate) fn role(&self) -> (Role, Phase) {
        match self {
            Module::Mirror(mirror) => mirror.role(),
            Module::Farm(farm) => farm.role(),
            Module::Light(light) => light.role(),
        }
    }

    pub(crate) fn status(&self, now: Time) -> ModuleStatus {
        match self {
            Module::Mirror(mirror) => mirror.status(now),
            Module::Farm(farm) => farm.status(),
            Module::Light(light) => light.status(),
        }
    }

    /// It as a daemon on `node` would find it that is started now.
    pub(crate) fn found(&self, now: Time, node: NodeName) -> Found {
        let (boot, wall, module) = match self {
            Module::Mirror(mirror) => (mirror.boot(), mirror.wall(now), mirror.found()),
            Module::Farm(farm) => {
                let base = farm.base();
                (base.boot, base.wall(now), farm.found())
            }
            Module::Light(light) => {
                let base = light.base();
                (base.boot, base.wall(now), light.found())
            }
        };
        Found { node, boot, wall, module, status: self.status(now) }
    }
}
