//! One configuration for all nodes: who may change it, and what a node does that was away.
//!
//! ```text
//! coordinator                      every node, itself included, in the order of cluster.toml
//! prepare(proposal)  ───────────>  judge: yes, durably noted as pending, or a refusal
//! decide: durable as its newest
//! commit             ───────────>  durable as its newest, no longer pending
//! ```
//! The coordinator's own commit is the decision. A node that has said yes and hears no more asks
//! the others: whoever has the configuration proves that it was decided; a coordinator that has
//! it not, and is not deciding either, proves that it never will be. Files, messages and
//! what a configuration means are not known here.

use std::collections::{BTreeMap, BTreeSet};

use model::config::{self, Files, Stand};
use model::{Fingerprint, ModuleName, NodeName};
use serde::{Deserialize, Serialize};

/// A configuration that was applied, or shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its number.
    pub number: u64,
    /// When it was made, in milliseconds since 1970 on the clock of `from`.
    pub at_ms: u64,
    /// The node that made it.
    pub from: NodeName,
    /// How it came about.
    pub origin: Origin,
    /// What it holds.
    pub files: Files,
}

impl Version {
    /// Where it stands.
    #[must_use]
    pub fn stand(&self) -> Stand {
        Stand { number: self.number, digest: self.files.digest() }
    }
}

/// How a configuration came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It was found when the daemon started, before any was applied.
    Found,
    /// `evenkeel apply`.
    Applied,
    /// `evenkeel rollback` to the one of this number.
    Rollback(u64),
    /// A node came or went.
    Membership,
}

/// A configuration that one node proposes to all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Tells it from any other.
    pub id: String,
    /// The configuration.
    pub version: Version,
    /// Digests of the files of the one that it follows.
    pub base: BTreeMap<String, Fingerprint>,
    /// The one that it follows.
    pub follows: Stand,
    /// Nodes that are not asked, for they are away.
    pub without: Vec<NodeName>,
    /// Whether files that were edited on other nodes, and configurations that only they have, may
    /// be set aside.
    pub overwrite: bool,
}

/// What a node that was asked goes by.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// This node.
    pub node: &'a NodeName,
    /// What it has in use.
    pub stand: Stand,
    /// What it has said yes to, without knowing the outcome.
    pub pending: Option<&'a Proposal>,
    /// Its files as they lie there.
    pub draft: &'a Files,
}

/// Whether a node may agree to a proposal, for what it knows of others; whether it could use
/// the configuration is found out elsewhere.
///
/// # Errors
/// Why not.
pub fn judge(own: &Own<'_>, proposal: &Proposal) -> Result<(), String> {
    let (node, version) = (own.node, &proposal.version);
    if let Some(pending) = own.pending.filter(|pending| pending.id != proposal.id) {
        let gone = proposal.overwrite && proposal.without.contains(&pending.version.from);
        // Who proposes again what follows the same has not decided before.
        let again = pending.version.from == version.from && pending.follows == proposal.follows;
        if !gone && !again {
            let (number, from) = (pending.version.number, &pending.version.from);
            return Err(format!(
                "configuration {number} of {from} is just being applied, and {node} does not know \
                 how that ended"
            ));
        }
    }
    let (has, follows) = (own.stand.number, proposal.follows.number);
    if has >= version.number {
        return Err(format!("{node} has configuration {has} already"));
    }
    // As long as none was applied, the files may differ in what means nothing.
    let follows_own = own.stand == proposal.follows || (has == 0 && follows == 0);
    if !follows_own && !proposal.overwrite {
        let than = if has == follows { "another".to_owned() } else { format!("not {follows}") };
        return Err(format!("{node} has configuration {has}, {than}"));
    }
    let mut edited = edited(own.draft, version, &proposal.base);
    if has == 0 {
        // What was never given to this node was not taken away from it either.
        edited.retain(|path| own.draft.0.contains_key(path));
    }
    // Who applies its own files means what it has edited.
    let meant = *node == version.from && version.origin == Origin::Applied;
    if edited.is_empty() || proposal.overwrite || meant {
        return Ok(());
    }
    Err(format!("edited on {node}, and not applied: {}", edited.join(", ")))
}

/// The modules that have to stay stopped for what a node has agreed to.
#[must_use]
pub fn reserved_by(before: Option<&Files>, pending: Option<&Proposal>) -> BTreeSet<ModuleName> {
    let both = before.zip(pending);
    both.map(|(before, pending)| config::to_stop(&config::changes(before, &pending.version.files)))
        .unwrap_or_default()
}

/// The files that are neither as they were nor as they shall be.
#[must_use]
pub fn edited(
    draft: &Files,
    version: &Version,
    base: &BTreeMap<String, Fingerprint>,
) -> Vec<String> {
    let (is, shall) = (draft.digests(), version.files.digests());
    let paths = is.keys().chain(base.keys().filter(|path| !is.contains_key(*path)));
    let odd = paths.filter(|path| {
        let is = is.get(*path);
        is != base.get(*path) && is != shall.get(*path)
    });
    odd.cloned().collect()
}

/// What a node says of a configuration to one that has said yes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// What it has in use itself.
    pub stand: Stand,
    /// Whether it has, or has had, exactly the one that it is asked about.
    pub has: bool,
    /// Whether it is just deciding on it, as its coordinator.
    pub deciding: bool,
}

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was decided.
    Commit,
    /// It never will be.
    Abandon,
    /// It is not known yet.
    Unknown,
}

/// What became of a proposal, as far as the others' testimonies tell.
#[must_use]
pub fn outcome(proposal: &Proposal, heard: &BTreeMap<NodeName, Testimony>) -> Outcome {
    if heard.values().any(|testimony| testimony.has) {
        return Outcome::Commit;
    }
    match heard.get(&proposal.version.from) {
        Some(Testimony { deciding: false, .. }) => Outcome::Abandon,
        Some(Testimony { deciding: true, .. }) | None => Outcome::Unknown,
    }
}

/// What a node does about a peer's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// Nothing.
    Nothing,
    /// Ask for it.
    Ask,
    /// Nothing by itself: neither follows from the other.
    Conflict,
}

/// What a node does about what a peer's heartbeat shows.
#[must_use]
pub fn catch_up(own: &Stand, peer: &Stand) -> CatchUp {
    if peer.number > own.number {
        CatchUp::Ask
    } else if peer.number == own.number && own.number > 0 && peer.digest != own.digest {
        CatchUp::Conflict
    } else {
        CatchUp::Nothing
    }
}

/// What a node does about the newer configuration that it was given: it takes what follows from its
/// own. `knows_own` is whether the peer has, or has had, the one of this node.
#[must_use]
pub fn take_over(own: &Stand, newer: &Stand, knows_own: bool) -> CatchUp {
    if newer.number <= own.number {
        CatchUp::Nothing
    } else if knows_own || own.number == 0 {
        CatchUp::Ask
    } else {
        CatchUp::Conflict
    }
}

#[cfg(test)]
#[path = "configuration_tests.rs"]
mod tests;
