//! Epochs and what a copy of the data is worth.
//!
//! An epoch is a period with a fixed set of nodes that hold the current data. Epochs are compared
//! by id, never by number: a node that was re-installed or restored may use a number again.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeName;

/// Ancestors that a record keeps. A copy that fell further behind is compared whole and needs the
/// operator's word, as nothing proves any more that it is an ancestor.
const LINEAGE_MAX: usize = 64;

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            /// The first eight digits, enough to tell ids apart in a story.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:08x}", self.0 >> 96)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
    };
}

random_id!(
    /// Random identity of an epoch.
    EpochId
);
random_id!(
    /// Random identity of one boot of a node's operating system: it changes exactly when the
    /// page cache may have been lost.
    BootId
);
random_id!(
    /// Random identity of one replication session from a source to a target.
    SessionId
);

/// A period with a fixed set of nodes holding the current data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Position in the chain, for people; never compared.
    pub number: u64,
    /// The identity that is compared.
    pub id: EpochId,
    /// The epoch this one continues; none for the first.
    pub parent: Option<EpochId>,
    /// The node that opened it.
    pub author: NodeName,
    /// The nodes that hold everything acknowledged in it.
    pub members: BTreeSet<NodeName>,
}

impl Epoch {
    /// Whether `node` is the one and only member.
    #[must_use]
    pub fn is_sole_member(&self, node: &NodeName) -> bool {
        self.members.len() == 1 && self.members.contains(node)
    }
}

/// The ids of past epochs of a copy, newest first, without the current one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage(Vec<EpochId>);

impl Lineage {
    /// A lineage of these ids, newest first; what exceeds the limit is dropped.
    #[must_use]
    pub fn new(mut ids: Vec<EpochId>) -> Lineage {
        ids.truncate(LINEAGE_MAX);
        Lineage(ids)
    }

    /// Notes that `id` has been followed by another epoch.
    pub fn push(&mut self, id: EpochId) {
        self.0.insert(0, id);
        self.0.truncate(LINEAGE_MAX);
    }

    /// Whether `id` is a known ancestor.
    #[must_use]
    pub fn contains(&self, id: EpochId) -> bool {
        self.0.contains(&id)
    }

    /// The ids, newest first.
    #[must_use]
    pub fn ids(&self) -> &[EpochId] {
        &self.0
    }
}

/// What a copy of the data is worth, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Copy {
    /// No data proven to belong to the module: never replicated here, or its marker is missing.
    None,
    /// A resync into it began and did not finish.
    Inconsistent,
    /// The peer went on without it.
    Outdated,
    /// The node went down uncleanly after the last write: only what was durable is there.
    Crashed,
    /// Everything that its epoch acknowledged is there.
    Intact,
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Copy::None => "none",
            Copy::Inconsistent => "inconsistent",
            Copy::Outdated => "outdated",
            Copy::Crashed => "crashed",
            Copy::Intact => "intact",
        })
    }
}
