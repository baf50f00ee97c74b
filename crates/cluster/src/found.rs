//! What a daemon that is started now would find of a module: the state of a node without what only
//! this daemon remembers.
//!
//! That a daemon may end and another one go on is an ordinary event, so a node found like this goes
//! on as it would have: a simulation begins here.

use std::time::Duration;

use model::{BootId, ModuleName, NodeName, Time};
use serde::{Deserialize, Serialize};

use crate::input::BootModule;
use crate::node::Node;
use crate::status::ModuleStatus;

/// A module of a node, as it would be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The node.
    pub node: NodeName,
    /// Identity of its running boot.
    pub boot: BootId,
    /// What the clock on the wall shows there, since 1970.
    pub wall: Duration,
    /// The module, with what runs of it.
    pub module: BootModule,
    /// How the node shows it.
    pub status: ModuleStatus,
}

impl Node {
    /// A module as a daemon would find it that is started now.
    #[must_use]
    pub fn found(&self, now: Time, module: &ModuleName) -> Option<Found> {
        Some(self.module(module)?.found(now, self.name().clone()))
    }
}
