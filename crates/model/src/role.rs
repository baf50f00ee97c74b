//! The role of a node in a module, as shown everywhere.
//!
//! The words are those that administrators of mirrored pairs know. The state machine behind them
//! has more states; each maps to exactly one role and phase.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a node is doing for a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// Stopped by the operator; the plain directories are there.
    Stop,
    /// Started, but neither running the application nor following a peer.
    Wait,
    /// Running the application without an up-to-date peer.
    Alone,
    /// Running the application, mirrored by an up-to-date peer.
    Prim,
    /// Following the primary.
    Second,
    /// Running its part of a farm.
    Up,
}

/// How far a role has been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Blocked: something must be mended first.
    NotReady,
    /// Passing through.
    Transient,
    /// Reached.
    Ready,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Stop => "STOP",
            Role::Wait => "WAIT",
            Role::Alone => "ALONE",
            Role::Prim => "PRIM",
            Role::Second => "SECOND",
            Role::Up => "UP",
        })
    }
}
