//! A module on one node, of whatever kind: who is given what.
//!
//! No decision is taken here, and none is shared here: a kind may take any input, and leaves out
//! what does not concern it.

use model::config::ModuleKind;
use model::{NodeName, Time};
use serde::{Deserialize, Serialize};

use crate::effect::Effect;
use crate::found::Found;
use crate::input::{Boot, BootModule, Input};
use crate::isolation::Reach;
use crate::mirror::Mirror;
use crate::report::{Heartbeat, Report};
use crate::status::ModuleStatus;

/// One module on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Module {
    Mirror(Box<Mirror>),
}

impl Module {
    /// A module when a daemon starts, with its first effects; none of a kind that is not run yet.
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
            ModuleKind::Farm => None,
        }
    }

    /// A new batch of effects begins, `gap` after the one before.
    pub(crate) fn begin(&mut self, now: Time, gap: std::time::Duration) {
        match self {
            Module::Mirror(mirror) => {
                mirror.begin_batch();
                mirror.notice_gap(now, gap);
            }
        }
    }

    /// The pings have told something.
    pub(crate) fn reach(&mut self, now: Time, reach: &Reach) -> Vec<Effect> {
        match self {
            Module::Mirror(mirror) => mirror.run(now, |mirror| mirror.hear_reach(reach.clone())),
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
            Module::Mirror(_) => Vec::new(),
        }
    }

    /// Something happened to this module.
    pub(crate) fn take_in(&mut self, now: Time, input: Input) -> Vec<Effect> {
        match self {
            Module::Mirror(mirror) => mirror.run(now, |mirror| mirror.take_in(input)),
        }
    }

    /// Decides what was put off until now.
    pub(crate) fn wake(&mut self, now: Time) -> Vec<Effect> {
        match self {
            Module::Mirror(mirror) if mirror.is_due(now) => mirror.run(now, |_| {}),
            Module::Mirror(_) => Vec::new(),
        }
    }

    /// When to be woken, at the latest, by a node that was handled last at `handled`.
    pub(crate) fn deadline(&self, handled: Time) -> Option<Time> {
        match self {
            Module::Mirror(mirror) => {
                let tick = handled + mirror.timeout() / 4;
                Some(mirror.wake().map_or(tick, |wake| wake.min(tick)))
            }
        }
    }

    /// What heartbeats are to say of it; nothing where it concerns nobody.
    pub(crate) fn report(&self) -> Option<Report> {
        match self {
            Module::Mirror(mirror) => Some(mirror.report()),
        }
    }

    pub(crate) fn status(&self, now: Time) -> ModuleStatus {
        match self {
            Module::Mirror(mirror) => mirror.status(now),
        }
    }

    /// It as a daemon on `node` would find it that is started now.
    pub(crate) fn found(&self, now: Time, node: NodeName) -> Found {
        let (boot, wall, module) = match self {
            Module::Mirror(mirror) => (mirror.boot(), mirror.wall(now), mirror.found()),
        };
        Found { node, boot, wall, module, status: self.status(now) }
    }
}
