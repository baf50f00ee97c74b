//! What a node must remember of a module across a crash.
//!
//! The shell keeps a record in its own fsynced file and, beside it, a marker with the epoch in
//! each replicated root. A record is replaced as a whole.

use std::time::Duration;

use model::{BootId, Copy, Epoch, EpochId, Lineage, Time};
use serde::{Deserialize, Serialize};

/// What a node remembers of a module. What an older program left out counts as its default; one
/// with something unknown is a newer program's, and not guessed at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Random identity of the module's data, marked in each replicated root; 0 before the first
    /// start.
    pub root: u128,
    /// The adopted epoch; none before the first start.
    pub epoch: Option<Epoch>,
    /// Ids of the epochs before it.
    pub lineage: Lineage,
    /// An epoch asked for, not yet granted or refused.
    pub pending: Option<Epoch>,
    /// The newest epoch id known to stand in the witness's register.
    pub registered: Option<EpochId>,
    /// What the copy was worth when it was last written down. A crash is not in here: it shows by
    /// `open_in`.
    pub copy: StoredCopy,
    /// The boot in which the copy was opened for writing and not yet closed cleanly.
    pub open_in: Option<BootId>,
    /// All that was acknowledged since the copy was last closed cleanly was on this disk first:
    /// what the configuration says now may be younger than a crash.
    #[serde(default)]
    pub fsynced: bool,
    /// Last operation number, valid only while the copy is closed.
    pub number: Option<u64>,
    /// Counts who holds the role of primary within an epoch.
    pub role_term: u64,
    /// Whether this node is the holder of `role_term`.
    pub holds_role: bool,
    /// R5: the source has sent, or may have sent, the message that lets the target promote
    /// itself in the current epoch.
    pub target_may_promote: bool,
    /// R5: this node may promote itself in the current epoch.
    pub promotable: bool,
    /// The last epoch shared with the peer, as long as the opening checkpoint of the one that
    /// follows it is not known to be complete: a crash before that leads back here.
    #[serde(default)]
    pub unopened: Option<Epoch>,
    /// The epoch began on the operator's word, and does not stand in the witness's register yet,
    /// where it replaces whatever is found.
    #[serde(default)]
    pub forced: bool,
    /// When the operator gave the copy up, since 1970: what it held alone is kept under this name,
    /// until it is up to date.
    #[serde(default)]
    pub quarantine: Option<Duration>,
    /// How long the application has run here since the last epoch shared with the peer.
    #[serde(default)]
    pub served: Served,
    /// Until when the operator wants nothing done about failures by itself.
    #[serde(default)]
    pub paused: Option<Span>,
    /// Until when the operator wants to work on this node.
    #[serde(default)]
    pub maintenance: Option<Span>,
    /// Whether the operator wants the module started on this node.
    pub started: bool,
    /// How the application has failed here lately.
    #[serde(default)]
    pub recovery: Recovery,
}

/// How long the application has run on this node without the peer, on this node's own clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// What is over, or was written down meanwhile.
    pub total: Duration,
    /// Since when it runs, which is not in `total` yet.
    pub since: Option<Moment>,
}

/// A time that ends by itself, also across a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// When it ends, since 1970.
    pub end: Duration,
    /// How long it was to be.
    pub length: Duration,
}

/// How the application has failed on this node lately, as far as the recovery rules count it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// When it was restarted in place, oldest first.
    pub restarts: Vec<Moment>,
    /// Why it was restarted the last time.
    pub newest: Option<Newest>,
    /// This node left it to the peer, or stopped, because of a failure.
    pub given_up: Option<GivenUp>,
}

/// A time, which means something in its boot only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The boot.
    pub boot: BootId,
    /// The time.
    pub at: Time,
}

/// Why the application was restarted the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// The failure, as the end of a sentence.
    pub sentence: String,
    /// How it showed itself.
    pub evidence: Vec<String>,
}

/// That a node does not run the application any more because that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// When.
    pub at: Moment,
    /// Code of the reason that is shown.
    pub code: String,
    /// Its sentence.
    pub sentence: String,
    /// How the failure showed itself.
    pub evidence: Vec<String>,
}

/// The quality of a copy as written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoredCopy {
    /// Never held data of the module.
    #[default]
    None,
    /// A resync into it began and did not finish.
    Inconsistent,
    /// This node consented that the peer goes on without it in the named epoch.
    Outdated {
        /// The epoch the peer proposed.
        consent: EpochId,
    },
    /// Its disk, or that of its activity log, was put back to an earlier state.
    Restored,
    /// Whole, but given up by the operator: the next source may overwrite it.
    Discarded,
    /// Current in its epoch.
    Current,
}

impl StoredCopy {
    /// Quality, given that the copy was not open in an earlier boot.
    #[must_use]
    pub fn quality(self) -> Copy {
        match self {
            StoredCopy::None => Copy::None,
            StoredCopy::Inconsistent | StoredCopy::Discarded => Copy::Inconsistent,
            StoredCopy::Outdated { .. } | StoredCopy::Restored => Copy::Outdated,
            StoredCopy::Current => Copy::Intact,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as the first programs wrote it.
    const FIRST: &str = r#"{
        "root": 7, "epoch": null, "lineage": [], "pending": null, "registered": null,
        "copy": "current", "open_in": null, "number": 41, "role_term": 2, "holds_role": true,
        "target_may_promote": false, "promotable": true, "started": true
    }"#;

    #[test]
    fn a_record_of_an_older_program_is_read() {
        let record: Record = serde_json::from_str(FIRST).unwrap();
        let wanted = Record {
            root: 7,
            copy: StoredCopy::Current,
            number: Some(41),
            role_term: 2,
            holds_role: true,
            promotable: true,
            started: true,
            ..Record::default()
        };
        assert_eq!(record, wanted);
    }

    #[test]
    fn a_record_of_a_newer_program_is_not_guessed_at() {
        let newer = FIRST.replacen('{', "{ \"lent_to\": \"node3\",", 1);
        let error = serde_json::from_str::<Record>(&newer).unwrap_err().to_string();
        assert!(error.contains("lent_to"), "{error}");
        let newer = FIRST.replace("\"current\"", "\"frozen\"");
        let error = serde_json::from_str::<Record>(&newer).unwrap_err().to_string();
        assert!(error.contains("frozen"), "{error}");
    }
}
