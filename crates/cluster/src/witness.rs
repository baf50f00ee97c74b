//! The witness's register and its protocol, as a pure state machine.

use std::collections::{BTreeMap, BTreeSet};

use model::{EpochId, ModuleName, NodeName};
use serde::{Deserialize, Serialize};

/// A question to the witness about one module of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Both nodes, in contact and in sync, ask for a register to be created.
    Enrol {
        /// The epoch they share.
        epoch: EpochId,
        /// Its members.
        members: BTreeSet<NodeName>,
    },
    /// Replace exactly `expected` by `new`.
    Swap {
        /// What must stand in the register.
        expected: EpochId,
        /// What shall stand there.
        new: EpochId,
        /// Members of `new`.
        members: BTreeSet<NodeName>,
    },
    /// Say what stands there.
    Probe,
}

/// What the witness says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Enrolled or swapped, also when that had been done before; durable before it was said.
    Granted,
    /// Something else stands there.
    Refused {
        /// What stands there.
        current: EpochId,
        /// Its members.
        members: BTreeSet<NodeName>,
    },
    /// There is no such register.
    Missing,
    /// Enrolment waits for the other node.
    Half,
    /// What stands there.
    Holds {
        /// Epoch.
        current: EpochId,
        /// Its members.
        members: BTreeSet<NodeName>,
    },
}

/// The key of a register: cluster and module.
pub type Key = (ModuleName, ModuleName);

/// All registers of a witness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Witness {
    registers: BTreeMap<Key, (EpochId, BTreeSet<NodeName>)>,
}
