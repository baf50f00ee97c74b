//! Why something is not green: the one shape in which every interface says it.
//!
//! A reason is data, not text already put together, so that log, API, command line, console and
//! mail say the same thing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Time;

/// The state of a module in one word, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Headline {
    /// Green: the loss of any one node is survived.
    Protected,
    /// Green: the application runs, on this node alone, as it is meant to.
    Runs,
    /// Blue: a change is under way.
    Changing,
    /// Amber: it runs, but a loss may not be survived.
    AtRisk,
    /// Grey: nothing is known.
    Unknown,
    /// Red: nobody serves.
    Down,
}

impl fmt::Display for Headline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Headline::Protected => "PROTECTED",
            Headline::Runs => "RUNS",
            Headline::Changing => "CHANGING",
            Headline::AtRisk => "AT RISK",
            Headline::Unknown => "UNKNOWN",
            Headline::Down => "DOWN",
        })
    }
}

/// How much a reason or an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// For the record.
    Info,
    /// Redundancy is reduced or a step did not succeed.
    Warning,
    /// The service is down or data is in danger.
    Critical,
}

/// Why a state is not green.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable identifier, in kebab case, listed in `docs/reasons.md`.
    pub code: String,
    /// One sentence that names cause and consequence.
    pub sentence: String,
    /// How much it matters.
    pub severity: Severity,
    /// Since when it holds, on this node's clock.
    pub since: Time,
    /// Facts that led to it.
    pub evidence: Vec<String>,
    /// What to do next: commands or actions, best first.
    pub next: Vec<String>,
}
